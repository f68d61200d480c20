"""The contact sheet: whole, self-contained, and honest about what is missing."""

import re

import pytest
import torch

from vitlens.errors import ConditionError, PixelError
from vitlens.images import Corruption
from vitlens.images.corruptions import catalogue, registry
from vitlens.report import corruption_sheet

NAMES = ["gaussian_noise", "contrast", "gaussian_blur"]


def photo():
    """A slope with grain, in colors."""
    grain = torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0))
    return (0.6 * torch.linspace(0, 1, 48).expand(3, 40, 48) + 0.4 * grain).clamp(0, 1)


def sheet(tmp_path, names=NAMES, **keywords):
    path = corruption_sheet.write(photo(), tmp_path / "sheet.html", names=names, progress=False, **keywords)
    return path.read_text(encoding="utf-8")


def test_every_corruption_stands_under_its_family_with_five_pictures(tmp_path):
    page = sheet(tmp_path)
    assert page.count("<figure") == 1 + 5 * len(NAMES)
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["Noise", "Tone", "Blur"]
    assert re.findall(r"<h3 id=.*?>(.*?)</h3>", page) == NAMES
    assert "sigma 0.08, 0.12, 0.18, 0.26, 0.38 · drawn at random" in page


def test_the_page_asks_nothing_of_the_network_and_is_the_same_every_time(tmp_path):
    page = sheet(tmp_path)
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert sheet(tmp_path) == page
    assert sheet(tmp_path, seed=1) != page


def test_what_lacks_its_photographs_is_named_and_not_shown(tmp_path, monkeypatch):
    bare = next(spec for spec in catalogue.IMAGENET_C if spec.name == "frost")
    monkeypatch.setitem(registry._REGISTERED, "frost", bare)
    assert "Not shown: frost, whose photographs are missing." in sheet(tmp_path, ["contrast", "frost"])
    with pytest.raises(ConditionError, match="No corruption is left to show"):
        sheet(tmp_path, ["frost"])


def test_names_of_ones_own_cannot_break_the_page(tmp_path, monkeypatch):
    spec = Corruption(
        "mine", ((1.0,),) * 5, ("<b>",), "<script>alert(1)</script>", lambda pixels, factor: pixels
    )
    monkeypatch.setitem(registry._REGISTERED, "mine", spec)
    page = sheet(tmp_path, ["mine"], image_id="<i>photo</i>")
    assert "alert(1)</script>" not in page
    assert "<i>photo" not in page
    assert "rms 0" in page


def test_what_is_no_image_or_no_corruption_is_refused_before_a_file_is_written(tmp_path):
    with pytest.raises(ConditionError, match="no corruption 'contrst'"):
        sheet(tmp_path, ["contrst"])
    with pytest.raises(PixelError, match="go from 2 to 2"):
        corruption_sheet.write(torch.full((3, 8, 8), 2.0), tmp_path / "sheet.html", progress=False)
    assert not list(tmp_path.iterdir())
