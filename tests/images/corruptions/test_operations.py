"""Each corruption against another way to compute it."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from vitlens.images import corrupt

from ..conftest import textured

SIZES = [(32, 32), (16, 45), (61, 24)]


def by_plane(pixels: torch.Tensor, operation) -> torch.Tensor:
    planes = [operation(plane) for plane in pixels.double().flatten(0, 1).numpy()]
    return torch.from_numpy(np.stack(planes)).view(pixels.shape).clamp(0, 1)


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a.double() - b.double()).abs().max().item()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("severity", range(1, 6))
def test_gaussian_blur_is_scipys_with_nearest_border(size, severity):
    pixels = textured(2, *size)
    sigma = (1, 2, 3, 4, 6)[severity - 1]
    expected = by_plane(
        pixels, lambda plane: ndimage.gaussian_filter(plane, sigma, mode="nearest", truncate=4)
    )
    assert largest_difference(corrupt(pixels, "gaussian_blur", severity), expected) < 1e-5


def disk(radius: int, alias: float) -> np.ndarray:
    reach, taps = (8, (-1, 0, 1)) if radius <= 8 else (radius, (-2, -1, 0, 1, 2))
    grid = [
        [float(x * x + y * y <= radius * radius) for x in range(-reach, reach + 1)]
        for y in range(-reach, reach + 1)
    ]
    weights = np.exp(-np.square(taps) / (2 * alias**2))
    weights /= weights.sum()
    return ndimage.correlate(np.array(grid) / np.sum(grid), np.outer(weights, weights), mode="mirror")


@pytest.mark.parametrize("size", [*SIZES, (7, 1)])
@pytest.mark.parametrize("severity", range(1, 6))
def test_defocus_blur_is_a_disk_with_a_mirrored_border(size, severity):
    pixels = textured(2, *size)
    kernel = disk(*((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1])
    expected = by_plane(pixels, lambda plane: ndimage.correlate(plane, kernel, mode="mirror"))
    assert largest_difference(corrupt(pixels, "defocus_blur", severity), expected) < 1e-5


@pytest.mark.parametrize("severity", range(1, 6))
def test_contrast_shrinks_each_channel_about_its_own_mean(severity):
    pixels = textured(2, 20, 33)
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    array = pixels.numpy().astype(np.float64)
    mean = array.mean(axis=(2, 3), keepdims=True)
    expected = torch.from_numpy(np.clip((array - mean) * factor + mean, 0, 1))
    assert largest_difference(corrupt(pixels, "contrast", severity), expected) < 1e-6


@pytest.mark.parametrize("size", [*SIZES, (224, 224), (45, 35), (17, 16), (3, 5), (1, 1)])
@pytest.mark.parametrize("severity", range(1, 6))
def test_pixelate_is_pillows_to_the_last_level(size, severity):
    height, width = size
    pixels = textured(1, height, width)
    scale = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    image = Image.fromarray((pixels[0] * 255).round().byte().permute(1, 2, 0).numpy())
    small_height, small_width = max(1, int(height * scale)), max(1, int(width * scale))
    # One pass a call: which of two Pillow makes first depends on its version.
    narrow = image.resize((small_width, height), Image.Resampling.BOX)
    small = narrow.resize((small_width, small_height), Image.Resampling.BOX)
    expected = torch.from_numpy(np.array(small.resize((width, height), Image.Resampling.NEAREST)))
    levels = corrupt(pixels, "pixelate", severity)[0].permute(1, 2, 0) * 255
    assert torch.equal(levels.round().byte(), expected)
    assert largest_difference(levels, levels.round()) < 1e-4


@pytest.mark.parametrize("severity", range(1, 6))
def test_sharpen_adds_what_a_gaussian_takes_away(severity):
    pixels = textured(2, 24, 31)
    amount = (1.5, 3, 5, 9, 15)[severity - 1]

    def mask(plane):
        return plane + amount * (plane - ndimage.gaussian_filter(plane, 0.7, mode="nearest", truncate=4))

    assert largest_difference(corrupt(pixels, "sharpen", severity), by_plane(pixels, mask)) < 1e-4 * amount


@pytest.mark.parametrize("severity", [1, 2])
def test_gaussian_noise_is_normal_of_its_sigma_and_white(severity):
    sigma = (0.08, 0.12)[severity - 1]
    grey = torch.full((4, 3, 64, 64), 0.5)
    noise = (corrupt(grey, "gaussian_noise", severity, image_ids=list("abcd")) - grey).double() / sigma
    inside = noise[noise.abs() < 0.499 / sigma]
    n = noise.numel()
    assert len(inside) > 0.9999 * n
    assert abs(noise.mean()) < 4 / n**0.5
    assert abs(noise.var() - 1) < 4 * (2 / n) ** 0.5
    assert stats.kstest(inside.numpy(), "norm").pvalue > 1e-3
    by_plane_and_shift = [noise[:, 0] * noise[:, 1], noise[..., 1:] * noise[..., :-1], noise[0] * noise[1]]
    for product in by_plane_and_shift:
        assert abs(product.mean()) < 4 / product.numel() ** 0.5


@pytest.mark.parametrize("severity", range(1, 6))
def test_gaussian_noise_has_the_sigma_of_its_severity_before_clipping(severity):
    sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    grey = torch.full((2, 3, 64, 64), 0.5)
    noisy = corrupt(grey, "gaussian_noise", severity, image_ids=list("ab"))
    clipped = ((noisy == 0) | (noisy == 1)).double().mean().item()
    chance = 2 * stats.norm.sf(0.5 / sigma)
    assert abs(clipped - chance) < 4 * (chance / noisy.numel()) ** 0.5 + 1e-9
    middle = ((noisy - 0.5).abs() < sigma / 2).double().mean().item()
    assert abs(middle - (1 - 2 * stats.norm.sf(0.5))) < 4 * 0.5 / noisy.numel() ** 0.5


@pytest.mark.parametrize("severity", range(1, 6))
def test_impulse_noise_salts_and_peppers_its_share_of_elements(severity):
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    grey = textured(2, 64, 64).clamp(0.1, 0.9)
    noisy = corrupt(grey, "impulse_noise", severity, image_ids=["a", "b"])
    salt, pepper, kept = noisy == 1, noisy == 0, noisy == grey
    assert (salt | pepper | kept).all()
    n = grey.numel()
    for replaced in (salt, pepper):
        assert abs(replaced.double().mean().item() - share / 2) < 4 * (share / 2 / n) ** 0.5
    # Channels are drawn apart: a whole pixel is hit about as seldom as share cubed says.
    whole = (~kept).all(1).double().mean().item()
    assert abs(whole - share**3) < 4 * (share**3 / n * 3) ** 0.5 + 3e-4


def test_pixelate_has_no_slope_and_keeps_double_precision():
    pixels = textured(2, 20, 17).double().requires_grad_()
    result = corrupt(pixels, "pixelate", 2)
    assert result.dtype == torch.float64
    assert not torch.autograd.grad(result.sum(), pixels)[0].any()
