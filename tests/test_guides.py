"""The first page, the start, the guides and the concepts: their code runs, their drawings are true."""

import re
import runpy
import shlex
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import timm
import torch
import xarray as xr
from timm.models.vision_transformer import ParallelScalingBlock
from two_processes import start_two

import vitlens as vl
from vitlens.cli import main

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["concepts.md", *sorted(f"guides/{path.name}" for path in (DOCS / "guides").glob("*.md"))]
BY_TWO = "guides/many_processes.md"


def blocks(page, language="python"):
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.M | re.S)


def execute(page, *changes):
    """Run a page's blocks one after the other, as a reader would type them."""
    names = {"__name__": "page"}
    for block in blocks(page):
        for given, quick in changes:
            block = block.replace(given, quick)
        exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.parametrize("page", [page for page in PAGES if page != BY_TWO])
def test_the_code_of_a_guide_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert blocks(page)
    execute(page)


def test_the_code_of_the_start_runs(workplace):
    (workplace / "tuned.pth").write_bytes((workplace / "base.pth").read_bytes())
    quick = [("steps=300", "steps=2"), ("warmup_steps=20", "warmup_steps=1"), ("steps=150", "steps=1")]
    quick += [('vl.images.digits("test")', "few()"), ("import timm,", FEW)]
    names = execute("start.md", *quick)
    assert names["comparison"].data.sizes["condition"] == 3
    assert (workplace / "report.html").exists()
    assert names["inside"].data["resid_cosine"].min() > 0.999  # the same weights twice


FEW = """def few():
    return [vl.images.digits("train")[i] for i in range(40)]


import timm,"""


def test_the_command_of_the_start_compares_two_bare_files(workplace, capsys):
    (workplace / "tuned.pth").write_bytes((workplace / "base.pth").read_bytes())
    calls = [
        shlex.split(line)
        for block in blocks("start.md", "sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("vitlens")
    ]
    (call,) = calls
    assert main([*call[1:], "--no-progress", "--analyses", "prediction"]) == 0, capsys.readouterr().err
    assert (workplace / "report.html").exists()


def test_the_calls_of_the_first_page_run(workplace, capsys):
    torch.manual_seed(0)
    vl.save(
        timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=2),
        "deit_tiny.safetensors",
    )
    (workplace / "train").symlink_to("photographs")
    (block,) = blocks("index.md", "sh")
    calls = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [call[0] for call in calls] == [*["vitlens"] * 4, "python"]
    quick = {
        "finetune": ["--steps", "2", "--batch-size", "2", "--warmup-steps", "1"],
        "compare": ["--n-images", "4"],
    }
    for _, *call in calls[:-1]:
        assert main([*call, "--no-progress", *quick[call[0]]]) == 0, capsys.readouterr().err
    assert (DOCS.parent / calls[-1][1]).exists()
    draw = runpy.run_path(str(DOCS.parent / calls[-1][1]))["main"]
    draw(vl.Comparison.load(calls[-1][2]), workplace)
    assert "gaussian_blur@3" in (workplace / "first_accuracy.svg").read_text(encoding="utf-8")


ERRORS = {
    "holds other objects than tensors": lambda: (
        torch.save(timm.create_model("vit_tiny_patch16_224", depth=1), "whole.pth"),
        vl.load("whole.pth", architecture="vit_tiny_patch16_224"),
    ),
    "does not say its architecture": lambda: vl.load("base.pth"),
    "Its images are of 96×96 pixels and its head has 10 classes: pass img_size=96, num_classes=10": lambda: (
        torch.save(
            timm.create_model("deit_tiny_patch16_224", img_size=96, num_classes=10).state_dict(), "ten.pth"
        ),
        vl.load("ten.pth", architecture="deit_tiny_patch16_224"),
    ),
    r"2 missing (head.bias, head.weight)": lambda: (
        torch.save(timm.create_model("deit_tiny_patch16_224", num_classes=0).state_dict(), "none.pth"),
        vl.load("none.pth", architecture="deit_tiny_patch16_224"),
    ),
    "of different architectures (n_classes 1000 and 10)": lambda: vl.compare(
        {
            name: vl.HookedViT.from_timm("deit_tiny_patch16_224", num_classes=n)
            for name, n in {"base": 1000, "tuned": 10}.items()
        },
        [],
    ),
    "has no folders in it": lambda: vl.images.folder(
        "photographs/n01440764", vl.HookedViT.from_timm("deit_tiny_patch16_224")
    ),
}


