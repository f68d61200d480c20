"""The calls on the page about commands, as a reader would type them."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

import vitlens as vl
from vitlens.cli import main
from vitlens.cli.main import _COMMANDS

from .made import model, photographs

QUICK = {
    "compare": "--no-progress",
    "evaluate": "--no-progress",
    "finetune": "--no-progress --steps 2 --batch-size 4",
    "train-sae": "--no-progress --batch-size 16 --n-tokens 320 --k-per-token 4",
}
"""What the page leaves to the defaults, which are made for larger models."""

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def calls():
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines()]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the checkpoints, photographs and photo that the page names."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("base", "tuned")):
        vl.save(model(seed, patch_size=8, depth=10), f"{name}.safetensors")
    photographs([tmp_path / "photographs" / name for name in ("base", "tuned")], 4)
    (tmp_path / "held_out").symlink_to("photographs")
    with Image.open("photographs/base/0.png") as photo:
        photo.save("photo.jpg")
    return tmp_path


def test_the_calls_on_the_page_do_what_it_says(workplace, capsys):
    for program, *arguments in calls():
        assert program == "vitlens"
        quick = QUICK.get(arguments[0], "").split()
        assert main([*arguments, *quick]) == 0, (arguments, capsys.readouterr().err)
    written = (
        "report.html report.data/summary.csv accuracy.csv accuracy.data blur/model.safetensors sheet.html"
    )
    for path in [
        *written.split(),
        *(f"saes/{name}/evaluation.json" for name in ("base-0", "base-1", "tuned-2")),
    ]:
        assert Path(path).exists(), path
    scales = {vl.saes.load(f"saes/{name}").cfg.metadata.activation_scale for name in ("base-0", "tuned-2")}
    assert len(scales) == 1


def test_every_command_has_its_section_and_its_call():
    sections = re.findall(r"^## (\S+)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert sections == list(_COMMANDS)
    assert {arguments[1] for arguments in calls()} == set(_COMMANDS)
