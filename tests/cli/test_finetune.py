"""`vitlens finetune`, as it is typed."""

import argparse
import dataclasses
import re

import pytest
import timm
import torch

import vitlens as vl
from vitlens.cli import finetune, main
from vitlens.training import losses
from vitlens.training.config import FinetuneConfig

from .made import model, photographs


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with weights for two classes and images of them."""
    monkeypatch.chdir(tmp_path)
    vl.save(model(), "base.safetensors")
    folders = ("data/cat", "data/dog", "held_out/cat", "held_out/dog", "three/a", "three/b", "three/c")
    photographs([tmp_path / name for name in folders], 3)
    return tmp_path


QUICK = "--data data --output run --no-progress --batch-size 4"


def given(words):
    """What the command makes of a line of words."""
    parser = argparse.ArgumentParser()
    finetune.add_arguments(parser)
    return parser.parse_args(["base.safetensors", "--data", "data", "--output", "run", *words.split()])


def config(words):
    return finetune._config(vars(given(words)))


def options():
    parser = argparse.ArgumentParser()
    finetune.add_arguments(parser)
    return {action.dest: action for action in parser._actions}


def test_a_run_is_written_and_its_path_said(workplace, capsys):
    line = f"finetune base.safetensors {QUICK} --steps 2 --conditions gaussian_blur@1-5 contrast@2 --seed 3"
    assert main(line.split()) == 0
    path = workplace / "run" / "model.safetensors"
    assert capsys.readouterr().out == "run/model.safetensors\n"
    recipe = FinetuneConfig(conditions=("gaussian_blur@1-5", "contrast@2"), steps=2, batch_size=4, seed=3)
    base = vl.load("base.safetensors")
    by_hand = vl.training.finetune(base, vl.images.folder("data", base), recipe, progress=False)
    assert vl.weights_sha256(vl.load(path)) == vl.weights_sha256(by_hand.model)


def test_the_same_command_finds_its_finished_run(workplace, capsys):
    line = f"finetune base.safetensors {QUICK} --steps 1 --p-clean 1"
    assert main(line.split()) == 0
    written = (workplace / "run" / "model.safetensors").stat().st_mtime_ns
    assert main(line.split()) == 0
    assert (workplace / "run" / "model.safetensors").stat().st_mtime_ns == written
    assert main(f"{line} --learning-rate 1e-3".split()) == 1
    assert "--learning-rate" in capsys.readouterr().err


def test_held_out_images_are_measured_and_told(workplace, capsys):
    line = f"finetune base.safetensors {QUICK} --steps 1 --p-clean 1 --evaluate-on held_out"
    assert main([*line.split(), "--evaluation-conditions", "clean", "contrast@3"]) == 0
    clean, contrast, path = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"clean: top-1 \d\.\d{3} \[.*\], probability .* \[.*\], 6 images", clean)
    assert contrast.startswith("contrast@3: top-1 ")
    assert path == "run/model.safetensors"


def test_held_out_images_may_be_of_some_of_the_classes(workplace, capsys):
    for image in (workplace / "held_out" / "cat").iterdir():
        image.unlink()
    (workplace / "held_out" / "cat").rmdir()
    line = f"finetune base.safetensors {QUICK} --steps 1 --p-clean 1 --evaluate-on held_out"
    assert main(line.split()) == 0
    assert ", 3 images\n" in capsys.readouterr().out


def test_other_classes_want_a_new_head(workplace, capsys):
    line = "finetune base.safetensors --data three --output run --no-progress --steps 1 --p-clean 1"
    assert main(line.split()) == 1
    assert "3 class folders" in capsys.readouterr().err
    assert not (workplace / "run").exists()
    assert main(f"{line} --new-head 3".split()) == 0
    assert vl.load("run/model.safetensors").cfg.n_classes == 3


def test_a_bare_state_dict_is_loaded_as_the_architecture_that_is_named(workplace, capsys):
    tiny = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    torch.save(tiny.state_dict(), "bare.pth")
    line = f"finetune bare.pth {QUICK} --steps 1 --p-clean 1 --batch-size 1"
    assert main(line.split()) == 1
    assert "bare state dict" in capsys.readouterr().err
    assert main(f"{line} --architecture vit_tiny_patch16_224 --num-classes 2".split()) == 0


def test_every_field_of_the_recipe_has_an_option():
    assert {field.name for field in dataclasses.fields(FinetuneConfig)} <= options().keys()


def test_what_is_not_given_is_left_to_the_recipe():
    assert config("--conditions contrast@2") == FinetuneConfig(conditions=("contrast@2",))


def test_what_is_given_reaches_the_recipe():
    words = (
        "--conditions fog@1-2 pgd:eps=1/255 --p-clean 0.25 --epochs 2 --batch-size 8 --accumulation-steps 2 "
        "--optimizer sgd --learning-rate 2e-3 --warmup-steps 1 --weight-decay 0.1 --layer-decay 3/4 "
        "--drop-path-rate 0.1 --label-smoothing 0.1 --ema-decay 0.99 --max-grad-norm none "
        "--precision bfloat16 --trainable head norm blocks.1 --loss trades --beta 3 --new-head 4 "
        "--evaluation-conditions clean fog@3 --evaluate-every-steps 5 --checkpoint-every-steps 7 "
        "--snapshot-steps 0 5 --seed 9"
    )
    expected = FinetuneConfig(
        conditions=("fog@1-2", "pgd:eps=1/255"), p_clean=0.25, epochs=2, batch_size=8, accumulation_steps=2,
        optimizer="sgd", learning_rate=2e-3, warmup_steps=1, weight_decay=0.1, layer_decay=0.75,
        drop_path_rate=0.1, label_smoothing=0.1, ema_decay=0.99, max_grad_norm=None, precision="bfloat16",
        trainable=("head", "norm", "blocks.1"), loss=losses.Trades(beta=3), new_head=4,
        evaluation_conditions=("clean", "fog@3"), evaluate_every_steps=5, checkpoint_every_steps=7,
        snapshot_steps=(0, 5), seed=9,
    )  # fmt: skip
    found = config(words)
    assert found == expected
    untouched = {"steps"}  # which epochs exclude
    for field in dataclasses.fields(FinetuneConfig):
        default = getattr(FinetuneConfig(p_clean=1), field.name)
        assert (getattr(found, field.name) == default) == (field.name in untouched), field.name
    assert config("--p-clean 1 --steps 3 --trainable head").trainable == "head"


def test_the_defaults_that_help_tells_are_those_of_the_recipe():
    default = FinetuneConfig(p_clean=1)
    told = {
        name: re.search(r"\(default ([^):]+)", action.help or "")
        for name, action in options().items()
        if hasattr(default, name)
    }
    steps = told.pop("steps")
    assert int(steps[1]) == default.n_steps(1)
    for name, match in told.items():
        expected = FinetuneConfig.p_clean if name == "p_clean" else getattr(default, name)
        if match is None:
            assert expected is None or expected == (), name
        elif name == "loss":
            assert type(expected).__name__.lower() == match[1].replace("_", "")
        elif isinstance(expected, float | int):
            assert float(match[1]) == expected, name
        else:
            assert match[1] == {None: "none", ("clean",): "clean"}.get(expected, expected), name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", losses.CrossEntropy()),
        ("--loss cross_entropy", losses.CrossEntropy()),
        ("--loss adversarial --eps 4/255", losses.Adversarial(eps_pixel=4 / 255)),
        (
            "--loss adversarial --eps 0.5 --alpha 1/255 --attack-steps 3 --norm l2",
            losses.Adversarial(eps_pixel=0.5, alpha_pixel=1 / 255, steps=3, norm="l2"),
        ),
        ("--loss trades --eps 8/255 --beta 1", losses.Trades(eps_pixel=8 / 255, beta=1.0)),
        ("--loss consistency --consistency-weight 6", losses.Consistency(weight=6.0)),
    ],
)
def test_a_loss_is_named_with_its_options(words, expected):
    assert config(f"--conditions contrast@2 {words}").loss == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--conditions contrast@2 --eps 4/255", "--eps is given with the loss cross_entropy"),
        (
            "--conditions contrast@2 --loss adversarial --beta 6",
            "--beta is given with the loss adversarial. Expected: it with the loss trades.",
        ),
        ("--conditions contrst@2", "contrast"),
        ("", "--p-clean"),
        ("--p-clean 1 --steps 2 --epochs 1", "steps"),
        ("--p-clean 1 --num-classes 2", "--num-classes is given without --architecture"),
        ("--p-clean 1 --evaluate-on nowhere", "nowhere"),
        ("--p-clean 1 --frost nowhere", "nowhere"),
        ("--p-clean 1 --log-with nothing", "nothing"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_any_work(workplace, capsys, words, message):
    assert main(f"finetune base.safetensors {QUICK} {words}".split()) == 1
    said = capsys.readouterr().err
    assert said.startswith("vitlens finetune: ")
    assert message in said
    assert "Traceback" not in said
    assert not (workplace / "run").exists()


@pytest.mark.parametrize("words", ["--eps four", "--eps 4/0", "--layer-decay nothing"])
def test_what_is_no_number_is_refused_with_the_option_it_stands_at(workplace, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        main(f"finetune base.safetensors {QUICK} {words}".split())
    assert f"argument {words.split()[0]}: '{words.split()[1]}' is no number" in capsys.readouterr().err


def test_ctrl_c_ends_without_a_traceback_and_says_how_to_go_on(workplace, capsys, monkeypatch):
    def interrupted(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(vl.training, "finetune", interrupted)
    assert main(f"finetune base.safetensors {QUICK} --p-clean 1".split()) == 130
    assert "what was done is in run, and the same command goes on" in capsys.readouterr().err


def test_of_several_processes_one_speaks(workplace, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(f"finetune base.safetensors {QUICK} --steps 1 --p-clean 1".split()) == 0
    assert capsys.readouterr().out == ""


def test_ctrl_c_before_the_steps_ends_without_a_traceback_too(workplace, capsys, monkeypatch):
    monkeypatch.setattr(finetune, "load", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(f"finetune base.safetensors {QUICK} --p-clean 1".split()) == 130
    assert capsys.readouterr().err == "vitlens finetune: stopped.\n"


def test_numbers_of_any_size_are_seeds(workplace):
    words = f"finetune base.safetensors {QUICK} --p-clean 1 --steps 1 --seed 99999999999999999999"
    assert main(words.split()) == 0


def test_a_number_of_workers_that_is_none_is_said_in_one_line(workplace, capsys):
    assert main(f"finetune base.safetensors {QUICK} --p-clean 1 --num-workers -1".split()) == 1
    assert "--num-workers is -1" in capsys.readouterr().err
