"""The study's protocol: four fine-tunes of one base, and the table of what each did."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import vitlens as vl

EXAMPLES = Path(__file__).parents[2] / "examples"
CONDITIONS = ["gaussian_blur@3", "defocus_blur@2", "gaussian_noise@4", "contrast@2", "fog@1"]
LINE = [
    "--quick", "--steps", "2", "--batch-size", "8", "--n-images", "10", "--removes", "gaussian_blur@1-5",
    "--adds", "gaussian_noise@1-5", "shot_noise@1-5", "--margin", "0.5", "--output", "study",
]  # fmt: skip


@pytest.fixture(scope="module")
def examples():
    """The protocol and its table."""
    sys.path.insert(0, str(EXAMPLES))
    import study_protocol
    import study_table

    yield study_protocol, study_table
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def study(examples, tmp_path_factory):
    """A folder in which the protocol has run."""
    folder = tmp_path_factory.mktemp("protocol")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        examples[0].main([*LINE, "--conditions", *CONDITIONS])
    return folder / "study"


def test_the_four_differ_in_what_corrupts_their_images_and_in_nothing_else(study):
    recipes = {
        name: json.loads((study / name / "config.json").read_text())
        for name in ("control", "removes", "adds", "both")
    }
    mixes = {
        name: (run["config"].pop("conditions"), run["config"].pop("p_clean")) for name, run in recipes.items()
    }
    assert mixes == {
        "control": ([], 1.0),
        "removes": (["gaussian_blur@1-5"], 0.5),
        "adds": (["gaussian_noise@1-5", "shot_noise@1-5"], 0.5),
        "both": (["gaussian_blur@1-5", "gaussian_noise@1-5", "shot_noise@1-5"], 0.5),
    }
    assert all(run == recipes["control"] for run in recipes.values())
    assert recipes["control"]["start"] == vl.weights_sha256(vl.load(study / "base" / "model.safetensors"))


def test_the_table_has_every_group_of_every_checkpoint_and_what_was_seen(study):
    table = pd.read_csv(study / "table.csv")
    assert set(table["metric"]) == {"accuracy", "correct_probability"}
    seen = table[table["metric"] == "accuracy"].pivot(index="checkpoint", columns="condition", values="seen")
    assert seen.loc["base"].to_dict() == seen.loc["control"].to_dict()
    assert seen.loc["control"].to_dict() == {
        "clean": "clean", "removes": "unseen", "removes_family": "unseen", "adds": "unseen",
        "unseen": "unseen",
    }  # fmt: skip
    assert seen.loc["removes", ["removes", "removes_family", "adds"]].tolist() == ["seen", "family", "unseen"]
    assert seen.loc["adds", ["removes", "removes_family", "adds"]].tolist() == ["unseen", "unseen", "seen"]
    assert seen.loc["both", ["removes", "removes_family", "adds"]].tolist() == ["seen", "family", "seen"]
    assert table[table["checkpoint"] == "control"]["difference_from_control"].isna().all()
    assert table[table["checkpoint"] != "control"]["verdict"].notna().all()
    assert (table["n_images"] == 10).all()


def test_the_tables_values_are_those_of_the_models_on_disk(study):
    table = pd.read_csv(study / "table.csv").set_index(["metric", "condition", "checkpoint"])
    test = vl.images.digits("test")
    images = [test[round(index * 499 / 9)] for index in range(10)]
    found = {
        name: vl.run(
            vl.load(study / name / "model.safetensors"), images, [vl.Prediction()],
            conditions=["contrast@2", "fog@1"], progress=False,
        )
        for name in ("control", "both")
    }  # fmt: skip
    probability = {name: data["correct_probability"].mean("condition").values for name, data in found.items()}
    row = table.loc[("correct_probability", "unseen", "both")]
    assert row["n_conditions"] == 2
    assert row["value"] == pytest.approx(probability["both"].mean(), rel=1e-5)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    difference = (probability["both"] - probability["control"]).mean()
    assert row["difference_from_control"] == pytest.approx(difference, abs=1e-6)
    accuracy = table.loc[("accuracy", "unseen", "control"), "value"]
    assert accuracy == pytest.approx(float((found["control"]["rank"] == 0).mean()))


def test_a_second_call_trains_nothing_and_may_measure_under_other_conditions(examples, study, monkeypatch):
    models = {path: path.stat().st_mtime_ns for path in study.glob("*/model.safetensors")}
    assert len(models) == 5
    monkeypatch.chdir(study.parent)
    # The page has been written once, which takes as long as all the rest.
    monkeypatch.setattr(vl.Comparison, "report", lambda self, path, **settings: path)
    examples[0].main([*LINE, "--conditions", "gaussian_blur@3"])
    assert {path: path.stat().st_mtime_ns for path in models} == models
    table = pd.read_csv(study / "table.csv")
    assert table["condition"].unique().tolist() == ["clean", "removes"]
    assert (study / "report.html").stat().st_size > 1_000_000
    assert (study / "summary.csv").exists()


def test_another_recipe_in_the_same_folder_is_refused(examples, study, monkeypatch):
    monkeypatch.chdir(study.parent)
    with pytest.raises(vl.errors.TrainingError, match="learning_rate"):
        examples[0].main([*LINE, "--learning-rate", "1e-3"])


# ------------------------------------------------------------------ the split and the table by themselves


def test_conditions_are_split_by_family(examples):
    removes = examples[0].family("removes_high_frequency", "blur")
    adds = examples[0].family("adds_high_frequency", "noise")
    every = [f"{name}@3" for name, spec in vl.CORRUPTIONS.items() if spec.is_ready]
    groups = examples[1].split(every, {"removes": removes, "adds": adds})
    assert groups["clean"] == ["clean"]
    for name, family in (("removes", "blur"), ("adds", "noise")):
        assert {vl.CORRUPTIONS[each.split("@")[0]].family for each in groups[name]} == {family}
    unseen = {vl.CORRUPTIONS[each.split("@")[0]].family for each in groups["unseen"]}
    assert not unseen & {"blur", "noise"}
    assert sorted(each for members in groups.values() for each in members) == sorted(["clean", *every])


def test_a_band_of_frequencies_is_a_family_of_its_own(examples):
    recipes = {"removes": ["gaussian_blur@3"], "adds": ["fourier:band=1/4-1/2,rms=0.1"]}
    conditions = ["clean", "fourier:band=1/4-1/2,rms=0.1", "fourier:band=0-1/8,rms=0.1"]
    groups = examples[1].split(conditions, recipes)
    assert groups == {"clean": ["clean"], "adds": [conditions[1]], "unseen": [conditions[2]]}


def test_one_family_on_both_sides_is_refused(examples):
    recipes = {"removes": ["gaussian_blur@3"], "adds": ["gaussian_noise@3", "zoom_blur@3"]}
    with pytest.raises(vl.errors.ConditionError, match="--removes and --adds both have the family 'blur'"):
        examples[1].split(["fog@3"], recipes)


@pytest.mark.parametrize(
    "line", ["--weights base.pth", "--weights base.pth --data train", "--data train", "--held-out val"]
)
def test_what_does_not_go_together_is_refused_before_anything_is_loaded(examples, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        examples[0].main(line.split())
    assert "--weights" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "message"), [("--p-clean 2", "p_clean is 2"), ("--steps 0", "steps is 0")])
def test_a_recipe_that_makes_no_sense_is_refused_before_anything_is_trained(
    examples, line, message, tmp_path
):
    with pytest.raises(vl.errors.TrainingError, match=message):
        examples[0].main([*line.split(), "--output", str(tmp_path / "study")])
    assert not (tmp_path / "study").exists()


def made(n=40):
    """Ranks and probabilities of five checkpoints under three conditions."""
    generator = np.random.default_rng(0)
    dims = ("checkpoint", "condition", "image")
    return xr.Dataset(
        {
            "rank": (dims, generator.integers(0, 3, (5, 3, n))),
            "correct_probability": (dims, generator.random((5, 3, n))),
        },
        coords={
            "checkpoint": ["control", "base", "removes", "adds", "both"],
            "condition": ["clean", "fog@3", "contrast@3"],
        },
    )


def test_accuracy_under_one_condition_has_wilsons_interval_and_tangos_difference(examples):
    data, n, z = made(), 40, 1.959963984540054
    table = examples[1].table(data, {"clean": ["clean"], "unseen": ["fog@3", "contrast@3"]})
    row = table.set_index(["metric", "condition", "checkpoint"]).loc[("accuracy", "clean", "adds")]
    correct = (data["rank"] == 0).sel(condition="clean")
    p = float(correct.sel(checkpoint="adds").mean())
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((middle - half, middle + half))
    expected = vl.comparison.summarize(data, n_classes=10).set_index(["metric", "condition", "checkpoint"])
    tango = expected.loc[("top1_accuracy", "clean", "adds")]
    assert row["difference_from_control"] == pytest.approx(tango["difference"])
    assert row["difference_ci_low"] == pytest.approx(tango["ci_low"])


def test_a_group_counts_each_image_once(examples):
    data = made()
    twice = xr.concat([data, data.assign_coords(condition=["c2", "f2", "d2"])], dim="condition")
    once = examples[1].table(data, {"clean": ["clean"], "unseen": ["fog@3", "contrast@3"]})
    doubled = examples[1].table(twice, {"clean": ["clean"], "unseen": ["fog@3", "contrast@3", "f2", "d2"]})
    same = [name for name in once if name != "n_conditions"]
    pd.testing.assert_frame_equal(once[same], doubled[same])


def test_nothing_is_equivalent_without_a_margin(examples):
    data, groups = made(), {"clean": ["clean"], "unseen": ["fog@3", "contrast@3"]}
    assert "equivalent" not in set(examples[1].table(data, groups)["verdict"])
    assert set(examples[1].table(data, groups, margin=0.9)["verdict"].dropna()) == {"equivalent"}
