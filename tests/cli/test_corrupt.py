"""`vitlens corrupt`, as it is typed."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitlens.cli import main
from vitlens.images.corruptions import catalogue, registry


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    small.resize((120, 90), Image.Resampling.BICUBIC).save(path)
    return path


def test_a_sheet_is_written_and_its_path_said(photo, tmp_path, capsys):
    output = tmp_path / "sheet.html"
    assert main(["corrupt", str(photo), "--output", str(output), "--only", "contrast", "--size", "32"]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    page = output.read_text(encoding="utf-8")
    assert "32 × 32 pixels" in page
    assert page.count("<figure") == 6


def test_size_zero_keeps_the_photograph_as_it_is(photo, tmp_path):
    output = tmp_path / "sheet.html"
    assert main(["corrupt", str(photo), "--output", str(output), "--only", "contrast", "--size", "0"]) == 0
    assert "90 × 120 pixels" in output.read_text(encoding="utf-8")


def test_a_folder_of_frost_is_used(photo, tmp_path, monkeypatch):
    bare = next(spec for spec in catalogue.IMAGENET_C if spec.name == "frost")
    monkeypatch.setitem(registry._REGISTERED, "frost", bare)
    folder = tmp_path / "frost"
    folder.mkdir()
    Image.new("RGB", (64, 64), "white").save(folder / "1.png")
    output = tmp_path / "sheet.html"
    given = ["corrupt", str(photo), "--output", str(output), "--only", "frost", "--size", "32"]
    assert main([*given, "--frost", str(folder)]) == 0
    assert "corruption-frost" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg"], "cannot be read as an image"),
        (["{photo}", "--only", "contrst"], "no corruption 'contrst'"),
        (["{photo}", "--size", "3"], "--size is 3"),
        (["{photo}", "--jpeg-quality", "300", "--only", "contrast"], "300"),
        (["{photo}", "--frost", "nowhere"], "nowhere"),
        (["{photo}", "--only", "frost"], "Name a folder of photographs: --frost DIR.\n"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(photo, tmp_path, capsys, arguments, message):
    output = tmp_path / "sheet.html"
    given = [argument.format(photo=photo) for argument in arguments]
    assert main(["corrupt", *given, "--output", str(output)]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("vitlens corrupt: ")
    assert "Traceback" not in said
    assert not output.exists()


def test_the_command_is_installed():
    command = Path(sys.executable).parent / "vitlens"
    result = subprocess.run([command, "corrupt", "--help"], capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "--output FILE" in result.stdout


@pytest.mark.parametrize("output", [".", "missing/sheet.html"])
def test_an_output_that_cannot_be_written_is_refused_before_the_work(photo, tmp_path, capsys, output):
    assert main(["corrupt", str(photo), "--output", str(tmp_path / output)]) == 1
    said = capsys.readouterr().err
    assert "Expected: a file in a folder that is there" in said
    assert "picture" not in said


def test_no_file_but_a_page_of_vitlens_is_written_over(photo, capsys):
    assert main(["corrupt", str(photo), "--output", str(photo), "--only", "contrast"]) == 1
    assert "a file that vitlens did not write" in capsys.readouterr().err
    page = photo.with_name("sheet.html")
    for _ in range(2):
        line = ["corrupt", str(photo), "--output", str(page), "--only", "contrast", "--size", "32"]
        assert main(line) == 0