@pytest.mark.parametrize("said", ERRORS)
def test_the_start_quotes_errors_as_they_are(said, workplace):
    assert f"*{said}*" in (DOCS / "start.md").read_text(encoding="utf-8")
    with pytest.raises(vl.errors.VitlensError, match=re.escape(said)):
        ERRORS[said]()


def test_averaged_weights_are_taken_where_a_file_has_both(workplace):
    state = torch.load("base.pth")
    average = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"model": state, "model_ema": average}, "both.pth")
    loaded = vl.load("both.pth", architecture="deit_tiny_patch16_224")
    assert torch.equal(loaded.model.head.bias, average["head.bias"])


def test_the_script_for_many_processes_gives_in_two_what_it_gives_in_one(tmp_path, monkeypatch, capsys):
    (script,) = blocks(BY_TWO)
    monkeypatch.chdir(tmp_path)
    for process in start_two(script):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    by_two = execute(BY_TWO)["data"]  # complete, and read back
    alone = tmp_path / "alone"
    alone.mkdir()
    monkeypatch.chdir(alone)
    xr.testing.assert_identical(by_two, execute(BY_TWO)["data"])


# ---------------------------------------------------------------------- drawings


DRAWN = {
    "hooks_pre_norm.svg": lambda: timm.models.VisionTransformer(depth=1, embed_dim=32, num_heads=4),
    "hooks_parallel.svg": lambda: timm.models.VisionTransformer(
        depth=1, embed_dim=32, num_heads=4, block_fn=ParallelScalingBlock
    ),
    "hooks_eva.svg": lambda: timm.create_model("eva02_tiny_patch14_224", depth=1),
}


def hooks_of(picture):
    found = ElementTree.parse(DOCS / "figures" / picture).iter("{http://www.w3.org/2000/svg}text")
    return [element.text for element in found if element.get("class") == "hook"]


@pytest.mark.parametrize("picture", DRAWN)
def test_a_diagram_has_every_hook_of_its_block_and_no_other(picture):
    model = vl.HookedViT(DRAWN[picture]())
    inside = {name.removeprefix("blocks.0.") for name in model.hook_names if name.startswith("blocks.0.")}
    assert sorted(hooks_of(picture)) == sorted(inside)


@pytest.mark.parametrize("picture", ["hooks_pre_norm.svg", "hooks_eva.svg"])
def test_a_diagram_has_the_hooks_in_the_order_in_which_they_fire(picture):
    model, fired = vl.HookedViT(DRAWN[picture]().eval()), []
    names = [f"blocks.0.{name}" for name in hooks_of(picture)]

    def seen(name):
        return lambda activation: fired.append(name)

    with torch.no_grad(), model.observing({name: seen(name) for name in names}):
        model(torch.zeros(1, 3, *model.cfg.image_size))
    assert fired == names


def test_the_diagrams_are_what_their_script_draws():
    for name, picture in runpy.run_path(str(DOCS / "figures" / "diagrams.py"))["drawn"]().items():
        assert (DOCS / "figures" / name).read_text(encoding="utf-8") == picture, name


def test_drawings_are_small_and_take_the_colors_of_the_page():
    for path in (DOCS / "figures").glob("*.svg"):
        assert path.stat().st_size < 80_000
        assert "currentColor" in path.read_text(encoding="utf-8")
