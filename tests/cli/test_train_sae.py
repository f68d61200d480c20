"""`vitlens train-sae`, as it is typed."""

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import vitlens as vl
from vitlens.cli import main, sae_settings, train_sae
from vitlens.saes.storage import sealed

from .made import model, photographs

ROOT = Path(__file__).parents[2]
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with two checkpoints for two classes and images of them."""
    monkeypatch.chdir(tmp_path)
    vl.save(model(0, patch_size=8), "base.safetensors")
    vl.save(model(1, patch_size=8), "tuned.safetensors")
    photographs([tmp_path / "data" / name for name in ("cat", "dog")], 8)
    photographs(
        [tmp_path / name for name in ("others/cat", "others/dog", "three/a", "three/b", "three/c")], 2
    )
    return tmp_path


QUICK = "--batch-size 16 --n-tokens 480 --k-per-token 3 --expansion 2"
LINE = f"train-sae base.safetensors --data data --hook {HOOK} --output saes/a --no-progress {QUICK}"


def same(sae, other):
    assert sae.state_dict().keys() == other.state_dict().keys()
    for name, weights in sae.state_dict().items():
        assert torch.equal(weights, other.state_dict()[name]), name
    assert sae.cfg.metadata.to_dict() == other.cfg.metadata.to_dict()


def by_hand(images, **settings):
    """The SAE of the same call in Python."""
    base = vl.load("base.safetensors")
    store = vl.saes.ActivationStore.write("mine", base, images, hook_names=[HOOK], progress=False)
    quick = {"batch_size": 16, "n_tokens": 480, "k_per_token": 3, "d_sae": 32}
    return base, store, vl.saes.train(store[HOOK], **quick | settings, progress=False)


def test_what_is_trained_and_evaluated_is_what_python_trains_and_evaluates(workplace, capsys):
    assert main(f"{LINE} --seed 3".split()) == 0
    images = vl.images.folder("data", model(0))
    base, store, wanted = by_hand(images, seed=3)
    sae = vl.saes.load("saes/a")
    same(sae, wanted)

    held = store[HOOK].split(sae.cfg.metadata.n_holdout_tokens, seed=3)[1].image_ids
    assert len(held) == 2  # a tenth of 16 images' tokens, in whole images
    shown = [item for item in images if item["image_id"] in held]
    table = vl.saes.evaluate(wanted, base, shown, progress=False).summary()
    written = json.loads((workplace / "saes/a/evaluation.json").read_text())
    assert written["images"] == {"of": "data", "n": 2}
    assert written["call"].startswith("vitlens train-sae base.safetensors --data data")
    assert len(written["figures"]) == len(table)
    for found, row in zip(written["figures"], table.to_dict("records"), strict=True):
        for name, value in row.items():
            assert found[name] == (None if value != value else value), (row["metric"], name)

    said = capsys.readouterr().out
    assert said.startswith(f"batch_topk of 32 features, 3 active per token, on patch tokens of {HOOK}, ")
    l0 = table.set_index("metric").loc["l0"]
    assert f"[{l0['ci_low']:.3f}, {l0['ci_high']:.3f}]" in said
    assert "95 % intervals over 2 images (held-out images)" in said
    assert said.splitlines()[-3:] == [
        "evaluation, every figure: saes/a/evaluation.json",
        "activations: saes/a.store",
        "sparse autoencoder: saes/a",
    ]


def test_other_images_can_be_evaluated_on(workplace, capsys):
    assert main([*LINE.split(), "--evaluate-on", "others", "--conditions", "clean", "contrast@2"]) == 0
    written = json.loads((workplace / "saes/a/evaluation.json").read_text())
    assert written["images"] == {"of": "others", "n": 4}
    base, sae = vl.load("base.safetensors"), vl.saes.load("saes/a")
    images = vl.images.folder("others", base)
    table = vl.saes.evaluate(sae, base, images, conditions=["clean", "contrast@2"], progress=False).summary()
    assert [row["value"] for row in written["figures"]] == [
        None if value != value else value for value in table["value"]
    ]
    head = next(line for line in capsys.readouterr().out.splitlines() if "clean, patch" in line)
    assert "contrast@2, patch" in head


def test_seeds_share_a_store_and_a_tuned_checkpoint_takes_the_bases_scale(workplace, capsys):
    assert main(LINE.split()) == 0
    line = LINE.replace("saes/a", "saes/b")
    written = {path: path.stat().st_mtime_ns for path in Path("saes/a.store").iterdir()}
    assert main(f"{line} --seed 1 --store saes/a.store".split()) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("saes/a.store").iterdir()} == written
    assert not Path("saes/b.store").exists()
    scale = vl.saes.load("saes/a").cfg.metadata.activation_scale
    assert vl.saes.load("saes/b").cfg.metadata.activation_scale == scale
    capsys.readouterr()

    tuned = LINE.replace("base.safetensors", "tuned.safetensors")
    assert main(f"{tuned.replace('saes/a', 'saes/own')} --seed 2".split()) == 0
    assert vl.saes.load("saes/own").cfg.metadata.activation_scale != scale
    assert main(f"{tuned.replace('saes/a', 'saes/c')} --seed 2 --scale-of saes/a".split()) == 0
    assert vl.saes.load("saes/c").cfg.metadata.activation_scale == scale
    assert capsys.readouterr().err == ""
    assert main(f"{tuned.replace('saes/a', 'saes/d')} --scale-of saes/a".split()) == 0
    assert "saes/a has the seed 0 too" in capsys.readouterr().err

    assert main(f"{tuned.replace('saes/a', 'saes/e')} --store saes/a.store".split()) == 1
    said = capsys.readouterr().err
    assert "saes/a.store holds other activations" in said
    assert "weights_sha256" in said


def test_a_kind_has_its_own_settings(workplace):
    line = LINE.replace(" --k-per-token 3", "").replace("--expansion 2", "--d-sae 24")
    assert (
        main(f"{line} --kind jumprelu --options l0_coefficient=0.5 --tokens cls --batch-size 8".split()) == 0
    )
    sae = vl.saes.load("saes/a")
    assert (sae.cfg.d_sae, sae.cfg.metadata.kind, sae.cfg.metadata.tokens) == (24, "jumprelu", "cls")
    assert sae.cfg.metadata.options == {"l0_coefficient": 0.5}


def test_a_model_without_a_classifier_is_evaluated_without_splicing(workplace, capsys):
    vl.save(model(0, num_classes=0), "headless.safetensors")
    assert main(LINE.replace("base.safetensors", "headless.safetensors").split()) == 0
    said = capsys.readouterr().out
    assert "variance unexplained" in said
    assert "accuracy" not in said


NURSERY = """
import json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from vitlens.cli import main
import vitlens.saes

