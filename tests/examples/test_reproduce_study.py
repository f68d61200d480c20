"""The study, run once on few digits: four fine-tunes of one base, its tables, and the page made of them."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import vitlens as vl

EXAMPLES = Path(__file__).parents[2] / "examples"
CONDITIONS = ["gaussian_blur@3", "defocus_blur@2", "gaussian_noise@4", "contrast@2", "fog@1"]
LINE = [
    "--quick", "--steps", "2", "--batch-size", "8", "--n-images", "10", "--removes", "gaussian_blur@1-5",
    "--adds", "gaussian_noise@1-5", "shot_noise@1-5", "--conditions", *CONDITIONS, "--n-sweep-images", "4",
    "--sae-images", "12", "--sae-tokens", "256", "--output", "study", "--page", "docs",
]  # fmt: skip


@pytest.fixture(scope="module")
def script():
    """The script, as a module."""
    sys.path.insert(0, str(EXAMPLES))
    import reproduce_study

    yield reproduce_study
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def run(script, tmp_path_factory):
    """A folder in which the study has run: all of it in study/, the page in docs/."""
    folder = tmp_path_factory.mktemp("reproduced")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        script.main(LINE)
    return folder


def read(run, name):
    return pd.read_csv(run / "docs" / "study" / f"{name}.csv")


def test_the_four_differ_in_what_corrupts_their_images_and_in_nothing_else(run):
    recipes = {
        name: json.loads((run / "study" / name / "config.json").read_text())
        for name in ("control", "removes", "adds", "both")
    }
    mixes = {
        name: (each["config"].pop("conditions"), each["config"].pop("p_clean"))
        for name, each in recipes.items()
    }
    assert mixes == {
        "control": ([], 1.0),
        "removes": (["gaussian_blur@1-5"], 0.5),
        "adds": (["gaussian_noise@1-5", "shot_noise@1-5"], 0.5),
        "both": (["gaussian_blur@1-5", "gaussian_noise@1-5", "shot_noise@1-5"], 0.5),
    }
    assert all(each == recipes["control"] for each in recipes.values())
    base = vl.load(run / "study" / "base" / "model.safetensors")
    assert recipes["control"]["start"] == vl.weights_sha256(base)


def test_the_table_has_every_group_of_every_checkpoint_and_what_was_seen(run):
    table = read(run, "groups")
    assert {
        "top1_accuracy", "top5_accuracy", "correct_probability", "first_correct_layer",
        "never_correct_share", "mean_attention_entropy_nats", "code_cosine_vanilla", "code_cosine_batch_topk",
    } == set(table["metric"])  # fmt: skip
    accuracy = table[table["metric"] == "top1_accuracy"]
    seen = accuracy.pivot(index="checkpoint", columns="condition", values="seen")
    assert seen.loc["base"].to_dict() == seen.loc["control"].to_dict()
    assert seen.loc["control"].to_dict() == {
        "clean": "clean", "removes": "unseen", "removes_family": "unseen", "adds": "unseen",
        "unseen": "unseen",
    }  # fmt: skip
    assert seen.loc["removes", ["removes", "removes_family", "adds"]].tolist() == ["seen", "family", "unseen"]
    assert seen.loc["both", ["removes", "removes_family", "adds"]].tolist() == ["seen", "family", "seen"]
    by = accuracy.groupby("checkpoint")
    assert by["difference_from_control"].count().to_dict() == {
        "base": 0, "control": 0, "removes": 5, "adds": 5, "both": 5,
    }  # fmt: skip
    assert by["difference_from_base"].count().to_dict() == {
        "base": 0, "control": 5, "removes": 5, "adds": 5, "both": 5,
    }  # fmt: skip
    is_coded = table["metric"].str.startswith("code_cosine")
    assert (table.loc[~is_coded, "n_images"] == 10).all()
    assert (table.loc[is_coded, "n_images"] == 4).all()
    assert "clean" not in set(table.loc[is_coded, "condition"])


def test_the_tables_values_are_those_of_the_models_on_disk(run):
    table = read(run, "groups").set_index(["metric", "condition", "checkpoint"])
    test = vl.images.digits("test")
    images = [test[round(index * 499 / 9)] for index in range(10)]
    models = {
        name: vl.load(run / "study" / name / "model.safetensors") for name in ("base", "control", "both")
    }
    data = vl.run(
        models, images, [vl.Prediction(), vl.AttentionEntropy()], conditions=["contrast@2", "fog@1"],
        progress=False,
    )  # fmt: skip
    probability = data["correct_probability"].mean(["condition", "image"])
    row = table.loc[("correct_probability", "unseen", "both")]
    assert row["n_conditions"] == 2
    assert row["value"] == pytest.approx(float(probability.sel(checkpoint="both")), rel=1e-4)
    assert row["ci_low"] < row["value"] < row["ci_high"]
    for reference in ("control", "base"):
        difference = float(probability.sel(checkpoint="both") - probability.sel(checkpoint=reference))
        assert row[f"difference_from_{reference}"] == pytest.approx(difference, abs=1e-6)
    entropy = data["attention_entropy_nats"].sel(checkpoint="control", query_kind="cls").mean()
    value = table.loc[("mean_attention_entropy_nats", "unseen", "control"), "value"]
    assert value == pytest.approx(float(entropy), rel=1e-5)


def test_codes_are_compared_in_the_bases_dictionary_with_those_of_the_clean_image(run):
    models = {name: vl.load(run / "study" / name / "model.safetensors") for name in ("base", "adds")}
    test = vl.images.digits("test")
    images = [test[round(round(index * 9 / 3) * 499 / 9)] for index in range(4)]
    sae = vl.saes.load(run / "study" / "saes" / "base-batch_topk-0")
    found = vl.saes.code_similarity(models, {"own": sae}, images, conditions=["fog@1"], progress=False)
    cosine = found["code_cosine_image"].sel(condition="fog@1", comparison="adds, clean to shown")
    kept = vl.Comparison.load(run / "study" / "codes.safetensors").data["code_cosine_batch_topk"]
    assert kept["image"].values.tolist() == cosine["image"].values.tolist()
    expected = cosine.sel(dictionary="own").values
    assert np.allclose(kept.sel(condition="fog@1", checkpoint="adds").values, expected, atol=1e-5)


def test_dictionaries_lie_between_two_nulls_against_the_base_and_against_the_control(run):
    similarity = read(run, "similarity")
    pairs = similarity.groupby("reference")["checkpoint"].unique().map(sorted).to_dict()
    assert pairs == {
        "base": ["adds", "both", "control", "removes"],
        "control": ["adds", "base", "both", "removes"],
    }
    assert set(similarity["kind"]) == {"vanilla", "batch_topk"}
    assert (similarity["n_seeds"] == 3).all()
    assert (similarity["n_unrelated"] == 3).all()
    quality = read(run, "saes")
    assert len(quality) == 6 * 2 * 3
    assert quality.groupby("kind")["seed"].nunique().eq(18).all()


def test_every_claims_rows_are_those_of_the_tables_that_they_name(run):
    claims = read(run, "claims")
    assert set(claims["file"]) == {"groups.csv", "similarity.csv", "parts.csv"}
    columns = {
        "groups.csv": ("difference_from_control", "from_control_low", "from_control_verdict"),
        "similarity.csv": ("similarity_share", "ci_low", "verdict"),
        "parts.csv": ("gap_closed", "ci_low", "verdict"),
    }
    for claim in claims.itertuples():
        source = read(run, claim.file.removesuffix(".csv"))
        row = source.iloc[claim.line - 2]
        assert row["checkpoint"] == claim.checkpoint
        value, low, verdict = (row[name] for name in columns[claim.file])
        np.testing.assert_equal((claim.estimate, claim.ci_low, claim.verdict), (value, low, verdict))


def test_the_pages_numbers_are_those_of_the_rows(run):
    page = (run / "docs" / "study.md").read_text()
    claims, verdicts = read(run, "claims"), read(run, "verdicts").set_index("claim")
    assert "$" not in page
    for claim in claims[claims["file"] == "groups.csv"].itertuples():
        interval = f"{claim.estimate:+.3f} [{claim.ci_low:+.3f}, {claim.ci_high:+.3f}]"
        link = f"[groups.csv:{claim.line}](study/groups.csv)"
        lines = [line for line in page.split("\n") if link in line and interval in line]
        assert lines, (interval, link)
        assert f"| {claim.verdict} |" in lines[0]
    said = [line.split("**")[1] for line in page.split("\n") if line.startswith("| ") and ". " in line[:6]]
    assert said == verdicts["verdict"].tolist()
    assert json.loads((run / "docs" / "study" / "run.json").read_text())["steps"] == 2
    assert str(run) not in page


def test_the_page_is_made_of_its_rows_and_of_nothing_else(run, tmp_path):
    import study_page

    page = (run / "docs" / "study.md").read_text()
    assert study_page.rendered(run / "docs") == page
    shutil.copytree(run / "docs", tmp_path / "docs")
    claims = read(run, "claims")
    is_first = claims["claim"].eq("accuracy_seen") & claims["checkpoint"].eq("adds")
    claims.loc[is_first, "estimate"] = 7.777
    claims.to_csv(tmp_path / "docs" / "study" / "claims.csv", index=False)
    assert study_page.rendered(tmp_path / "docs").count("+7.777") == 1
    assert "7.777" not in page


def test_every_file_that_the_page_shows_is_beside_it(run):
    page = (run / "docs" / "study.md").read_text()
    named = {part.split(")")[0] for part in page.split("](study/")[1:]}
    assert {"groups.csv", "claims.csv", "verdicts.csv", "layers.csv", "run.json"} <= named
    assert all((run / "docs" / "study" / name).is_file() for name in named)


def test_a_second_call_makes_nothing_again(script, run, monkeypatch):
    made = {path: path.stat().st_mtime_ns for path in (run / "study").rglob("*.safetensors")}
    assert len(made) > 40
    claims, spent = read(run, "claims"), (run / "study" / "times.json").read_text()
    monkeypatch.chdir(run)
    monkeypatch.setattr(vl.Comparison, "report", lambda self, path, **settings: path)
    monkeypatch.setattr(vl.Comparison, "export", lambda self, folder, formats, **settings: [])

    forward = vl.HookedViT.forward

    def of_blanks(self, images, *arguments, **settings):
        assert images.unique().numel() == 1, "a model was run"  # a blank shows how wide an activation is
        return forward(self, images, *arguments, **settings)

    monkeypatch.setattr(vl.HookedViT, "forward", of_blanks)
    script.main(LINE)
    assert {path: path.stat().st_mtime_ns for path in (run / "study").rglob("*.safetensors")} == made
    assert (run / "study" / "times.json").read_text() == spent
    pd.testing.assert_frame_equal(read(run, "claims"), claims)


def test_without_kaleido_the_page_has_no_figures_and_all_else(script, run, monkeypatch, tmp_path):
    def refuse(self, folder, formats, **settings):
        raise vl.errors.ComparisonError("No browser.", expected="one", remedy="Install one.")

    monkeypatch.chdir(run)
    monkeypatch.setattr(vl.Comparison, "report", lambda self, path, **settings: path)
    monkeypatch.setattr(vl.Comparison, "export", refuse)
    script.main([*LINE[:-1], str(tmp_path)])
    page = (tmp_path / "study.md").read_text()
    assert "![" not in page
    assert "study/groups.csv" in page


def test_another_recipe_in_the_same_folder_is_refused(script, run, monkeypatch):
    monkeypatch.chdir(run)
    with pytest.raises(vl.errors.TrainingError, match="learning_rate"):
        script.main([*LINE, "--learning-rate", "1e-3"])


@pytest.mark.parametrize(
    "line", ["--weights base.pth", "--weights base.pth --train train", "--train train", "--held-out val"]
)
def test_what_does_not_go_together_is_refused_before_anything_is_loaded(script, line, capsys):
    with pytest.raises(SystemExit, match="2"):
        script.main(line.split())
    assert "--weights" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "message"), [("--p-clean 2", "p_clean is 2"), ("--steps 0", "steps is 0")])
def test_a_recipe_that_makes_no_sense_is_refused_before_anything_is_trained(script, line, message, tmp_path):
    with pytest.raises(vl.errors.TrainingError, match=message):
        script.main([*line.split(), "--output", str(tmp_path / "study")])
    assert not (tmp_path / "study").exists()
