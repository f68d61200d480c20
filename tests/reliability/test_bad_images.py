"""Images that cannot be read, among others that can: left out, counted and named, or a reason to stop."""

import json
import pickle
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import xarray as xr
from PIL import Image
from two_processes import start_two

import vitlens as vl
from vitlens.cli import main
from vitlens.errors import DatasetError, LabelError, PixelError
from vitlens.images import batches, measure_frequency, numbered_batches
from vitlens.testing import randomize
from vitlens.training.evaluating import read_evaluations

PLACE = "blocks.1.hook_resid_post"
CONDITIONS = ["clean", "gaussian_noise@3"]


def model(seed=0):
    made = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=10
    )
    return vl.HookedViT(randomize(made, seed=seed))


def items(n):
    generator = torch.Generator().manual_seed(3)
    return [
        {"pixels": torch.rand(3, 32, 32, generator=generator), "label": i % 10, "image_id": f"image {i}"}
        for i in range(n)
    ]


class Damaged(torch.utils.data.Dataset):
    """Images of which some cannot be read, and which may not know their ids beforehand."""

    def __init__(self, given, bad, knows=True):
        self.given, self.bad = given, set(bad)
        if knows:
            self.image_ids = [item["image_id"] for item in given]

    def __len__(self):
        return len(self.given)

    def __getitem__(self, index):
        if index in self.bad:
            raise OSError(f"disk on fire at {index}")
        return self.given[index]


def but(given, bad):
    return [item for place, item in enumerate(given) if place not in bad]


def measured(dataset, output=None, **keywords):
    """Two checkpoints in step, with rows, pairs and a set statistic."""
    settings = {"batch_size": 4, "shard_images": 4, "conditions": CONDITIONS, "progress": False} | keywords
    models = {"base": model(0), "tuned": model(1)}
    analyses = [vl.Prediction(), vl.Representation(tokens="patch"), vl.CKA(tokens="patch")]
    return vl.run(models, dataset, analyses, output=output, **settings)


def close(data, wanted):
    """The same rows; batches are of other sizes, so that products are rounded differently."""
    assert data["image"].values.tolist() == wanted["image"].values.tolist()
    xr.testing.assert_allclose(data.drop_attrs(), wanted.drop_attrs(), rtol=1e-4, atol=1e-5)


WARNED = r"could not be read and (is|are) left out: .*on_bad_image='raise' stops at the first\."


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("bad", [[4], [0, 1, 2], [2, 9], [6, 7, 8]])
def test_batches_keep_their_borders_and_lack_what_could_not_be_read(bad, num_workers):
    given = items(10)
    whole = list(numbered_batches(given, 3))
    found = list(numbered_batches(Damaged(given, bad), 3, num_workers=num_workers, n_read=20))
    assert [each.number for each in found] == [0, 1, 2, 3]
    for before, after in zip(whole, found, strict=True):
        left = [image_id for image_id in before.batch.image_ids if int(image_id.split()[1]) not in bad]
        assert ([] if after.batch is None else list(after.batch.image_ids)) == left
        assert list(after.bad_images) == [each for each in before.batch.image_ids if each not in left]
    told = {name: why for each in found for name, why in each.bad_images.items()}
    assert list(told) == [f"image {place}" for place in bad]
    assert told[f"image {bad[0]}"] == (
        f"Item {bad[0]} of the data set cannot be loaded (OSError: disk on fire at {bad[0]})."
    )