draw = random.Random(0)
killed = []
for sign in (".store", "/run.json", "/state.safetensors", "/cfg.json", "/evaluation"):
    child = os.fork()  # sparing the time to import everything again
    if child == 0:
        os._exit(main(sys.argv[1:]))
    at_end = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while not os.path.exists("saes/a" + sign) and not os.waitid(os.P_PID, child, at_end):
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.05))
    os.kill(child, signal.SIGKILL)
    killed.append(os.WIFSIGNALED(os.waitpid(child, 0)[1]))
print(json.dumps(killed))
"""


def test_a_command_killed_at_any_stage_ends_with_the_same_autoencoder(workplace, monkeypatch):
    settings = "--n-tokens 3200 --n-holdout-tokens 32 --save-every-seconds 0.1 --n-images-per-pass 2"
    line = f"{LINE} {settings} --conditions clean gaussian_noise@3"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    nursery = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", NURSERY, *line.split()],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    killed = json.loads(nursery.stdout.splitlines()[-1])
    assert killed[:3] == [True] * 3  # as it stored, as it began to train, and as it trained
    assert main(line.split()) == 0
    files = ["sae_weights.safetensors", "cfg.json", "run.json", "evaluation.json"]
    ended = {name: Path("saes/a", name).read_bytes() for name in files}
    assert not list(Path("saes").rglob("*.part"))
    Path("unbroken").mkdir()
    for name in ("base.safetensors", "data"):
        Path("unbroken", name).symlink_to(workplace / name)
    monkeypatch.chdir("unbroken")
    assert main(line.split()) == 0
    for name in files:
        assert Path("saes/a", name).read_bytes() == ended[name], name


def test_the_same_command_reads_back_what_is_done(workplace, capsys, monkeypatch):
    assert main(LINE.split()) == 0
    said = capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in Path("saes").rglob("*.safetensors")}
    assert main(LINE.split()) == 0
    assert capsys.readouterr().out == said
    assert {path: path.stat().st_mtime_ns for path in Path("saes").rglob("*.safetensors")} == written
    assert main(f"{LINE} --learning-rate 0.001".split()) == 1
    said = capsys.readouterr().err
    assert "saes/a holds another training (arguments.learning_rate: None there, 0.001 now)" in said
    assert "Name another --output" in said


def test_ctrl_c_says_that_the_command_goes_on(workplace, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(vl.saes, "train", stopped)
    assert main(LINE.split()) == 130
    assert capsys.readouterr().err == (
        "vitlens train-sae: stopped; what was done is in saes/a.store and saes/a, and the same command goes "
        "on.\n"
    )


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ("--hook blocks.1.hook_resid_pots", "'blocks.1.hook_resid_pots' is not a hook.*nearest: "
         "'blocks.1.hook_resid_post'.*hook_names lists them"),
        ("--hook blocks.0.attn.hook_z", r"'blocks.0.attn.hook_z' is \(1, 17, 2, 8\)"),
        ("--tokens register", "no 'register' token"),
        ("--kind batchtopk", "--kind is 'batchtopk'.*nearest is 'batch_topk'"),
        ("--kind vanilla", "--k-per-token is given with the kind vanilla.*batch_topk or topk or matryoshka"),
        ("--l1-coefficient 2", "--l1-coefficient is given with the kind batch_topk.*vanilla"),
        ("--k-per-token 33", "--k-per-token is 33 and --d-sae 32.*Lower --k-per-token"),
        ("--learning-rate -1", "--learning-rate is -1"),
        ("--learning-rate nan", "--learning-rate is nan"),
        ("--batch-size 0", "--batch-size is 0.*Pass --batch-size 4096"),
        ("--batch-size 300", "has 256 tokens.*lower --batch-size"),
        ("--n-tokens 100000", "--n-tokens is 100000: 446 epochs.*lower --n-tokens"),
        ("--n-images 1", "has 16 tokens"),
        ("--n-images 1 --batch-size 8", "have 0 tokens"),
        ("--n-holdout-tokens 1", "--n-holdout-tokens is 1"),
        ("--options l0_coeficient=2", "'l0_coeficient' is no option of kind 'batch_topk'"),
        ("--options aux_loss_coefficient=much", "The option 'aux_loss_coefficient' is 'much'"),
        ("--options x", "--options is given 'x'.*NAME=VALUE"),
        ("--options a=1 a=2", "--options is given 'a=2', and 'a' before"),
        ("--store-dtype float8", "--store-dtype is 'float8'"),
        ("--conditions gausian_blur@3", "gaussian_blur"),
        ("--conditions pgd:on=base", "attacks the checkpoint 'base'"),
        ("--data missing", "missing does not exist"),
        ("--data three", "3 class folders"),
        ("--evaluate-on three", "The class folder 'a' is none of the 2 known classes"),
        ("--num-classes 2", "--num-classes is given without --architecture"),
        ("--device nowhere", "--device is nowhere"),
        ("--frost nowhere", "nowhere"),
        ("--output .", r"--output is \..*such as saes/base-0"),
        ("--output data", "data exists and holds no training.*Name another --output"),
        ("--output base.safetensors", "base.safetensors exists and holds no training"),
        ("--store saes/a", "--store and --output are both saes/a"),
        ("--store data", "data holds files and no manifest.json"),
        ("--scale-of missing", "missing/cfg.json cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_in_one_line_before_the_work(workplace, capsys, further, message):
    assert main([*LINE.split(), *further.split()]) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert said.startswith("vitlens train-sae: ")
    assert said.count("\n") == 1
    assert not (workplace / "saes").exists()


def test_a_scale_is_taken_of_the_same_place_alone(workplace, capsys):
    assert main(LINE.split()) == 0
    other = LINE.replace("saes/a", "saes/b")
    for further in ("--tokens cls --batch-size 8", "--hook blocks.0.hook_resid_post"):
        assert main(f"{other} --scale-of saes/a {further}".split()) == 1
        said = capsys.readouterr().err
        assert f"--scale-of saes/a reads patch tokens of '{HOOK}' (16 wide)" in said
        assert not Path("saes/b.store").exists()
    config = json.loads(Path("saes/a/cfg.json").read_text())
    del config["metadata"]["activation_scale"]
    Path("saes/a/cfg.json").write_text(json.dumps(sealed(config)))
    assert main(f"{other} --scale-of saes/a".split()) == 1
    assert "does not say by which factor" in capsys.readouterr().err


def test_several_processes_are_refused(workplace, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(LINE.split()) == 1
    assert "The command runs in 2 processes. Expected: a single one." in capsys.readouterr().err


@pytest.mark.parametrize(
    "further", ["--batch-size x", "--seed -1", "--n-images 0", "--learning-rate x", "--d-sae 8", "--oops"]
)
def test_what_is_not_understood_exits_with_2(workplace, capsys, further):
    with pytest.raises(SystemExit) as stopped:
        main([*LINE.split(), *further.split()])
    assert stopped.value.code == 2
    assert further.split()[0] in capsys.readouterr().err


def options():
    parser = argparse.ArgumentParser()
    train_sae.add_arguments(parser)
    return {action.dest: action for action in parser._actions}


def test_the_defaults_that_the_help_tells_are_those_of_the_library():
    train = inspect.signature(vl.saes.train).parameters
    write = inspect.signature(vl.saes.ActivationStore.write).parameters
    evaluate = inspect.signature(vl.saes.evaluate).parameters
    named = {"store_dtype": write["dtype"], "n_images_per_pass": write["batch_size"]}
    assert write["batch_size"].default == evaluate["batch_size"].default
    for name, action in options().items():
        parameter = named.get(name) or train.get(name)
        told = re.search(r"\(default ([^)]+)\)", action.help)
        if parameter is None or name in ("options", "d_sae"):
            continue
        expected = parameter.default
        if told is None:
            assert expected is None or name == "conditions", name
        elif isinstance(expected, float | int):
            assert float(told[1]) == expected, name
        else:
            assert told[1] == {("clean",): "clean"}.get(expected, expected), name
        assert action.default in (argparse.SUPPRESS, expected, ["clean"]), name


def test_the_help_is_legible_and_its_calls_are_understood(capsys):
    with pytest.raises(SystemExit):
        main(["train-sae", "--help"])
    page = capsys.readouterr().out
    assert max(map(len, page.splitlines())) <= 110
    parser = argparse.ArgumentParser()
    train_sae.add_arguments(parser)
    calls = [call for call in train_sae.EPILOG.replace("\\\n", " ").splitlines() if "--data" in call]
    assert len(calls) == 3
    for call in calls:
        parser.parse_args(call.split()[2:])


def test_every_kind_is_in_the_help():
    for kind in vl.saes.kinds.KINDS:
        assert kind in options()["kind"].help


def test_values_of_options_are_json_or_words():
    assert sae_settings.parsed_options(["a=[1, 2]", "b=true", "c=step"]) == {
        "a": [1, 2],
        "b": True,
        "c": "step",
    }
