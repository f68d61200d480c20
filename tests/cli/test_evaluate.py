"""`vitlens evaluate`, as it is typed."""

import argparse
import re

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import xarray as xr
from scipy import stats

import vitlens as vl
from vitlens.cli import evaluate, main
from vitlens.cli.scores import METRICS, scores
from vitlens.comparison.corruption_error import complete_corruptions
from vitlens.comparison.statistics import mean_interval, resample_counts

from .made import model, photographs


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with two checkpoints of different shapes and images of their six classes."""
    monkeypatch.chdir(tmp_path)
    vl.save(model(num_classes=6), "base.safetensors")
    vl.save(model(1, img_size=48, depth=1, num_classes=6), "large.safetensors")
    photographs([tmp_path / "data" / name for name in "abcdef"], 3, size=60)
    return tmp_path


LINE = "evaluate base.safetensors big=large.safetensors --data data --no-progress"


def rows(checkpoint, conditions, **settings):
    """What the checkpoint's images give, by the library."""
    loaded = vl.load(checkpoint)
    images = vl.images.folder("data", loaded)
    return vl.run(loaded, images, [vl.Prediction()], conditions=conditions, progress=False, **settings)


def cell(table, checkpoint, condition, metric):
    return table.set_index(["checkpoint", "condition", "metric"]).loc[(checkpoint, condition, metric)]


def test_the_figures_are_those_of_the_same_rows_in_python(workplace):
    line = f"{LINE} --conditions clean gaussian_noise@3 --seed 2 --output table.csv"
    assert main(line.split()) == 0
    table = pd.read_csv("table.csv")
    assert table.columns.tolist() == ["checkpoint", "condition", "metric", "value", "ci_low", "ci_high", "n"]
    assert table["checkpoint"].unique().tolist() == ["base.safetensors", "big"]
    for name, file in {"base.safetensors": "base.safetensors", "big": "large.safetensors"}.items():
        data = rows(file, ["clean", "gaussian_noise@3"], seed=2)
        calibration = vl.calibration_error(data, seed=2).set_index("condition")
        for condition in ("clean", "gaussian_noise@3"):
            at = data.sel(condition=condition)
            for k in (1, 5):
                found = cell(table, name, condition, f"top{k}_accuracy")
                hits = int((at["rank"] < k).sum())
                wilson = stats.binomtest(hits, 18).proportion_ci(method="wilson")
                assert found.drop("n").tolist() == pytest.approx([hits / 18, wilson.low, wilson.high])
            for metric in ("correct_probability", "entropy_nats"):
                values = at[metric].values.astype(np.float64)[:, None]
                low, high = mean_interval(values, resample_counts(18, seed=2))
                found = cell(table, name, condition, metric)
                assert found["value"] == pytest.approx(values.mean())
                assert found["ci_low"] == pytest.approx(max(low[0], 0))
                most = 1 if metric == "correct_probability" else np.log(6)
                assert found["ci_high"] == pytest.approx(min(high[0], most))
            found = cell(table, name, condition, "calibration_error")
            wanted = calibration.loc[condition, ["value", "ci_low", "ci_high"]]
            assert found.drop("n").tolist() == pytest.approx(wanted.tolist())
            by_chance = cell(table, name, condition, "calibration_error_if_calibrated")["value"]
            assert by_chance == pytest.approx(calibration.loc[condition, "value_if_calibrated"])
    assert set(table["n"]) == {18}


def test_top_10_of_six_classes_says_nothing_and_is_left_out(workplace):
    assert main(f"{LINE} --output table.csv".split()) == 0
    assert set(pd.read_csv("table.csv")["metric"]) == {
        "top1_accuracy",
        "top5_accuracy",
        "correct_probability",
        "entropy_nats",
        "calibration_error",
        "calibration_error_if_calibrated",
    }


def test_a_corruption_at_all_severities_has_its_corruption_error(workplace):
    conditions = ["clean", "contrast@1-5", "brightness@1-5", "fog@3"]
    assert main([*LINE.split(), "--conditions", *conditions, "--output", "table.csv"]) == 0
    table = pd.read_csv("table.csv")
    data = rows("large.safetensors", conditions)
    wanted = vl.mean_corruption_error(data, corruptions=["contrast", "brightness"])
    names = {"contrast": "contrast@1-5", "brightness": "brightness@1-5", "mean of 2": "mean of 2"}
    for row in wanted.itertuples():
        found = cell(table, "big", names[row.corruption], row.metric)
        assert found.tolist() == pytest.approx([row.value, row.ci_low, row.ci_high, row.n])
    assert set(table.loc[table["metric"] == "corruption_error", "condition"]) == set(names.values())


