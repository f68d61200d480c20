"""`vitlens compare`, as it is typed."""

import argparse
import re

import pandas as pd
import pytest
import timm
import torch
import xarray as xr

import vitlens as vl
from vitlens.cli import compare, main, measures
from vitlens.cli.places import file_and_folder

from .made import model, photographs


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with two checkpoints for two classes and images of them."""
    monkeypatch.chdir(tmp_path)
    vl.save(model(0), "base.safetensors")
    vl.save(model(1), "tuned.safetensors")
    photographs([tmp_path / "data" / name for name in ("cat", "dog")], 4)
    return tmp_path


LINE = "compare base.safetensors tuned.safetensors --data data --no-progress --conditions clean contrast@2"


def test_a_report_is_written_and_beside_it_all_that_it_is_made_of(workplace, capsys):
    assert main(LINE.split()) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-3:] == [
        "report: report.html",
        "summary, every row: report.data/summary.csv",
        "all of it: report.data/comparison.safetensors",
    ]
    assert re.match(
        r" +metric +condition checkpoint +base value +difference, 95 % interval +adjusted p"
        r" +verdict +n",
        said[0],
    )
    assert "What changed from base to tuned" in (workplace / "report.html").read_text(encoding="utf-8")
    kept = vl.Comparison.load("report.data")
    models = {"base": model(0), "tuned": model(1)}
    images = vl.images.folder("data", models["base"])
    by_hand = vl.compare(models, images, conditions=["clean", "contrast@2"], progress=False)
    xr.testing.assert_identical(kept.data, by_hand.data)
    pd.testing.assert_frame_equal(
        pd.read_csv("report.data/summary.csv")[["metric", "difference", "ci_low", "n"]],
        by_hand.summary()[["metric", "difference", "ci_low", "n"]],
        check_dtype=False,
    )


def test_the_command_to_repeat_it_stands_in_the_report(workplace):
    assert main([*LINE.split(), "--title", "It's mine"]) == 0
    page = (workplace / "report.html").read_text(encoding="utf-8")
    assert "<h1>It&#x27;s mine</h1>" in page
    assert "vitlens compare base.safetensors tuned.safetensors --data data" in page


def test_the_same_command_reads_what_was_measured_and_concludes_anew(workplace, capsys, monkeypatch):
    assert main(LINE.split()) == 0

    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr(vl.comparison.comparing, "run", never)
    assert main([*LINE.split(), "--margin", "top1_accuracy=1.5", "--primary", "entropy_nats"]) == 0
    summary = pd.read_csv("report.data/summary.csv")
    assert set(summary.loc[summary["metric"] == "top1_accuracy", "margin"]) == {1.5}
    assert set(summary.loc[summary["p_adjusted"].notna() & summary["layer"].isna(), "metric"]) == {
        "entropy_nats"
    }


def test_another_command_beside_the_same_report_is_refused(workplace, capsys):
    assert main(LINE.split()) == 0
    assert main([*LINE.split(), "--seed", "1"]) == 1
    said = capsys.readouterr().err
    assert "report.data holds another comparison (seed: 0 there, 1 now)" in said


def test_checkpoints_have_the_names_that_they_are_given(workplace):
    vl.save(model(2), "with=sign.safetensors")
    line = (
        "compare start=base.safetensors tuned.safetensors other=with=sign.safetensors with=sign.safetensors"
    )
    assert main(f"{line} --data data --no-progress --n-examples 0 --n-images 3".split()) == 0
    data = vl.Comparison.load("report.data").data
    assert data["checkpoint"].values.tolist() == ["start", "tuned", "other", "tuned_3"]
    assert data["image"].values.tolist() == ["cat/0.png", "dog/0.png", "dog/3.png"]


def test_conditions_are_taken_together(workplace, capsys):
    conditions = ["clean", "contrast@2", "fog@1", "pgd:eps=4/255,steps=1"]
    pools = ["weather=fog@1,clean", "hard=pgd:eps=4/255,steps=1,contrast@2"]
    line = ["compare", "base.safetensors", "tuned.safetensors", "--data", "data", "--no-progress"]
    assert main([*line, "--conditions", *conditions, "--pool", *pools, "--analyses", "prediction"]) == 0
    summary = pd.read_csv("report.data/summary.csv").set_index(["metric", "condition"])
    for pool, members in {
        "weather": ["fog@1", "clean"],
        "hard": ["pgd:eps=4/255,steps=1", "contrast@2"],
    }.items():
        mean = summary.loc[[("correct_probability", name) for name in members], "value"].mean()
        assert summary.loc[("correct_probability", pool), "value"] == pytest.approx(mean)


def test_analyses_are_named(workplace):
    names = list(measures.MEASURES)
    assert main([*LINE.split(), "--n-images", "5", "--analyses", *names, "--n-examples", "0"]) == 0
    data = vl.Comparison.load("report.data").data
    assert {
        "rank",
        "lens_rank",
        "attention_entropy_nats",
        "attention_distance_patches",
        "cka",
        "resid_cosine",
    } <= {*data}


def test_every_analysis_that_a_name_can_make_is_an_analysis():
    for name, measure in measures.MEASURES.items():
        assert type(measure.make()).__name__.lower() == name.replace("_", "")


def test_a_bare_state_dict_is_loaded_as_the_architecture_that_is_named(workplace, capsys):
    for name in ("a.pth", "b.pth"):
        torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=2, depth=1).state_dict(), name)
    line = "compare a.pth b.pth --data data --no-progress --n-images 1 --batch-size 1 --n-examples 0"
    assert main(line.split()) == 1
    assert "--architecture deit_tiny_patch16_224" in capsys.readouterr().err
    line += " --architecture vit_tiny_patch16_224"
    assert main(line.split()) == 1
    assert "do not fit" in capsys.readouterr().err


def test_ctrl_c_says_that_the_command_goes_on(workplace, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(vl.comparison.comparing, "run", stopped)
    assert main(LINE.split()) == 130
    said = capsys.readouterr().err
    assert (
        said == "vitlens compare: stopped; what was done is in report.data, and the same command goes on.\n"
    )


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ("--conditions gausian_blur@3", "gaussian_blur"),
        ("--analyses predictoin", "--analyses names 'predictoin'.*Nearest: 'prediction'"),
        ("--margin top1_accuracy", "--margin is given 'top1_accuracy'.*METRIC=VALUE"),
        ("--margin top1_accuracy=x", "--margin is given 'top1_accuracy=x'"),
        ("--margin top1_accuracy=-1", "The margin of top1_accuracy is -1.0"),
        ("--margin tpo1_accuracy=0.1", "--margin names 'tpo1_accuracy'.*Nearest: 'top1_accuracy'"),
        ("--primary cka --analyses cka", "--primary names 'cka', which is no scalar metric"),
        ("--pool seen", "--pool is given 'seen'.*NAME=CONDITION"),
        ("--pool seen=fog@3,clean", "--pool seen names 'fog@3'.*add it to --conditions"),
        ("--pool clean=clean,contrast@2", "clean"),
        ("--pool a=clean a=contrast@2", "--pool names 'a' twice"),
        ("--pool a=clean --pool a=contrast@2", "--pool names 'a' twice"),
        ("--pool seen=contrast@2 unseen=contrast@2", "--pool seen has 'contrast@2', which is unseen too"),
        ("--pool seen=clean unseen=contrast@2", "--pool seen has 'clean', which is clean too"),
        ("--pool clean=clean", r"The pool 'clean' is called like .* by their condition\.\n$"),
        ("--conditions frost@3", r"Expected: a folder of them\. Name it with --frost DIR\.\n$"),
        ("--conditions mine@3", r"a group or an attack \(nearest: .*\)\. Correct the name\.\n$"),
        ("--conditions clean", r"'clean' is given twice.*Name each once\.\n$"),
        ("--conditions pgd:eps=4", r"compare: eps is 4\.0"),
        ("--primary top1_acuracy", r"compare: --primary names 'top1_acuracy'"),
        ("--data notes.txt", "notes.txt is no folder, but a file"),
        ("--output notes.txt", "--output is notes.txt, a file that vitlens did not write"),
        ("--margin top1_accuracy=0.1 top1_accuracy=0.2", "--margin names 'top1_accuracy' twice"),
        ("--num-classes 2", "--num-classes is given without --architecture"),
        ("--device nowhere", "--device is nowhere"),
        ("--data missing", "missing does not exist"),
        ("--output .", "--output is ."),
        ("--output missing/report.html", "--output is missing/report.html.*Make the folder first"),
        ("--output report.data", "--output is report.data"),
        ("--frost nowhere", "nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_the_work(workplace, capsys, further, message):
    (workplace / "notes.txt").write_text("mine")
    assert main([*LINE.split(), *further.split()]) == 1
    said = capsys.readouterr().err
    assert (workplace / "notes.txt").read_text() == "mine"
    assert re.search(message, said), said
    assert said.startswith("vitlens compare: ")
    assert said.count("\n") == 1
    assert not (workplace / "report.html").exists()
    assert not (workplace / "report.data").exists()


@pytest.fixture(scope="module")
def trained():
    """An SAE of each of three models."""
    images = vl.images.textured_shapes("train", n=32)
    settings = {"d_sae": 12, "k_per_token": 2, "n_tokens": 640, "batch_size": 16, "progress": False}
    source = {seed: (model(seed), images, "blocks.0.hook_resid_post") for seed in range(3)}
    return {seed: vl.saes.train(source[seed], seed=seed, **settings) for seed in range(3)}


@pytest.fixture
def dictionaries(workplace, trained):
    """The workplace with SAEs and a random-weight model."""
    vl.save(model(2), "random.safetensors")
    for seed, name in enumerate(("base", "tuned,2", "unrelated")):
        vl.saes.save(trained[seed], f"saes/{name}")
    vl.saes.save(trained[1], "saes/tuned")
    return workplace


SAES = "--saes base=saes/base tuned=saes/tuned --saes unrelated=saes/unrelated --n-examples 0"


def test_saes_are_matched_and_shown(dictionaries):
    line = f"{LINE} {SAES} --unrelated random.safetensors --n-gallery-features 2"
    assert main(line.split()) == 0
    kept = vl.Comparison.load("report.data")
    assert set(kept.features["role"]) == {"checkpoints", "unrelated"}
    assert {len(gallery) for gallery in kept.galleries.values()} <= {1, 2}
    page = (dictionaries / "report.html").read_text(encoding="utf-8")
    for heading in kept.galleries:
        assert f"<h3>{heading}</h3>" in page
    assert main([*line.split(), "--title", "Again"]) == 0
    assert main([*line.split(), "--n-gallery-features", "3"]) == 1


def test_without_the_random_weight_model_its_saes_are_compared_by_their_decoders(dictionaries, trained):
    assert main(f"{LINE} {SAES} --n-gallery-features 0".split()) == 0
    kept = vl.Comparison.load("report.data")
    assert kept.galleries is None
    rows = kept.features[kept.features["role"] == "unrelated"]
    assert rows["n_live_b"].unique().tolist() == [12]  # that a feature is dead is not known
    assert rows["activation_correlation"].isna().all()


def test_a_folder_with_a_comma_in_its_name_is_one(dictionaries):
    line = f"{LINE} --n-examples 0 --n-gallery-features 0".split()
    assert main([*line, "--saes", "base=saes/base", "tuned=saes/tuned,2"]) == 0


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ("--saes saes/base", "--saes is given 'saes/base'.*NAME=FOLDER"),
        ("--saes base=", "--saes is given 'base='"),
        ("--saes bsae=saes/base", "--saes names 'bsae', which is no checkpoint.*Nearest: 'base'"),
        ("--saes base=saes/base base=saes/tuned", "--saes names 'base' twice"),
        ("--saes base=saes/base,saes/gone", "--saes base names 'saes/gone', which is no folder"),
        ("--saes base=data", "data/cfg.json cannot be read"),
        ("--saes base=saes/base tuned=saes/base", "there is no pair to match.*different seeds"),
        ("--saes base=saes/base tuned=saes/tuned --unrelated random.safetensors", "there are no SAEs of it"),
        (f"{SAES} --unrelated gone.safetensors", "There is no file gone.safetensors"),
        (f"{SAES} --unrelated deep.safetensors", "n_layers 2 and 3"),
    ],
)
def test_saes_that_cannot_be_compared_are_said_in_one_line_before_the_work(
    dictionaries, capsys, further, message
):
    vl.save(model(2, depth=3), "deep.safetensors")
    assert main([*LINE.split(), *further.split()]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.count("\n") == 1
    assert not (dictionaries / "report.data").exists()


def test_a_damaged_sae_is_refused_before_the_work(dictionaries, capsys):
    weights = dictionaries / "saes" / "tuned" / "sae_weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert main(f"{LINE} {SAES}".split()) == 1
    assert "sae_weights.safetensors is damaged" in capsys.readouterr().err
    assert not (dictionaries / "report.data").exists()


def test_images_as_formats_want_kaleido(workplace, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "kaleido", None)
    assert main([*LINE.split(), "--format", "svg"]) == 1
    assert 'pip install "vitlens[export]"' in capsys.readouterr().err
    assert not (workplace / "report.data").exists()


def test_checkpoints_that_cannot_be_compared_are_refused(workplace, capsys):
    vl.save(model(0, depth=3), "deep.safetensors")
    vl.save(model(0, num_classes=3), "three.safetensors")
    data = "--data data --no-progress"
    assert main(f"compare base.safetensors deep.safetensors {data}".split()) == 1
    assert "n_layers 2 and 3" in capsys.readouterr().err
    assert main(f"compare base.safetensors base=tuned.safetensors {data}".split()) == 1
    assert "Two checkpoints are called 'base'" in capsys.readouterr().err
    assert main(f"compare base.safetensors gone.safetensors {data}".split()) == 1
    assert "There is no file gone.safetensors" in capsys.readouterr().err
    assert main(f"compare base.safetensors data {data}".split()) == 1
    assert "data is a folder. Expected: a .safetensors" in capsys.readouterr().err
    assert main(f"compare three.safetensors three.safetensors {data}".split()) == 1
    said = capsys.readouterr().err
    assert "2 class folders" in said
    assert "classes={" not in said


@pytest.mark.parametrize(
    "further",
    ["--batch-size 0", "--batch-size x", "--seed -1", "--n-images 0", "--level 1", "--level 0.5",
     "--level x", "--format gif", "--precision float64", "--oops"],
)  # fmt: skip
def test_what_is_not_understood_exits_with_2(workplace, capsys, further):
    with pytest.raises(SystemExit) as stopped:
        main([*LINE.split(), *further.split()])
    assert stopped.value.code == 2
    assert further.split()[0] in capsys.readouterr().err


def test_a_name_may_have_a_dot_of_its_own(tmp_path):
    for name, beside in {
        "report.html": "report.data",
        "report.HTM": "report.data",
        "report": "report.data",
        "blur_0.5": "blur_0.5.data",
        "blur_0.1.html": "blur_0.1.data",
    }.items():
        assert file_and_folder(tmp_path / name, "report.html") == (tmp_path / name, tmp_path / beside)


def test_a_report_of_vitlens_may_be_written_anew_and_no_other_page(workplace, capsys):
    quick = [*LINE.split(), "--analyses", "prediction", "--n-examples", "0"]
    assert main(quick) == 0
    assert main([*quick, "--title", "Anew"]) == 0
    page = workplace / "report.html"
    assert "<h1>Anew</h1>" in page.read_text(encoding="utf-8")
    for theirs in ("", "<html><title>vitlens</title></html>"):
        page.write_text(theirs, encoding="utf-8")
        assert main(quick) == 1
        assert "a file that vitlens did not write" in capsys.readouterr().err
        assert page.read_text(encoding="utf-8") == theirs


def test_the_table_has_what_was_tested_or_has_a_margin_whatever_came_of_it(workplace, capsys):
    quick = [*LINE.split(), "--analyses", "prediction", "attention_entropy", "--n-examples", "0"]
    quick += ["--conditions", "fog@1", "--margin", "predicted_probability=0.000001"]
    assert main([*quick, "--margin", "entropy_nats=9", "--primary", "top1_accuracy"]) == 0
    table = capsys.readouterr().out
    shown = re.findall(
        r"^ *(\w+) +(clean|contrast@2|fog@1) +tuned .* (changed|equivalent|undecided) +8$", table, re.M
    )
    assert [row[:2] for row in shown] == [
        (metric, condition)
        for metric in ("top1_accuracy", "predicted_probability", "entropy_nats")
        for condition in ("clean", "contrast@2", "fog@1")
    ]
    assert {row[2] for row in shown if row[0] == "predicted_probability"} <= {"changed", "undecided"}
    assert {row[2] for row in shown if row[0] == "entropy_nats"} == {"equivalent"}


def test_margins_of_maps_alone_are_said_to_stand_in_the_file(workplace, capsys):
    quick = [*LINE.split(), "--analyses", "attention_entropy", "--n-examples", "0"]
    assert main([*quick, "--margin", "attention_entropy_nats[cls]=0.1"]) == 0
    assert capsys.readouterr().out.startswith("Only values of layers or heads were tested: they are in")


def test_nothing_tested_is_said(workplace, capsys):
    assert main([*LINE.split(), "--analyses", "attention_entropy", "--n-examples", "0"]) == 0
    assert capsys.readouterr().out.startswith("Nothing was tested: no metric is among --primary")


def test_the_help_names_every_command_and_the_usual_call(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    page = capsys.readouterr().out
    for words in ("What changed inside", "compare", "finetune", "corrupt", "the usual call:", "--conditions"):
        assert words in page


def test_without_a_command_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "the usual call:" in capsys.readouterr().err


def test_the_help_of_compare_names_every_analysis(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    page = capsys.readouterr().out
    for name in measures.MEASURES:
        assert re.search(rf"^  {name} +\S", page, re.M), name
    assert max(map(len, page.splitlines())) <= 110


def test_the_calls_that_the_help_shows_are_understood():
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    calls = re.findall(
        r"vitlens compare (.*?)(?:\n  vitlens|\n\n)", compare.EPILOG.replace("\\\n", " "), re.S
    )
    calls = [call for call in compare.EPILOG.replace("\\\n", " ").splitlines() if "vitlens compare " in call]
    assert len(calls) == 2
    for call in calls:
        parser.parse_args(call.split()[2:])


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"vitlens {vl.__version__}\n"
