"""Frost, and the folder of its photographs."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from vitlens.errors import ConditionError, DatasetError
from vitlens.images import CORRUPTIONS
from vitlens.images.corruptions.frost import frost, frosted, needs_photographs

from ..conftest import textured


def streams(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def photograph(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Every crop of it is another one."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture
def folder(tmp_path):
    for name, size, seed in (("b.PNG", (40, 50), 1), ("a.png", (60, 45), 2)):
        Image.fromarray(photograph(*size, seed).permute(1, 2, 0).numpy()).save(tmp_path / name)
    (tmp_path / ".hidden.png").write_text("no image")
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def places(crop: torch.Tensor, source: torch.Tensor) -> list[tuple[int, int]]:
    """Where in `source` the crop was taken."""
    _, height, width = crop.shape
    tops, lefts = (
        range(whole - part + 1) for whole, part in zip(source.shape[1:], (height, width), strict=True)
    )
    return [
        (top, left)
        for top in tops
        for left in lefts
        if torch.equal(source[:, top : top + height, left : left + width], crop)
    ]


@pytest.mark.parametrize("severity", range(1, 6))
def test_frost_is_a_weighted_sum_of_the_image_and_a_crop(severity):
    a, b = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[severity - 1]
    pixels, source = textured(3, 20, 31), photograph(50, 60)
    result = frosted(pixels, streams(3), [source], *CORRUPTIONS["frost"].parameters[severity - 1])
    crops = (255 * (result.double() - a * pixels.double()) / b).round().byte()
    assert ((255 * (result - a * pixels) / b) - crops).abs().max() < 1e-3
    assert all(len(places(crop, source)) == 1 for crop in crops)


def test_every_photograph_and_every_place_is_as_likely_as_any_other():
    sources = [photograph(5, 4, seed) for seed in range(3)]
    black = torch.zeros(1200, 3, 3, 3)
    crops = (frosted(black, streams(1200), sources, 1.0, 1.0) * 255).round().byte()
    counts = [
        sum(torch.equal(crop, source[:, top : top + 3, left : left + 3]) for crop in crops)
        for source in sources
        for top in range(3)
        for left in range(2)
    ]
    assert sum(counts) == 1200
    assert all(abs(count - 1200 / 18) < 4 * (1200 / 18) ** 0.5 for count in counts)


def test_a_photograph_of_the_images_size_is_taken_whole():
    source = photograph(16, 20)
    result = frosted(torch.zeros(1, 3, 16, 20), streams(1), [source], 0.6, 0.75)
    torch.testing.assert_close(result[0], source / 255 * 0.75)


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (13, 17)])
def test_a_photograph_smaller_than_the_image_is_enlarged_until_it_covers_it(size):
    slope = torch.linspace(0, 255, size[1]).round().byte().expand(3, *size)
    crop = frosted(torch.zeros(1, 3, 30, 30), streams(1), [slope], 1.0, 1.0)[0] * 255
    factor = max(30 / size[0], 30 / size[1])
    assert crop.shape == (3, 30, 30)
    # Enlarged by one factor in both directions: the slope is the photograph's, divided by it.
    middle = crop[0, 15, 5:25].diff().mean().item()
    assert middle == pytest.approx(255 / (size[1] - 1) / factor, rel=0.1)


def test_the_folders_photographs_are_taken_in_the_order_of_their_names(folder):
    corruption = frost(folder)
    result = corruption.apply(torch.zeros(40, 3, 30, 30), streams(40), 1.0, 1.0)
    expected = frosted(
        torch.zeros(40, 3, 30, 30), streams(40), [photograph(60, 45, 2), photograph(40, 50, 1)], 1.0, 1.0
    )
    assert torch.equal(result, expected)


def test_frost_of_a_folder_is_the_catalogues_frost_made_ready(folder):
    corruption, unbound = frost(folder), CORRUPTIONS["frost"]
    assert corruption.is_ready
    assert corruption.stochastic
    assert (corruption.name, corruption.parameters) == ("frost", unbound.parameters)
    assert len(corruption.assets) == 64
    assert "tensor" not in repr(corruption)


def test_assets_name_the_contents_and_their_order(folder):
    first = frost(folder).assets
    assert frost(str(folder)).assets == first
    (folder / "notes.txt").write_text("others")
    assert frost(folder).assets == first
    (folder / "a.png").rename(folder / "c.png")
    assert frost(folder).assets != first
    (folder / "c.png").rename(folder / "a.png")
    assert frost(folder).assets == first
    Image.new("RGB", (30, 30)).save(folder / "a.png")
    assert frost(folder).assets != first


def test_it_can_be_sent_to_another_process(folder):
    corruption = frost(folder)
    pixels = textured(2, 16, 16)
    expected = corruption.apply(pixels, streams(2), 0.7, 0.7)
    for other in (pickle.loads(pickle.dumps(corruption)), copy.deepcopy(corruption)):
        assert torch.equal(other.apply(pixels, streams(2), 0.7, 0.7), expected)


def test_gradients_of_the_image_are_its_share():
    pixels = textured(1, 16, 16).requires_grad_()
    (gradient,) = torch.autograd.grad(
        frosted(pixels, streams(1), [photograph(20, 20)], 0.7, 0.7).sum(), pixels
    )
    assert np.unique(gradient).tolist() == pytest.approx([0.7])


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(
        DatasetError, match=r"folder .*nowhere does not exist\. Expected: a folder with photo"
    ):
        frost(tmp_path / "nowhere")


def test_a_folder_without_images_says_which_names_count(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DatasetError, match=r"has no images in it.*\.jpg.*in the folder itself"):
        frost(tmp_path)


def test_a_file_that_cannot_be_read_is_named(folder):
    (folder / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"broken\.jpg cannot be read as an image"):
        frost(folder)


def test_without_photographs_frost_says_what_to_write():
    with pytest.raises(ConditionError, match=r"without photographs.*vitlens\.images\.frost\(FOLDER\)"):
        needs_photographs(textured(1, 16, 16), streams(1), 1.0, 0.4)
