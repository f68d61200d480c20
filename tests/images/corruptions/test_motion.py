"""Motion blur against sums of shifted images."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.images.corruptions.motion import _path, _sum_of_gathers, blur_along, motion_blur

from ..conftest import textured

LEVEL = 1 / 255
PARAMETERS = [(10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)]


def streams(n: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(n)]


def plainly(image: np.ndarray, angle: float, radius: int, sigma: float) -> np.ndarray:
    """[channels height width], tap by tap and pixel by pixel."""
    height, width = image.shape[-2:]
    weights = [math.exp(-(i * i) / (2 * sigma * sigma)) for i in range(2 * radius + 1)]
    result = np.zeros(image.shape)
    for i, weight in enumerate(weights):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        for y in range(height):
            for x in range(width):
                source = image[:, min(max(y + down, 0), height - 1), min(max(x + right, 0), width - 1)]
                result[:, y, x] += weight / sum(weights) * source
    return result


@pytest.mark.parametrize(("radius", "sigma"), PARAMETERS[::2])
@pytest.mark.parametrize("size", [(16, 16), (23, 37), (41, 18)])
def test_each_image_is_blurred_along_its_own_angle(radius, sigma, size):
    angles = [-45.0, -13.0, 0.0, 28.5, -90.0, -135.0]
    pixels = textured(len(angles), *size).double()
    blurred = blur_along(pixels, angles, radius, sigma)
    for image, angle, result in zip(pixels, angles, blurred, strict=True):
        expected = torch.from_numpy(plainly(image.numpy(), angle, radius, sigma))
        assert (result - expected).abs().max() < 1e-12, angle


def test_images_blurred_at_once_are_those_blurred_one_by_one():
    angles = [-45.0, 3.0, 31.0]
    pixels = textured(3, 20, 29)
    paths = [_path(angle, 10, 3.0) for angle in angles]
    assert (_sum_of_gathers(pixels, paths) - blur_along(pixels, angles, 10, 3.0)).abs().max() < 1e-6
    assert _sum_of_gathers(pixels[:0], []).shape == (0, 3, 20, 29)


def test_a_points_trail_leads_to_the_left_and_up_where_the_angle_looks_right_and_down():
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1.0
    trail = blur_along(point, [45.0], 5, 100.0)[0, 0]
    assert trail.nonzero().tolist() == [[i, i] for i in range(13, 21)]
    # Taps that round to the same pixel add up.
    assert trail.diagonal()[13:21].mul(11).round().tolist() == [1, 2, 1, 2, 1, 1, 2, 1]


@settings(max_examples=20, deadline=None)
@given(angle=st.floats(-180, 180), severity=st.integers(0, 4), height=st.integers(1, 40))
def test_what_leaves_no_border_keeps_its_mass_and_flat_images_stay_flat(angle, severity, height):
    flat = torch.full((1, 3, height, 21), 0.6)
    assert (blur_along(flat, [angle], *PARAMETERS[severity]) - 0.6).abs().max() < 1e-6
    point = torch.zeros(1, 1, 101, 101)
    point[..., 50, 50] = 1.0
    assert blur_along(point, [angle], *PARAMETERS[severity]).sum().item() == pytest.approx(1, abs=1e-5)


def test_angles_are_drawn_evenly_from_minus_45_to_45_degrees():
    point = torch.zeros(1, 3, 81, 81)
    point[..., 40, 40] = 1.0
    blurred = motion_blur(point.expand(200, -1, -1, -1), streams(200), 20, 1e3)
    # The trail's far end says the angle, to a pixel in forty.
    ends = [image[0].nonzero()[:, 1].min().item() for image in blurred]
    tops = [(image[0].nonzero()[:, 0] - 40) for image in blurred]
    rises = [rows[rows.abs().argmax()].item() for rows in tops]
    angles = [math.degrees(math.atan2(-rise, 40 - end)) for rise, end in zip(rises, ends, strict=True)]
    assert -46.5 < min(angles) < -40
    assert 40 < max(angles) < 46.5
    n = len(angles)
    assert abs(np.mean(angles)) < 4 * 26 / n**0.5
    assert np.std(angles) == pytest.approx(90 / 12**0.5, rel=0.15)


def test_one_image_draws_one_number_whatever_its_pixels_are():
    for pixels in (textured(1, 16, 30), torch.zeros(1, 3, 64, 16)):
        (used,) = streams(1)
        motion_blur(pixels, [used], 10, 3.0)
        (fresh,) = streams(1)
        torch.rand((), generator=fresh)
        assert torch.equal(used.get_state(), fresh.get_state())


def test_its_gradient_is_the_transposed_blur():
    pixels = textured(2, 17, 25).requires_grad_()
    other = textured(2, 17, 25, seed=1)
    (gradient,) = torch.autograd.grad((motion_blur(pixels, streams(2), 10, 3.0) * other).sum(), pixels)
    probe = textured(2, 17, 25, seed=2)
    slope = (motion_blur(probe, streams(2), 10, 3.0) * other).sum()
    assert (gradient * probe).sum().item() == pytest.approx(slope.item(), rel=1e-5)


def test_photographs_agree_with_whole_image_shifts_to_a_level(photographs):
    pixels = photographs[:1]
    array = pixels[0].double().numpy()
    framed = np.pad(array, ((0, 0), (40, 40), (40, 40)), mode="edge")
    weights = np.exp(-(np.arange(31) ** 2) / (2 * 8.0**2))
    weights /= weights.sum()
    expected = sum(
        weight
        * framed[
            :,
            40 + (down := math.ceil(i * math.sin(math.radians(-20)) - 0.5)) : 264 + down,
            40 + (right := math.ceil(i * math.cos(math.radians(-20)) - 0.5)) : 264 + right,
        ]
        for i, weight in enumerate(weights)
    )
    blurred = blur_along(pixels, [-20.0], 15, 8.0)[0].double()
    assert (blurred - torch.from_numpy(expected)).abs().max() < LEVEL / 100