@pytest.mark.parametrize(
    ("conditions", "complete"),
    [
        (["clean"], []),
        (["fog@1", "fog@2", "fog@3", "fog@4"], []),
        ([f"fog@{each}" for each in range(1, 6)], ["fog"]),
        ([f"sharpen@{each}" for each in range(1, 6)], []),
        ([f"fog@{each}:jpeg_quality=85" for each in range(1, 6)], ["fog"]),
        ([f"fog@{each}:jpeg_quality=85" for each in range(1, 5)] + ["fog@5"], []),
        ([name for each in range(1, 6) for name in (f"snow@{each}", f"fog@{each}:jpeg_quality=85")], []),
        ([*(f"snow@{each}" for each in range(1, 6)), "fog@3:jpeg_quality=85"], ["snow"]),
    ],
)  # fmt: skip
def test_which_corruptions_are_complete(conditions, complete):
    assert complete_corruptions(conditions) == complete


def test_what_is_shown_has_conditions_down_and_checkpoints_across(workplace, capsys):
    assert main([*LINE.split(), "--conditions", "contrast@2", "clean"]) == 0
    said = capsys.readouterr().out
    lines = said.splitlines()
    assert lines[0] == "top-1 accuracy"
    assert lines[1].split() == ["base.safetensors", "big"]
    assert re.fullmatch(r"contrast@2( +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]){2}", lines[2])
    assert lines[3].startswith("clean ")
    assert lines[-1] == "95 % intervals over 18 images"
    assert sorted(path.name for path in workplace.iterdir()) == [
        "base.safetensors",
        "data",
        "large.safetensors",
    ]


def test_an_answer_that_is_no_number_is_wrong_and_makes_means_no_number():
    dims = ("condition", "image")
    values = {
        "rank": (dims, [[0, np.nan, 3]]),
        "correct_probability": (dims, [[0.5, np.nan, 0.25]]),
        "predicted_probability": (dims, [[0.5, np.nan, 0.5]]),
        "entropy_nats": (dims, [[1.0, np.nan, 1.0]]),
    }
    data = xr.Dataset(values, coords={"condition": ["clean"]})
    table = scores(data, n_classes=4, seed=0).set_index("metric")
    assert table.loc["top1_accuracy", "value"] == pytest.approx(1 / 3)
    assert table.loc[["correct_probability", "entropy_nats"], ["value", "ci_low", "ci_high"]].isna().all(None)
    assert table.loc["calibration_error", "n"] == 2


def test_a_stopped_command_measures_nothing_twice_and_ends_with_the_same_table(
    workplace, capsys, monkeypatch
):
    line = f"{LINE} --conditions clean fog@2 --output table.csv"
    assert main(line.split()) == 0
    whole = (workplace / "table.csv").read_bytes()
    (workplace / "table.csv").unlink()
    for left in (workplace / "table.data").glob("*/*"):
        left.unlink()
    forwards, forward = [], vl.HookedViT.forward

    def stopping(self, *args, **kwargs):
        forwards.append(self.cfg.n_layers)
        if forwards.count(1) == 2:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(vl.HookedViT, "forward", stopping)
        assert main(line.split()) == 130
    said = capsys.readouterr().err
    assert said == (
        "vitlens evaluate: stopped; what was done is in table.data, and the same command goes on.\n"
    )
    assert not (workplace / "table.csv").exists()
    forwards.clear()
    monkeypatch.setattr(
        vl.HookedViT,
        "forward",
        lambda self, *args: (forwards.append(self.cfg.n_layers), forward(self, *args))[1],
    )
    assert main(line.split()) == 0
    assert set(forwards) == {1}  # the first checkpoint, of two layers, was done
    assert (workplace / "table.csv").read_bytes() == whole


def test_ctrl_c_without_an_output_says_that_nothing_is_kept(workplace, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "measure", stopped)
    assert main(LINE.split()) == 130
    assert capsys.readouterr().err == "vitlens evaluate: stopped; without --output nothing is kept.\n"


def test_rows_are_kept_by_what_a_model_makes_of_an_image(workplace):
    """The same weights under another normalization answer otherwise."""
    base = vl.load("base.safetensors")
    other = vl.HookedViT(base.model, data_config=base.data_config | {"mean": (0.1, 0.2, 0.3)})
    vl.save(other, "other.safetensors")
    line = "evaluate base.safetensors other.safetensors --data data --no-progress --output table.csv"
    assert main(line.split()) == 0
    table = pd.read_csv("table.csv")
    entropy = table[table["metric"] == "entropy_nats"].set_index("checkpoint")["value"]
    assert entropy["base.safetensors"] != entropy["other.safetensors"]


