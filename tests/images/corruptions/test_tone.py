"""Brightness and saturation against colorsys, pixel by pixel, and their slopes."""

import colorsys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.images import corrupt
from vitlens.images.corruptions.tone import brightness, saturate

from ..conftest import textured

CHANNEL = st.floats(0, 1, width=32)
COLOR = st.tuples(CHANNEL, CHANNEL, CHANNEL)
BRIGHTNESS = (0.1, 0.2, 0.3, 0.4, 0.5)
SATURATE = ((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2))


def clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def as_pixel(color) -> torch.Tensor:
    return torch.tensor(color, dtype=torch.float64).view(1, 3, 1, 1)


def by_pixel(pixels: torch.Tensor, operation) -> torch.Tensor:
    """`operation` on (hue, saturation, value) of one pixel after the other."""
    result = torch.empty(pixels.shape, dtype=torch.float64)
    for image, changed in zip(pixels.double(), result, strict=True):
        for y in range(image.shape[1]):
            for x in range(image.shape[2]):
                hsv = operation(*colorsys.rgb_to_hsv(*image[:, y, x].tolist()))
                changed[:, y, x] = torch.tensor(colorsys.hsv_to_rgb(*hsv), dtype=torch.float64)
    return result


def with_special_colors() -> torch.Tensor:
    """Texture, and black, greys, white, primaries and their mixtures."""
    pixels = textured(1, 12, 15)
    special = [(0, 0, 0), (0.5, 0.5, 0.5), (1, 1, 1), (0.1, 0.1, 0.1), (1, 0, 0), (0, 0.5, 0), (0, 0, 0.2)]
    special += [(1, 1, 0), (0, 0.7, 0.7), (0.3, 0, 0.3), (0.5, 0.5, 0.4), (0.2, 0.3, 0.3), (0.9, 0.8, 0.9)]
    pixels[0, :, 0, : len(special)] = torch.tensor(special).T
    return pixels


@pytest.mark.parametrize("severity", range(1, 6))
def test_brightness_raises_the_value_of_hsv(severity):
    pixels = with_special_colors()
    shift = BRIGHTNESS[severity - 1]
    expected = by_pixel(pixels, lambda h, s, v: (h, s, clip(v + shift)))
    assert (corrupt(pixels, "brightness", severity) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("severity", range(1, 6))
def test_saturate_scales_the_saturation_of_hsv_and_takes_grey_for_red(severity):
    pixels = with_special_colors()
    factor, shift = SATURATE[severity - 1]
    expected = by_pixel(pixels, lambda h, s, v: (h, clip(factor * s + shift), v))
    assert (corrupt(pixels, "saturate", severity) - expected).abs().max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(color=COLOR, shift=st.sampled_from(BRIGHTNESS))
def test_brightness_keeps_hue_and_saturation_of_any_color(color, shift):
    if 0 < max(color) < 1e-18:  # counts as black
        color = (0.0, 0.0, 0.0)
    expected = by_pixel(as_pixel(color), lambda h, s, v: (h, s, clip(v + shift)))
    assert (brightness(as_pixel(color), shift) - expected).abs().max() < 1e-9


@settings(max_examples=60, deadline=None)
@given(color=COLOR, parameters=st.sampled_from(SATURATE))
def test_saturate_keeps_hue_and_value_of_any_color(color, parameters):
    factor, shift = parameters
    expected = by_pixel(as_pixel(color), lambda h, s, v: (h, clip(factor * s + shift), v))
    assert (saturate(as_pixel(color), factor, shift) - expected).abs().max() < 1e-9


@settings(max_examples=30, deadline=None)
@given(color=COLOR, first=st.floats(0.0, 0.3), second=st.floats(0.0, 0.3))
def test_brightness_in_two_steps_is_brightness_in_one(color, first, second):
    if max(color) < 1e-3:
        return
    twice = brightness(brightness(as_pixel(color), first), second)
    assert torch.allclose(twice, brightness(as_pixel(color), first + second), atol=1e-12)


def test_a_factor_of_one_changes_nothing():
    pixels = with_special_colors()
    assert torch.allclose(saturate(pixels, 1.0, 0.0), pixels, atol=1e-6)
    assert torch.allclose(brightness(pixels, 0.0), pixels, atol=1e-6)


EXTREME = [
    (0, 0, 0),
    (0.5, 0.5, 0.5),
    (1, 1, 1),
    (1, 0, 0),
    (1e-40, 0, 0),
    (1e-13, 1e-20, 0),
    (1e-7, 0, 1e-7),
]


@pytest.mark.parametrize("color", [*EXTREME, (0.5, 0.5, 0.49999997)])
@pytest.mark.parametrize("parameters", SATURATE)
def test_values_and_slopes_are_finite_at_black_at_grey_and_beside_them(color, parameters):
    for operation in (lambda x: saturate(x, *parameters), lambda x: brightness(x, 0.3)):
        pixels = as_pixel(color).float().requires_grad_()
        result = operation(pixels)
        assert result.isfinite().all()
        assert result.min() > -1e-6
        assert result.max() < 1 + 1e-6
        for channel in result.flatten():
            (gradient,) = torch.autograd.grad(channel, pixels, retain_graph=True)
            assert gradient.isfinite().all()


def test_slopes_are_those_of_finite_differences():
    pixels = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.25, 0.3]], dtype=torch.float64).view(2, 3, 1, 1)
    pixels.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: brightness(x, 0.2), pixels)
    assert torch.autograd.gradcheck(lambda x: saturate(x, 0.3, 0.0), pixels)
    assert torch.autograd.gradcheck(lambda x: saturate(x, 5.0, 0.1), pixels)