def test_a_pass_warns_at_its_end_and_names_the_first_few():
    reader = batches(Damaged(items(60), [9, 20, 31, 42]), 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(7):
            next(reader)
    said = (
        r"^4 of 60 images could not be read and are left out: 'image 9', 'image 20', 'image 31' and 1 more\. "
        r"The first: Item 9 of the data set cannot be loaded \(OSError: disk on fire at 9\)\. "
        r"on_bad_image='raise' stops at the first\.$"
    )
    with pytest.warns(UserWarning, match=said):
        assert len(list(reader)) == 1


def test_where_ids_are_not_known_the_position_names_an_image():
    found = list(numbered_batches(Damaged(items(10), [3], knows=False), 10))
    assert list(found[0].bad_images) == ["3"]


def test_of_a_part_of_a_data_set_the_ids_are_the_whole_ones():
    part = torch.utils.data.Subset(Damaged(items(12), [5]), [2, 4, 5, 8, 1, 0, 3, 6, 7])
    assert list(next(numbered_batches(part, 9)).bad_images) == ["image 5"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_malformed_item_stops_whatever_becomes_of_bad_ones(num_workers):
    given = items(10)
    for wrong, error, said in (
        ({"label": "cat"}, LabelError, "'cat'"),
        ({"pixels": torch.full((3, 32, 32), 2.0)}, PixelError, "go from 2 to 2"),
        ({"pixels": torch.full((3, 32, 32), torch.nan)}, PixelError, "hold NaN"),
        ({"image_id": 3}, DatasetError, "image id of item 8"),
    ):
        there = [*given[:8], {**given[8], **wrong}, given[9]]
        with pytest.raises(error, match=said):
            list(batches(Damaged(there, [1], knows=False), 5, n_classes=10, num_workers=num_workers))


def test_an_iterable_always_stops_as_it_may_have_ended():
    def failing():
        yield from items(9)
        raise OSError("cut off")

    with pytest.raises(DatasetError, match=r"Item 9 of the data set cannot be loaded \(OSError: cut off\)"):
        list(batches(failing(), 4))


@pytest.mark.parametrize("batch_size", [1, 4, 8, 20])
def test_where_none_of_the_first_images_can_be_read_it_stops(batch_size):
    n_first = max(8, batch_size)
    said = (
        rf"^None of the first {n_first} images can be read; here the first is 'image 0': Item 0 of the data "
        r"set cannot be loaded \(OSError: disk on fire at 0\)\. Expected: at most 10% of them: .*\. Look for"
    )
    with pytest.raises(DatasetError, match=said):
        list(batches(Damaged(items(40), range(40)), batch_size))


def test_a_bad_image_in_front_does_not_stop_small_batches():
    with pytest.warns(UserWarning, match=WARNED):
        assert sum(map(len, batches(Damaged(items(20), [0, 1]), 1))) == 18


def test_a_small_data_set_of_which_none_can_be_read_stops():
    with pytest.raises(DatasetError, match=r"^None of the first 3 images can be read"):
        list(batches(Damaged(items(3), range(3)), 2))


@pytest.mark.parametrize(("n_bad", "stops"), [(5, False), (6, True)])
def test_more_than_a_tenth_of_fifty_stops(n_bad, stops):
    dataset = Damaged(items(50), range(10, 10 + n_bad))
    if stops:
        with pytest.raises(
            DatasetError, match=r"^6 of the first 50 images cannot be read; here the first is 'image 10':"
        ):
            list(batches(dataset, 5))
    else:
        with pytest.warns(UserWarning, match="^5 of 50 images"):
            list(batches(dataset, 5))


def test_fewer_than_fifty_images_say_nothing_of_a_share():
    with pytest.warns(UserWarning, match="^20 of 49 images"):
        list(batches(Damaged(items(49), range(20, 40)), 10))


def test_a_choice_that_is_none_is_refused_before_anything_is_read():
    for call in (
        lambda how: batches(items(1), on_bad_image=how),
        lambda how: vl.run(model(), items(1), [vl.Prediction()], on_bad_image=how, progress=False),
        lambda how: vl.activations(model(), items(1), PLACE, on_bad_image=how, progress=False),
    ):
        with pytest.raises(Exception, match="ignore"):
            call("ignore")


def test_whatever_reads_through_the_same_room_leaves_them_out():
    given, bad = items(20), [4, 13]
    with pytest.warns(UserWarning, match=WARNED):
        found = measure_frequency(Damaged(given, bad), ["contrast@3"], progress=False)
    pd.testing.assert_frame_equal(found, measure_frequency(but(given, bad), ["contrast@3"], progress=False))


# ---------------------------------------------------------------------- run


@pytest.mark.parametrize("bad", [[1], [3, 4], [4, 5, 6, 7], [10]])
def test_a_run_leaves_them_out_for_every_checkpoint_and_condition(bad, tmp_path):
    given = items(11)
    with pytest.warns(UserWarning, match=f"^{len(bad)} of 11 images {WARNED}"):
        data = measured(Damaged(given, bad))
    assert list(data.attrs["bad_images"]) == [f"image {place}" for place in bad]
    assert json.loads(json.dumps(data.attrs["bad_images"])) == data.attrs["bad_images"]
    close(data, measured(but(given, bad)))
    with pytest.warns(UserWarning, match=WARNED):
        xr.testing.assert_identical(measured(Damaged(given, bad), tmp_path), data)


def test_a_run_without_any_says_nothing_of_them():
    assert "bad_images" not in measured(items(5)).attrs


@pytest.mark.parametrize("at", [2, 5, 9, 11])
def test_a_run_that_was_killed_reports_those_of_before_too(tmp_path, at):
    """Parts of four: one has a bad image, one consists of nothing else, and the kill comes anywhere."""
    given, bad = items(13), [1, 4, 5, 6, 7, 12]

    class Killed(Damaged):
        def __getitem__(self, index):
            if index == at and self.dies:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    dataset = Killed(given, bad)
    dataset.dies = False
    with pytest.warns(UserWarning, match="^6 of 13 images"):
        wanted = measured(dataset)
    original = vl.running.engine.fingerprint
    try:
        # The look at a few images beforehand is not to be what is killed.
        vl.running.engine.fingerprint = lambda whole: original(whole, pixels=False)
        dataset.dies = True
        with pytest.raises(KeyboardInterrupt):
            measured(dataset, tmp_path)
        dataset.dies = False
        with pytest.warns(UserWarning, match="^6 of 13 images"):
            xr.testing.assert_identical(measured(dataset, tmp_path), wanted)
    finally:
        vl.running.engine.fingerprint = original
    assert len(list(tmp_path.glob("rows-*.json"))) == 4


def test_raise_stops_at_the_first_and_goes_on_once_the_file_is_mended(tmp_path):
    given = items(11)
    wanted = measured(given)
    with pytest.raises(DatasetError, match=r"^Item 6 of the data set cannot be loaded \(OSError: disk on"):
        measured(Damaged(given, [6, 9]), tmp_path, on_bad_image="raise")
    assert [path.name for path in tmp_path.glob("rows-*.json")] == ["rows-000000.json"]
    mended = measured(Damaged(given, []), tmp_path, on_bad_image="raise")
    xr.testing.assert_identical(mended, wanted)


def test_raise_does_not_take_rows_that_lack_images(tmp_path):
    with pytest.warns(UserWarning, match=WARNED):
        measured(Damaged(items(9), [2]), tmp_path)
    said = rf"^What {re.escape(str(tmp_path))} holds was made without 1 images .*'image 2'\. .*another folder"
    with pytest.raises(DatasetError, match=said):
        measured(items(9), tmp_path, on_bad_image="raise")


def test_a_fault_of_all_is_counted_across_a_resumed_run(tmp_path):
    given = items(60)
    with pytest.raises(DatasetError, match=r"^7 of the first 60 images cannot be read"):
        measured(Damaged(given, [3, 8, 20, 30, 40, 56, 57]), tmp_path, conditions=["clean"])
    with pytest.raises(DatasetError, match=r"^7 of the first 60 images cannot be read"):
        measured(Damaged(given, [56, 57]), tmp_path, conditions=["clean"])


def test_a_named_image_that_cannot_be_read_is_left_out_of_the_named_ones():
    analysis = vl.AttentionMap(image_ids=("image 1", "image 3"))
    with pytest.warns(UserWarning, match=WARNED):
        data = vl.run(model(), Damaged(items(6), [3]), [analysis, vl.Prediction()], progress=False)
    assert data["named_image"].values.tolist() == ["image 1"]
    assert data.sizes["image"] == 5


# ---------------------------------------------------------------------- activations and SAEs


def test_activations_have_no_rows_of_them():
    given, bad = items(9), [0, 7]
    with pytest.warns(UserWarning, match="^2 of 9 images"):
        rows = vl.activations(model(), Damaged(given, bad), PLACE, progress=False)
    torch.testing.assert_close(rows, vl.activations(model(), but(given, bad), PLACE, progress=False))
    with pytest.raises(DatasetError, match=r"^Item 0 of"):
        vl.activations(model(), Damaged(given, bad), PLACE, on_bad_image="raise", progress=False)


def stored(path, dataset, **keywords):
    settings = {"batch_size": 2, "shard_images": 4, "conditions": CONDITIONS, "progress": False} | keywords
    models = {"base": model(0), "tuned": model(1)}
    return vl.saes.ActivationStore.write(path, models, dataset, hook_names=[PLACE], **settings)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


BAD = [0, 4, 5, 6, 7, 13]  # one alone, a whole shard, and one of the last


def test_a_store_keeps_the_others_and_says_which_it_lacks(tmp_path):
    given = items(14)
    with pytest.warns(UserWarning, match=r"^6 of 14 images"):
        store = stored(tmp_path / "a", Damaged(given, BAD))
    wanted = stored(tmp_path / "b", but(given, BAD))
    assert list(store.bad_images) == [f"image {place}" for place in BAD]
    assert wanted.bad_images == {}
    assert (store.n_images, store.image_ids) == (8, wanted.image_ids)
    for checkpoint in ("base", "tuned"):
        one, other = (each.tokens(PLACE, checkpoint=checkpoint) for each in (store, wanted))
        torch.testing.assert_close(
            torch.cat(list(one.in_order(16))), torch.cat(list(other.in_order(16))), rtol=1e-4, atol=1e-5
        )
    assert sum(len(batch) for batch in store.batches(PLACE, 16)) == 8 * 2 * 16
    opened = vl.saes.ActivationStore.open(tmp_path / "a", check=True)
    assert opened.bad_images == store.bad_images


@pytest.mark.parametrize("at", [3, 7, 9, 12])
def test_a_store_that_was_killed_ends_with_the_same_bytes(tmp_path, at):
    given = items(14)
    with pytest.warns(UserWarning, match=WARNED):
        stored(tmp_path / "whole", Damaged(given, BAD))

    class Killed(Damaged):
        def __getitem__(self, index):
            if index == at:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path / "killed", Killed(given, BAD))
    for _ in range(2):  # gone on with, and read back
        with pytest.warns(UserWarning, match=r"^6 of 14 images"):
            stored(tmp_path / "killed", Damaged(given, BAD))
        assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_store_that_lacks_images_is_not_what_raise_asks_for(tmp_path):
    given = items(14)
    with pytest.warns(UserWarning, match=WARNED):
        stored(tmp_path, Damaged(given, BAD))
    with pytest.raises(DatasetError, match=r"was made without 6 images .* such as 'image 0'"):
        stored(tmp_path, given, on_bad_image="raise")


def test_saes_are_trained_evaluated_and_shown_without_them(tmp_path):
    given, bad = items(30), [2, 17]
    vit, dataset = model(), Damaged(given, bad)
    settings = {"d_sae": 16, "k_per_token": 2, "batch_size": 16, "n_tokens": 160, "progress": False}
    with pytest.warns(UserWarning, match=WARNED):
        sae = vl.saes.train((vit, dataset, PLACE), **settings)
    with pytest.warns(UserWarning, match=WARNED):
        evaluation = vl.saes.evaluate(sae, vit, dataset, n_resamples=100, progress=False)
    assert list(evaluation.rows.attrs["bad_images"]) == ["image 2", "image 17"]
    assert set(evaluation.summary()["n"]) == {28}
    with pytest.warns(UserWarning, match=WARNED):
        shown = vl.saes.gallery(sae, vit, dataset, features=[0, 1], progress=False)
    assert shown.n_images == 28
    for call in (
        lambda: vl.saes.evaluate(sae, vit, dataset, on_bad_image="raise", progress=False),
        lambda: vl.saes.gallery(sae, vit, dataset, features=[0], on_bad_image="raise", progress=False),
    ):
        with pytest.raises(DatasetError, match=r"^Item 2 of"):
            call()


# ---------------------------------------------------------------------- compare


def compared(dataset, **keywords):
    settings = {"conditions": ["clean"], "batch_size": 4, "n_examples": 3, "progress": False} | keywords
    return vl.compare({"base": model(0), "tuned": model(1)}, dataset, **settings)


def test_a_comparison_says_what_it_lacks_in_rows_provenance_report_and_file(tmp_path):
    given = items(12)
    given[5]["image_id"] = "<script>alert(1)</script>.png"
    with pytest.warns(UserWarning, match=WARNED):
        comparison = compared(Damaged(given, [0, 5, 11]), output=tmp_path / "kept")
    names = ["image 0", "<script>alert(1)</script>.png", "image 11"]
    assert list(comparison.data.attrs["bad_images"]) == names
    assert comparison.provenance["images"]["bad_images"] == comparison.data.attrs["bad_images"]
    assert comparison.provenance["images"]["n"] == 9
    # Examples are spread over what could be read.
    assert comparison.examples["image"].values.tolist() == ["image 1", "image 6", "image 10"]
    page = comparison.report(tmp_path / "report.html").read_text(encoding="utf-8")
    head = page.partition("<h2")[0]
    assert "<dt>Left out</dt><dd>3 of 12 images could not be read and are left out: " in head
    assert "<script>alert(1)" not in page
    again = vl.Comparison.load(tmp_path / "kept")
    assert again.data.attrs == comparison.data.attrs
    with pytest.warns(UserWarning, match=WARNED):
        assert compared(Damaged(given, [0, 5, 11]), output=tmp_path / "kept").data.attrs == again.data.attrs
    with pytest.raises(DatasetError, match=r"was made without 3 images"):
        compared(Damaged(given, []), output=tmp_path / "kept", on_bad_image="raise")


def test_a_comparison_that_stops_at_the_first_goes_on_once_it_is_mended(tmp_path):
    given = items(6)
    with pytest.raises(DatasetError, match=r"^Item 4 of"):
        compared(Damaged(given, [4]), output=tmp_path, on_bad_image="raise")
    made = compared(Damaged(given, []), output=tmp_path, on_bad_image="raise")
    xr.testing.assert_identical(made.data, compared(given).data)


def test_features_are_matched_and_shown_on_what_was_measured():
    given, bad = items(24), [0, 9]
    models = {"base": model(0), "tuned": model(1)}
    settings = {"d_sae": 16, "k_per_token": 2, "batch_size": 16, "n_tokens": 160, "progress": False}
    saes = {
        name: [vl.saes.train((vit, given, PLACE), seed=seed, **settings)]
        for seed, (name, vit) in enumerate(models.items())
    }
    with pytest.warns(UserWarning, match="could not be read") as caught:
        found = compared(Damaged(given, bad), saes=saes, n_gallery_features=1, n_examples=0)
    # They are known when the features are read: said once, by the run.
    assert sum("could not be read" in str(each.message) for each in caught) == 1
    wanted = compared(but(given, bad), saes=saes, n_gallery_features=1, n_examples=0)
    assert found.features["nearest"].tolist() == wanted.features["nearest"].tolist()
    assert {shown.n_images for shown in found.galleries.values()} == {22}


# ---------------------------------------------------------------------- the command line


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Two checkpoints and a folder of sixteen images of which the first is no image."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("base", "tuned")):
        vit = timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=2
        )
        vl.save(vl.HookedViT(randomize(vit, seed=seed)), f"{name}.safetensors")
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for place in range(8):
            Image.new("RGB", (32, 32), (place * 30, 90, 200)).save(tmp_path / "data" / name / f"{place}.png")
    (tmp_path / "data" / "a" / "0.png").write_text("no image")
    return tmp_path