def test_another_command_beside_the_same_table_is_refused(workplace, capsys):
    assert main(f"{LINE} --output table.csv".split()) == 0
    assert main(f"{LINE} --output table.csv --conditions fog@1".split()) == 1
    assert "holds another run: its conditions is" in capsys.readouterr().err


def test_some_images_are_spread_over_the_folder(workplace):
    assert main(f"{LINE} --n-images 4 --output table.csv".split()) == 0
    assert set(pd.read_csv("table.csv")["n"]) == {4}


def test_a_bare_state_dict_is_loaded_as_the_architecture_that_is_named(workplace, capsys):
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=6, depth=1).state_dict(), "a.pth")
    line = "evaluate a.pth --data data --no-progress --n-images 1"
    assert main(line.split()) == 1
    assert "--architecture" in capsys.readouterr().err
    assert main(f"{line} --architecture vit_tiny_patch16_224 --num-classes 6".split()) == 1
    assert "do not fit" in capsys.readouterr().err


def test_what_a_state_dict_is_missing_is_said_as_options_that_are_enough(workplace, capsys):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=6, img_size=48).state_dict()
    torch.save(state, "a.pth")
    line = "evaluate a.pth --data data --no-progress --n-images 1 --architecture vit_tiny_patch16_224"
    assert main(line.split()) == 1
    assert "pass --image-size 48 --num-classes 6." in capsys.readouterr().err
    assert main(f"{line} --image-size 48 --num-classes 6".split()) == 0


def test_checkpoints_that_cannot_be_right_or_wrong_are_named(workplace, capsys):
    vl.save(model(0, num_classes=0), "headless.safetensors")
    vl.save(model(0, num_classes=3), "three.safetensors")
    data = "--data data --no-progress --output table.csv"
    assert main(f"evaluate base.safetensors none=headless.safetensors {data}".split()) == 1
    assert "none: There is no classifier. Expected:" in capsys.readouterr().err
    assert main(f"evaluate base.safetensors three.safetensors {data}".split()) == 1
    said = capsys.readouterr().err
    assert "three.safetensors: There are 6 class folders" in said
    assert "classes={" not in said
    assert main(f"evaluate base.safetensors base.safetensors {data}".split()) == 1
    assert "Two checkpoints are called 'base.safetensors'" in capsys.readouterr().err
    assert main(f"evaluate base.safetensors gone.safetensors {data}".split()) == 1
    assert "There is no file gone.safetensors" in capsys.readouterr().err
    assert not (workplace / "table.data").exists()


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ("--conditions gausian_blur@3", "gaussian_blur"),
        ("--conditions pgd:on=base", "attacks the checkpoint 'base'.*leave out on="),
        ("--num-classes 2", "--num-classes is given without --architecture"),
        ("--image-size 48", "--image-size is given without --architecture"),
        ("--device nowhere", "--device is nowhere"),
        ("--data missing", "missing does not exist"),
        ("--output .", r"--output is \..*ending with .csv"),
        ("--output report.html", "--output is report.html.*ending with .csv.*vitlens compare"),
        ("--output missing/table.csv", "--output is missing/table.csv.*Make the folder first"),
        ("--frost nowhere", "nowhere"),
        ("--conditions frost@3", "'frost' needs photographs.*Name it with --frost"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_the_work(workplace, capsys, further, message):
    assert main([*LINE.split(), *further.split()]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.startswith("vitlens evaluate: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "further", ["--batch-size 0", "--seed -1", "--n-images 0", "--precision float64", "--oops"]
)
def test_what_is_not_understood_exits_with_2(workplace, capsys, further):
    with pytest.raises(SystemExit) as stopped:
        main([*LINE.split(), *further.split()])
    assert stopped.value.code == 2
    assert further.split()[0] in capsys.readouterr().err


def test_the_help_tells_what_is_measured_and_its_calls_are_understood(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 110
    assert "(default 32)" in page
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    calls = [call for call in evaluate.EPILOG.replace("\\\n", " ").splitlines() if "--data" in call]
    assert len(calls) == 2
    for call in calls:
        parser.parse_args(call.split()[2:])


def test_every_metric_is_shown_in_words():
    assert set(METRICS) >= {"top1_accuracy", "entropy_nats", "calibration_error", "corruption_error"}


def test_a_table_that_is_not_ours_is_left_as_it_is(workplace, capsys):
    (workplace / "mine.csv").write_text("a,b\n1,2\n")
    assert main([*LINE.split(), "--output", "mine.csv"]) == 1
    assert "a file that vitlens did not write" in capsys.readouterr().err
    assert (workplace / "mine.csv").read_text() == "a,b\n1,2\n"
    line = [*LINE.split(), "--output", "ours.csv"]
    assert main(line) == main(line) == 0  # its own it writes anew
