"""JPEG against Pillow, to the last level."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from vitlens.errors import ConditionError
from vitlens.images import corrupt
from vitlens.images.corruptions.jpeg import check_quality, jpeg

from ..conftest import textured


def by_pillow(pixels: torch.Tensor, quality: int) -> torch.Tensor:
    images = []
    for image in pixels:
        buffer = io.BytesIO()
        array = np.round(image.permute(1, 2, 0).double().numpy() * 255).astype(np.uint8)
        Image.fromarray(array).save(buffer, "JPEG", quality=quality)
        images.append(np.array(Image.open(buffer)))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def levels(pixels: torch.Tensor) -> torch.Tensor:
    scaled = pixels.double() * 255
    assert (scaled - scaled.round()).abs().max() < 1e-4
    return scaled.round().byte()


@pytest.mark.parametrize("size", [(16, 16), (32, 32), (17, 45), (61, 24), (224, 224), (9, 1), (1, 1)])
@pytest.mark.parametrize("severity", range(1, 6))
def test_jpeg_is_pillows_to_the_last_level(size, severity):
    pixels = textured(2, *size)
    quality = (25, 18, 15, 10, 7)[severity - 1]
    assert torch.equal(levels(corrupt(pixels, "jpeg", severity)), by_pillow(pixels, quality))


@pytest.mark.parametrize("quality", [1, 50, 85, 95])
def test_every_quality_is_pillows_on_photographs(photographs, quality):
    assert torch.equal(levels(jpeg(photographs, quality)), by_pillow(photographs, quality))


def test_pixels_between_levels_are_rounded_first():
    pixels = torch.rand(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert torch.equal(levels(jpeg(pixels, 40)), by_pillow(pixels, 40))


def test_noise_is_softened_as_in_the_official_files():
    pixels = textured(2, 64, 64)
    ids = ["a", "b"]
    plain = corrupt(pixels, "gaussian_noise", 3, image_ids=ids)
    stored = corrupt(pixels, "gaussian_noise", 3, image_ids=ids, jpeg_quality=85)
    assert torch.equal(levels(stored), by_pillow(plain, 85))
    assert (stored - pixels).square().mean() < 0.9 * (plain - pixels).square().mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(dtype):
    pixels = textured(2, 16, 20).to(dtype)
    assert jpeg(pixels, 25).dtype == dtype


def test_any_number_of_threads_gives_the_same():
    pixels = textured(5, 40, 33)
    alone = jpeg(pixels, 25)
    torch.set_num_threads(3)
    try:
        assert torch.equal(jpeg(pixels, 25), alone)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("quality", [0, 96, 100, -1, 85.0, "85", True, None])
def test_what_is_no_quality_is_refused(quality):
    with pytest.raises(ConditionError) as caught:
        check_quality(quality)
    assert str(caught.value).startswith(f"The quality of JPEG is {quality!r}. Expected: a whole number from")


def test_jpeg_refuses_a_quality_that_is_none():
    with pytest.raises(ConditionError, match=r"quality of JPEG is 96\. Expected: .* from 1 \(worst\) to 95"):
        jpeg(textured(1, 16, 16), 96)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_pixels_on_a_gpu_stay_there():
    pixels = textured(2, 32, 32)
    there = jpeg(pixels.cuda(), 25)
    assert there.is_cuda
    assert torch.equal(there.cpu(), jpeg(pixels, 25))
