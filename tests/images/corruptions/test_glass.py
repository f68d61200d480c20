"""Glass blur against a scan pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vitlens.images.corruptions.glass import _draw_steps, glass_blur, scan_sources

from ..conftest import textured

PARAMETERS = [(0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]


def streams(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(n)]


def scanned(image: np.ndarray, deltas: np.ndarray, d: int) -> np.ndarray:
    """[height width ...] after scans that copy; `deltas` [scan height width 2] holds down and right."""
    height, width = image.shape[:2]
    image = image.copy()
    for scan in deltas:
        for y in range(height - d, d, -1):
            for x in range(width - d, d, -1):
                down, right = scan[y, x]
                image[y, x] = image[y + down, x + right]
    return image


@settings(max_examples=25, deadline=None)
@given(
    d=st.integers(1, 4),
    n_iterations=st.integers(1, 3),
    height=st.integers(3, 30),
    width=st.integers(3, 30),
    seed=st.integers(0, 1000),
)
def test_the_solved_map_is_the_scan_pixel_by_pixel(d, n_iterations, height, width, seed):
    deltas = np.random.default_rng(seed).integers(-d, d, (n_iterations, height, width, 2))
    steps = deltas[..., 0] * width + deltas[..., 1]
    inside = np.zeros((height, width), dtype=bool)
    inside[d + 1 : max(height - d + 1, 0), d + 1 : max(width - d + 1, 0)] = True
    steps[:, ~inside] = 0
    numbered = np.arange(height * width).reshape(height, width)
    expected = scanned(numbered, deltas, d)
    assert torch.equal(scan_sources(torch.from_numpy(steps)), torch.from_numpy(expected))


@pytest.mark.parametrize(("sigma", "d", "n_iterations"), PARAMETERS)
@pytest.mark.parametrize("size", [(16, 16), (33, 20)])
def test_glass_blur_blurs_scans_and_blurs(sigma, d, n_iterations, size):
    height, width = size
    pixels = textured(2, height, width)
    result = glass_blur(pixels, streams(2), sigma, d, n_iterations)
    for image, blurred, generator in zip(pixels, result, streams(2), strict=True):
        steps = _draw_steps(generator, height, width, d, n_iterations).numpy()
        # A step is down · width + right, and right lies from -d to d - 1.
        right = (steps + d) % width - d
        deltas = np.stack([(steps - right) // width, right], -1)
        image = image.double().permute(1, 2, 0).numpy()
        soft = ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest", truncate=4)
        moved = scanned(soft, deltas, d)
        expected = ndimage.gaussian_filter(moved, (sigma, sigma, 0), mode="nearest", truncate=4)
        assert np.abs(blurred.permute(1, 2, 0).numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("d", [1, 2, 4])
def test_neighbors_are_drawn_evenly_and_the_border_stays(d):
    height, width = 40, 50
    steps = torch.stack([_draw_steps(g, height, width, d, 2) for g in streams(100)])
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[d + 1 : height - d + 1, d + 1 : width - d + 1] = True
    assert not steps[..., ~inside].any()
    values, counts = steps[..., inside].unique(return_counts=True)
    expected = [down * width + right for down in range(-d, d) for right in range(-d, d)]
    assert values.tolist() == expected
    share = 1 / (2 * d) ** 2
    n = counts.sum().item()
    assert (counts / n - share).abs().max() < 5 * (share / n) ** 0.5


def test_how_much_is_drawn_does_not_depend_on_the_pixels():
    used = [streams(1)[0] for _ in range(2)]
    for generator, pixels in zip(used, (textured(1, 24, 24), torch.zeros(1, 3, 24, 24)), strict=True):
        glass_blur(pixels, [generator], 1.0, 2, 3)
    assert torch.equal(used[0].get_state(), used[1].get_state())


def test_an_image_too_small_for_neighbors_is_only_blurred():
    pixels = textured(1, 8, 30)
    result = glass_blur(pixels, streams(1), 1.5, 4, 2)
    planes = pixels.double().flatten(0, 1).numpy()
    twice = [
        ndimage.gaussian_filter(ndimage.gaussian_filter(p, 1.5, mode="nearest"), 1.5, mode="nearest")
        for p in planes
    ]
    assert np.abs(result.flatten(0, 1).numpy() - np.stack(twice)).max() < 1e-5


def test_its_gradient_is_the_transposed_blur():
    pixels = textured(2, 21, 18).requires_grad_()
    other = textured(2, 21, 18, seed=1)
    (gradient,) = torch.autograd.grad((glass_blur(pixels, streams(2), 0.9, 2, 1) * other).sum(), pixels)
    probe = textured(2, 21, 18, seed=2)
    slope = (glass_blur(probe, streams(2), 0.9, 2, 1) * other).sum()
    assert (gradient * probe).sum().item() == pytest.approx(slope.item(), rel=1e-5)
