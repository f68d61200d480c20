"""Elastic, against scipy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from vitlens.images import CORRUPTIONS
from vitlens.images.corruptions.elastic import affine_matrices, elastic

from ..conftest import textured


def definition(image: np.ndarray, drawn: np.ndarray, alpha: float, sigma: float, affine: float) -> np.ndarray:
    """[3 height width]; `drawn` from U(-1, 1): three moves (x, y), then dx and dy."""
    _, height, width = image.shape
    third = min(height, width) // 3
    middle = np.array([width // 2, height // 2])
    points = np.array([[third, third], [third, -third], [-third, -third]]) + middle
    moved = points + affine * drawn[:6].reshape(3, 2)
    back = np.linalg.solve(np.c_[moved, np.ones(3)], points)
    y, x = np.mgrid[:height, :width].astype(float)
    from_x, from_y = (x * of_x + y * of_y + constant for of_x, of_y, constant in back.T)
    stretched = [ndimage.map_coordinates(plane, [from_y, from_x], order=1, mode="mirror") for plane in image]
    dx, dy = (
        alpha * ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3)
        for field in drawn[6:].reshape(2, height, width)
    )
    return np.stack(
        [ndimage.map_coordinates(plane, [y + dy, x + dx], order=1, mode="reflect") for plane in stretched]
    )


def draws(n: int, height: int, width: int) -> list[np.ndarray]:
    streams = [torch.Generator().manual_seed(seed) for seed in range(n)]
    return [
        torch.empty(6 + 2 * height * width).uniform_(-1, 1, generator=generator).double().numpy()
        for generator in streams
    ]


def distorted(pixels: torch.Tensor, parameters: tuple[float, ...]) -> torch.Tensor:
    return elastic(pixels, [torch.Generator().manual_seed(seed) for seed in range(len(pixels))], *parameters)


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("size", [(64, 64), (40, 61), (61, 24), (16, 45)])
def test_elastic_is_an_affine_map_and_a_displacement_by_scipy(size, severity):
    parameters = CORRUPTIONS["elastic"].parameters[severity - 1]
    pixels = textured(2, *size)
    result = distorted(pixels, parameters)
    for image, drawn, seen in zip(pixels.double().numpy(), draws(2, *size), result, strict=True):
        # Points at a mirror or between pixels of a steep edge: positions in float32 differ in the last bits.
        np.testing.assert_allclose(seen, definition(image, drawn, *parameters), atol=1 / 255)


@pytest.mark.parametrize("severity", range(1, 6))
def test_it_is_so_on_photographs(photographs, severity):
    parameters = CORRUPTIONS["elastic"].parameters[severity - 1]
    pixels = photographs[:1]
    (drawn,) = draws(1, 224, 224)
    expected = definition(pixels[0].double().numpy(), drawn, *parameters)
    np.testing.assert_allclose(distorted(pixels, parameters)[0], expected, atol=1 / 255)


def test_without_moves_and_displacement_nothing_changes():
    pixels = textured(2, 31, 20)
    np.testing.assert_allclose(distorted(pixels, (0.0, 2.0, 0.0)), pixels, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(x=st.integers(-5, 5), y=st.integers(-5, 5), height=st.integers(3, 300), width=st.integers(3, 300))
def test_points_that_move_alike_shift_the_image(x, y, height, width):
    moves = torch.tensor([[[x, y]] * 3], dtype=torch.float64)
    expected = torch.tensor([[[1, 0], [0, 1], [-x, -y]]], dtype=torch.float64)
    torch.testing.assert_close(affine_matrices(moves, height, width), expected, atol=1e-7, rtol=0)


def test_points_that_come_to_lie_on_one_line_give_a_finite_map():
    moves = torch.tensor([[[0.0, 0], [0, 20], [20, 40]]]).double()
    assert affine_matrices(moves, 30, 30).isfinite().all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (5, 3)])
@pytest.mark.parametrize("severity", [1, 2, 5])
def test_the_smallest_images_stay_in_their_range(size, severity):
    pixels = textured(3, *size)
    result = distorted(pixels, CORRUPTIONS["elastic"].parameters[severity - 1])
    assert pixels.min() - 1e-6 <= result.min() <= result.max() <= pixels.max() + 1e-6


def test_the_displacement_is_as_strong_as_theory_says():
    alpha, sigma, _ = CORRUPTIONS["elastic"].parameters[2]
    slope = (torch.arange(64.0) / 64).expand(100, 3, 64, 64)
    moved = (distorted(slope, (alpha, sigma, 0.0)) - slope)[:, 0, 16:-16, 16:-16] * 64
    # The variance of U(-1, 1) is 1/3; a gaussian blur takes its standard deviation down by 2 sqrt(pi) sigma.
    assert moved.std().item() == pytest.approx(alpha / 3**0.5 / (2 * np.pi**0.5 * sigma), rel=0.03)
    assert abs(moved.mean().item()) < 0.05
