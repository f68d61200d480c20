"""The same measurement gives the same numbers, whatever the threads, batches, workers and processes."""

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import items, model

import vitlens as vl

from .agreement import REFERENCE, largest_differences, measured

# What docs/reliability.md states, for DeiT-tiny: probabilities, entropies, distances and attributions.
TOLERANCE = {
    "probabilities": 1e-4,
    "entropies (nats)": 1e-4,
    "distances (patches)": 1e-4,
    "attributions (logits)": 1e-4,
}
CONDITIONS = ["clean", "gaussian_noise@3", "jpeg@3"]


@pytest.fixture(scope="module")
def reference():
    return measured(model(), items(33), **REFERENCE, conditions=CONDITIONS)


@pytest.mark.parametrize(
    "changed",
    [{}, {"num_workers": 2}, {"deterministic": True}],
    ids=["the same again", "two workers", "deterministic algorithms"],
)
def test_repeats_workers_and_deterministic_algorithms_give_the_same_bytes(reference, changed):
    again = measured(model(), items(33), **{**REFERENCE, **changed}, conditions=CONDITIONS)
    assert again.identical(reference)
    assert all(again[name].values.tobytes() == reference[name].values.tobytes() for name in again)


@pytest.mark.parametrize(
    "changed",
    [{"threads": 2}, {"batch_size": 1}, {"batch_size": 7}, {"threads": 2, "batch_size": 7, "num_workers": 2}],
    ids=["two threads", "batches of 1", "batches of 7", "all of it"],
)
def test_threads_and_batches_agree_to_the_stated_tolerance(reference, changed):
    data = measured(model(), items(33), **{**REFERENCE, **changed}, conditions=CONDITIONS)
    found = largest_differences(data, reference)
    assert found.pop("ranks and classes") == 0
    assert all(found[group] <= TOLERANCE[group] for group in TOLERANCE), found


def undated(comparison):
    return dataclasses.replace(comparison, provenance={**comparison.provenance, "date": "today"})


def compared(**settings):
    """A small comparison with every part that a file or a report may have."""
    both = {"base": model(0), "tuned": model(1)}
    source = items(40)
    trained = {
        name: [
            vl.saes.train(
                (made, source, "blocks.0.hook_resid_post"),
                d_sae=16,
                k_per_token=2,
                batch_size=32,
                n_tokens=640,
                seed=seed,
                progress=False,
            )
            for seed in range(2)
        ]
        for name, made in both.items()
    }
    comparison = vl.compare(
        both,
        items(16),
        conditions=["clean", "gaussian_noise@3", "contrast@3"],
        saes=trained,
        n_gallery_features=1,
        seed=1,
        progress=False,
        **settings,
    )
    return comparison.with_transfer(seen=["contrast@3"], unseen=["gaussian_noise@3"], n_resamples=100)


def digests(comparison, folder):
    """SHA-256 of the saved file and of the report, the date apart."""
    folder = Path(folder)
    made = undated(comparison)
    made.save(folder / "comparison.safetensors")
    made.report(folder / "report.html", summary=made.summary(n_resamples=100))
    return [
        hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("comparison.safetensors", "report.html")
    ]


PROGRAM = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from reliability.test_agreement import compared, digests
print(*digests(compared(), sys.argv[1]))
"""


def test_a_comparison_made_again_has_the_same_file_and_report_but_for_the_date(tmp_path):
    """Here, and in two processes whose hashes of strings are salted differently."""
    processes = []
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(tmp_path / seed)],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    said = [process.communicate(timeout=300)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said[0] == said[1]
    assert len(said[0]) == 2


def test_only_the_date_of_two_comparisons_differs(tmp_path):
    one, other = (
        vl.compare({"a": model(0), "b": model(1)}, items(8), n_examples=1, progress=False) for _ in range(2)
    )
    assert (
        undated(one).save(tmp_path / "one").read_bytes()
        == undated(other).save(tmp_path / "other").read_bytes()
    )
    provenance = {name: value for name, value in one.provenance.items() if name != "date"}
    assert provenance == {name: value for name, value in other.provenance.items() if name != "date"}
    assert np.array_equal(one.data["rank"], other.data["rank"])


def test_a_saved_model_is_the_same_file_every_time(tmp_path):
    paths = [vl.save(model(), tmp_path / f"{n}.safetensors") for n in range(8)]
    assert len({path.read_bytes() for path in paths}) == 1
    loaded = vl.load(paths[-1]).model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model().model.state_dict().items())


def test_settings_of_torch_are_left_alone():
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    vl.run(model(), items(2), [vl.Prediction()], progress=False)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
