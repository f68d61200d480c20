"""Fog and its fractal, against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.images import CORRUPTIONS
from vitlens.images.corruptions.fog import fog, plasma

from ..conftest import textured


def streams(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def diamond_square(drawn: np.ndarray, decay: float) -> np.ndarray:
    side = round((len(drawn) + 1) ** 0.5)
    plane, numbers = np.zeros((side, side)), iter(drawn)
    step, wibble = side, 100.0

    def fill(row, column, neighbors):
        around = sum(plane[(row + y) % side, (column + x) % side] for y, x in neighbors)
        plane[row, column] = around / 4 + wibble * wibble * next(numbers)

    while step > 1:
        half = step // 2
        diagonal = [(y, x) for y in (-half, half) for x in (-half, half)]
        straight = [(-half, 0), (half, 0), (0, -half), (0, half)]
        for top, left, neighbors in ((half, half, diagonal), (0, half, straight), (half, 0, straight)):
            for row in range(top, side, step):
                for column in range(left, side, step):
                    fill(row, column, neighbors)
        step, wibble = half, wibble / decay
    plane -= plane.min()
    return plane / plane.max()


@settings(max_examples=15, deadline=None)
@given(side=st.sampled_from([2, 4, 8, 32]), decay=st.floats(1, 4), seed=st.integers(0, 9))
def test_plasma_is_the_diamond_square_algorithm_on_a_torus(side, decay, seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(2, side * side - 1).uniform_(-1, 1, generator=generator)
    expected = [diamond_square(numbers, decay) for numbers in drawn.double().numpy()]
    np.testing.assert_allclose(plasma(drawn, decay), expected, atol=1e-5)


def test_plasma_of_numbers_that_are_all_zero_is_flat():
    assert not plasma(torch.zeros(1, 63), 2.0).any()


def test_plasma_is_as_periodic_as_a_torus():
    drawn = torch.empty(20, 64 * 64 - 1).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    maps = plasma(drawn, 2.0)
    inside = maps.diff(dim=2).abs().mean()
    across = (maps[..., 0] - maps[..., -1]).abs().mean()
    assert 0.7 < across / inside < 1.4


@pytest.mark.parametrize(("height", "width", "side"), [(16, 16, 16), (17, 9, 32), (5, 40, 64), (1, 1, 2)])
@pytest.mark.parametrize("severity", [1, 5])
def test_fog_adds_the_corner_of_a_plasma_and_keeps_the_maximum(height, width, side, severity):
    amount, decay = ((1.5, 2), None, None, None, (3, 1.4))[severity - 1]
    pixels = textured(2, height, width) * torch.tensor([1.0, 0.6])[:, None, None, None]
    drawn = [torch.empty(side**2 - 1).uniform_(-1, 1, generator=generator) for generator in streams(2)]
    foggy = fog(pixels, streams(2), *CORRUPTIONS["fog"].parameters[severity - 1])
    for image, numbers, result in zip(pixels.double().numpy(), drawn, foggy, strict=True):
        haze = diamond_square(numbers.double().numpy(), decay)[:height, :width]
        largest = image.max()
        expected = (image + amount * haze) * largest / (largest + amount)
        np.testing.assert_allclose(result, expected, atol=1e-5)
        assert result.max() <= largest + 1e-6


def test_a_black_image_stays_black():
    assert not fog(torch.zeros(1, 3, 8, 8), streams(1), 2.0, 2.0).any()


def test_a_faster_decay_leaves_less_detail():
    drawn = torch.empty(10, 64 * 64 - 1).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    roughness = [plasma(drawn, decay).diff().abs().mean() for decay in (1.2, 1.5, 2.0, 3.0)]
    assert roughness == sorted(roughness, reverse=True)


@pytest.mark.parametrize(("amount", "decay"), CORRUPTIONS["fog"].parameters)
def test_fog_takes_half_the_small_details_of_photographs_and_more(photographs, amount, decay):
    foggy = fog(photographs[:8], streams(8), amount, decay)
    assert 0 <= foggy.min() <= foggy.max() <= 1 + 1e-6
    assert foggy.diff().abs().mean() < 0.5 * photographs[:8].diff().abs().mean()
