"""A run on disk: what was killed goes on, and nothing tells the difference."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import xarray as xr
from small import items, model

import vitlens as vl

from .made import Distance, Mean, Middle, Saliency

CONDITIONS = ["clean", "gaussian_noise@3"]
NAMED = ("image 1", "image 3")


def analyses():
    return [vl.Prediction(), vl.AttentionEntropy(), Distance(), Saliency(), Mean(), Middle(NAMED)]


def measure(dataset, output=None, **keywords):
    settings = {
        "batch_size": 2,
        "shard_images": 4,
        "conditions": CONDITIONS,
        "on_bad_image": "raise",
        "progress": False,
    } | keywords
    models = {"a": model(0), "b": model(1)}
    return vl.run(models, dataset, settings.pop("analyses", analyses()), output=output, **settings)


class Stops(torch.utils.data.Dataset):
    """A data set that breaks off at one image."""

    def __init__(self, dataset, at):
        self.dataset, self.at, self.loaded = dataset, at, []
        self.image_ids = [item["image_id"] for item in dataset]

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        if index == self.at:
            raise OSError("gone")
        self.loaded.append(index)
        return self.dataset[index]


def test_rows_on_disk_give_the_result_of_rows_in_memory(tmp_path):
    wanted = measure(items(9))
    xr.testing.assert_identical(measure(items(9), tmp_path / "run"), wanted)
    assert sorted(path.name for path in (tmp_path / "run").glob("rows-*.safetensors")) == [
        "rows-000000.safetensors",
        "rows-000001.safetensors",
        "rows-000002.safetensors",
    ]


@pytest.mark.parametrize("at", [0, 3, 4, 8])
def test_a_run_that_broke_off_goes_on_and_gives_the_same_result(tmp_path, at):
    wanted = measure(items(9))
    with pytest.raises(vl.errors.DatasetError, match="gone"):
        measure(Stops(items(9), at), tmp_path)
    again = Stops(items(9), None)
    xr.testing.assert_identical(measure(again, tmp_path), wanted)
    assert again.loaded[8:] == list(range(at // 4 * 4, 9))  # nothing that was kept is measured again


def test_a_complete_run_is_read_back(tmp_path):
    wanted = measure(items(6), tmp_path)
    dataset = Stops(items(6), None)
    xr.testing.assert_identical(measure(dataset, tmp_path), wanted)
    assert dataset.loaded == list(range(6))  # a look at a few, by which the data set is known again


def test_other_pixels_or_labels_under_the_same_ids_are_refused(tmp_path):
    measure(items(4), tmp_path)
    for change, name in (
        (lambda item: {"pixels": item["pixels"] / 2}, "pixels_sha256.0"),
        (lambda item: {"label": 1 - min(item["label"], 1)}, "labels_sha256"),
    ):
        with pytest.raises(vl.errors.AnalysisError, match=f"its images.{name}: "):
            measure([item | change(item) for item in items(4)], tmp_path)


def test_the_same_weights_under_another_normalization_are_another_run(tmp_path):
    options = {"analyses": [vl.Prediction()], "output": tmp_path, "progress": False}
    vl.run(model(0), items(4), **options)
    other = vl.HookedViT(model(0).model, data_config=model(0).data_config | {"mean": (0.1, 0.2, 0.3)})
    with pytest.raises(vl.errors.AnalysisError, match=r"its normalization\.model\.mean: "):
        vl.run(other, items(4), **options)


def test_a_data_set_that_says_less_of_itself_is_compared_as_far_as_it_does(tmp_path):
    wanted = measure(items(6), tmp_path)
    xr.testing.assert_identical(measure(iter(items(6)), tmp_path), wanted)


def test_a_generator_goes_on_too(tmp_path):
    def broken():
        yield from items(5)
        raise OSError("gone")

    with pytest.raises(vl.errors.DatasetError, match="gone"):
        measure(broken(), tmp_path)
    xr.testing.assert_identical(measure(iter(items(9)), tmp_path), measure(items(9)))


SCRIPT = """
import sys, time
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
from small import items
from tests.running.test_store import measure

class Slow(list):
    def __getitem__(self, index):
        time.sleep(0.02)
        return super().__getitem__(index)

measure(Slow(items(120)), sys.argv[1])
"""


def test_a_killed_run_goes_on(tmp_path):
    root = Path(__file__).parents[2]
    script = SCRIPT.format(root=str(root))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    output = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(output)], env=environment, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while len(list(output.glob("rows-*.json"))) < 3:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = len(list(output.glob("rows-*.json")))
    assert 3 <= left < 30
    xr.testing.assert_identical(measure(items(120), output), measure(items(120)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "its seed is 0, now 1"),
        ({"conditions": ["clean"]}, "its conditions is"),
        ({"batch_size": 4}, "its batch_size is 2, now 4"),
        ({"analyses": [vl.Prediction()]}, "its analyses is"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(tmp_path, change, message):
    measure(items(4), tmp_path)
    with pytest.raises(vl.errors.AnalysisError, match=rf"holds another run: {message}.*Name another folder"):
        measure(items(4), tmp_path, **change)


def test_other_images_in_the_same_folder_are_refused(tmp_path):
    measure(items(4), tmp_path)
    other = [item | {"image_id": f"image {i + i // 2}"} for i, item in enumerate(items(4))]
    with pytest.raises(vl.errors.AnalysisError, match=r"its images\.image_ids_sha256: "):
        measure(other, tmp_path)


def test_a_damaged_shard_is_named_and_measured_again_once_it_is_deleted(tmp_path):
    wanted = measure(items(9), tmp_path)
    shard = tmp_path / "rows-000001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(
        vl.errors.CheckpointError, match=r"rows-000001.safetensors cannot be read: its checksum"
    ):
        measure(items(9), tmp_path)
    shard.unlink()
    with pytest.raises(vl.errors.CheckpointError, match=r"rows-000001.safetensors cannot be read"):
        measure(items(9), tmp_path)
    shard.with_suffix(".json").unlink()
    dataset = Stops(items(9), None)
    # Its images' sums are there already: they must not be counted twice.
    xr.testing.assert_identical(measure(dataset, tmp_path), wanted)
    assert dataset.loaded[8:] == [4, 5, 6, 7]


def test_rows_whose_sums_were_not_yet_written_are_measured_again(tmp_path):
    wanted = measure(items(9), tmp_path)
    (tmp_path / "sums-0.safetensors").unlink()
    xr.testing.assert_identical(measure(items(9), tmp_path), wanted)


def test_a_folder_with_rows_and_no_manifest_is_refused(tmp_path):
    measure(items(4), tmp_path)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(vl.errors.CheckpointError, match=r"has rows and no manifest.json"):
        measure(items(4), tmp_path)


def test_the_manifest_says_what_is_measured(tmp_path):
    measure(items(4), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["format"] == "vitlens.rows.1"
    assert manifest["conditions"] == ["clean", "gaussian_noise@3 (0.18,)"]
    assert manifest["analyses"][0] == "Prediction()"
    assert manifest["checkpoints"]["a"] == vl.weights_sha256(model(0))