COMMANDS = {
    "compare": "compare base.safetensors tuned.safetensors --data data --margin top1_accuracy=0.1 "
    "--analyses prediction --n-examples 1 --output report.html",
    "evaluate": "evaluate base.safetensors --data data --output table.csv",
    "train-sae": "train-sae base.safetensors --data data --hook blocks.1.hook_resid_post --d-sae 8 "
    "--k-per-token 2 --n-tokens 64 --batch-size 16 --n-holdout-tokens 32 --output sae",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_leaves_a_bad_file_out_or_names_it(name, workplace, capsys):
    line = [*COMMANDS[name].split(), "--no-progress"]
    assert main([*line, "--on-bad-image", "raise"]) == 1
    assert "0.png cannot be read as an image" in capsys.readouterr().err
    with pytest.warns(UserWarning, match=r"^1 of 16 images could not be read and is left out: 'a/0\.png'"):
        assert main(line) == 0
    if name == "compare":
        assert "<dt>Left out</dt><dd>1 of 16 images" in (workplace / "report.html").read_text()
    elif name == "evaluate":
        assert set(pd.read_csv("table.csv")["n"]) == {15}
    else:
        images = json.loads((workplace / "sae" / "evaluation.json").read_text())["images"]
        assert list(images["bad_images"]) == ["a/0.png"]


# ---------------------------------------------------------------------- fine-tuning


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_ends_a_fine_tuning_which_goes_on_once_it_is_mended(num_workers, tmp_path):
    given = items(8)
    config = vl.training.FinetuneConfig(p_clean=1, steps=4, batch_size=4, checkpoint_every_steps=1)

    def tuned(dataset, output):
        return vl.training.finetune(
            model(), dataset, config, output=output, num_workers=num_workers, progress=False
        )

    said = (
        r"^Image 'image 5', of step \d, cannot be loaded: OSError: disk on fire at 5\. Expected: images that "
        r"can all be read.* Mend it and start again"
    )
    with pytest.raises(DatasetError, match=said):
        tuned(Damaged(given, [5]), tmp_path / "mended")
    mended = tuned(Damaged(given, []), tmp_path / "mended").model.model.state_dict()
    wanted = tuned(Damaged(given, []), tmp_path / "whole").model.model.state_dict()
    assert all(torch.equal(mended[name], wanted[name]) for name in wanted)
    if num_workers:
        given[5]["label"] = 77
        with pytest.raises(LabelError, match="The label of image 'image 5' is 77"):
            tuned(Damaged(given, [], knows=False), None)


def test_evaluations_without_a_bad_image_are_read_back(tmp_path):
    config = vl.training.FinetuneConfig(p_clean=1, steps=2, batch_size=4, evaluate_every_steps=1)
    with pytest.warns(UserWarning, match="^1 of 8 images could not be read"):
        vl.training.finetune(
            model(), items(8), config, tmp_path, evaluate_on=Damaged(items(8), [5]), progress=False
        )
    rows = read_evaluations(tmp_path)
    assert rows["step"].values.tolist() == [0, 1, 2]
    assert "image 5" not in rows["image"].values.tolist()
    assert list(rows.attrs["bad_images"]) == ["image 5"]


# ---------------------------------------------------------------------- several processes

TWO = """
import os, pickle, sys, warnings
from pathlib import Path
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
from tests.reliability.test_bad_images import Damaged, items, measured
warnings.simplefilter("ignore")
rank, folder = int(os.environ["RANK"]), Path(sys.argv[1])
for name, output in (("memory", None), ("stored", folder / "stored")):
    data = measured(Damaged(items(19), [1, 4, 5, 6, 7, 18]), output)
    (folder / f"{{name}} {{rank}}.pickle").write_bytes(pickle.dumps(data))
"""


def test_two_processes_leave_out_what_one_does(tmp_path):
    started = start_two(TWO.format(root=str(Path(__file__).parents[2])), tmp_path)
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    with pytest.warns(UserWarning, match="^6 of 19 images"):
        wanted = measured(Damaged(items(19), [1, 4, 5, 6, 7, 18]))
    for name in ("memory 0", "memory 1", "stored 0", "stored 1"):
        data = pickle.loads((tmp_path / f"{name}.pickle").read_bytes())
        assert data.attrs == wanted.attrs
        # Sums are added in another order.
        xr.testing.assert_identical(data.drop_vars("cka"), wanted.drop_vars("cka"))
