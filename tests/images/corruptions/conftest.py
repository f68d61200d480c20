"""Frost for the tests: photographs that are drawn."""

import pytest
import torch
from PIL import Image

from vitlens.images import frost
from vitlens.images.corruptions import registry


@pytest.fixture(scope="session")
def frost_folder(tmp_path_factory):
    """Three pictures of bright streaks on dark ground, larger than the test images and not square."""
    folder = tmp_path_factory.mktemp("frost")
    generator = torch.Generator().manual_seed(0)
    for number, (height, width) in enumerate([(300, 280), (260, 400), (240, 240)]):
        coarse = torch.rand(height // 20, width // 20, generator=generator)
        streaks = Image.fromarray((coarse.pow(3) * 255).byte().numpy())
        streaks.resize((width, height), Image.Resampling.BICUBIC).convert("RGB").save(
            folder / f"{number}.png"
        )
    return folder


@pytest.fixture(scope="module", autouse=True)
def with_frost(frost_folder):
    """Frost as if its folder had been registered: for this folder's tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry._REGISTERED, "frost", frost(frost_folder))
        yield
