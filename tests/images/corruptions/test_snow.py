"""Snow against its definition in numpy."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from vitlens.images.corruptions.snow import snow, snow_flakes

from ..conftest import textured

PARAMETERS = [
    (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
    (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
    (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
    (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
    (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
]


def streams(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(n)]


def streaks_of(noise, angle, size, zoom, threshold, radius, sigma) -> np.ndarray:
    height, width = size
    stretched = ndimage.zoom(noise, zoom, order=1)
    top, left = (stretched.shape[0] - height) // 2, (stretched.shape[1] - width) // 2
    flakes = stretched[top : top + height, left : left + width]
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    streaks = np.zeros(size)
    for i, weight in enumerate(weights / weights.sum()):
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        streaks += weight * flakes[rows][:, columns]
    return streaks


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("size", [(16, 16), (30, 45), (64, 50)])
def test_snow_is_its_definition_at_the_noise_and_angle_that_were_drawn(parameters, size):
    mean, sigma, zoom, threshold, radius, blur_sigma, mix = parameters
    pixels = textured(2, *size)
    result = snow(pixels, streams(2), *parameters)
    for image, snowy, generator in zip(pixels.double().numpy(), result, streams(2), strict=True):
        shape = (math.ceil(size[0] / zoom), math.ceil(size[1] / zoom))
        noise = torch.empty(shape).normal_(mean, sigma, generator=generator).double().numpy()
        angle = -135 + 90 * torch.rand((), generator=generator).item()
        streaks = streaks_of(noise, angle, size, zoom, threshold, radius, blur_sigma)
        grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        base = mix * image + (1 - mix) * np.maximum(image, 1.5 * grey + 0.5)
        expected = base + streaks + streaks[::-1, ::-1]
        assert np.abs(snowy.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_flakes_are_as_frequent_as_the_normal_noise_says(parameters):
    mean, sigma, _, threshold, _, _, _ = parameters
    noise = torch.stack([torch.empty(1, 24, 24).normal_(mean, sigma, generator=g) for g in streams(100)])
    flakes = snow_flakes(noise, 24, 24, 1.0, threshold)
    chance = stats.norm.sf(threshold, mean, sigma)
    n = noise.numel()
    assert abs((flakes > 0).double().mean().item() - chance) < 4 * (chance * (1 - chance) / n) ** 0.5
    assert flakes.max() <= 1


def test_over_a_hundred_draws_snow_falls_evenly_and_more_down_than_sideways():
    night = torch.zeros(100, 3, 48, 48)
    mix = PARAMETERS[3][-1]
    layer = snow(night, streams(100), *PARAMETERS[3])[:, 0] - (1 - mix) / 2
    assert layer.min() > -1e-6
    turned = layer.flip(-2, -1)
    assert (turned - layer).abs().max() < 1e-6
    halves = layer.mean(0)[:24].mean(), layer.mean(0)[:, :24].mean()
    for half in halves:
        assert half.item() == pytest.approx(layer.mean().item(), rel=0.05)
    down = (layer[:, 1:] - layer[:, :-1]).square().mean()
    sideways = (layer[..., 1:] - layer[..., :-1]).square().mean()
    assert down < sideways


def test_no_snow_falls_where_the_threshold_is_out_of_reach():
    pixels = textured(1, 20, 20)
    assert torch.allclose(snow(pixels, streams(1), 0.1, 0.3, 3.0, 9.0, 10, 4.0, 1.0), pixels)


def test_how_much_is_drawn_does_not_depend_on_the_pixels():
    used = [streams(1)[0] for _ in range(2)]
    for generator, pixels in zip(used, (textured(1, 24, 30), torch.zeros(1, 3, 24, 30)), strict=True):
        snow(pixels, [generator], *PARAMETERS[0])
    assert torch.equal(used[0].get_state(), used[1].get_state())


def test_its_gradient_is_the_slope():
    pixels = textured(1, 18, 18).double().requires_grad_()
    (gradient,) = torch.autograd.grad(snow(pixels, streams(1), *PARAMETERS[2]).square().sum(), pixels)
    direction = textured(1, 18, 18, seed=1).double() - 0.5
    ends = [
        snow(pixels.detach() + sign * 1e-6 * direction, streams(1), *PARAMETERS[2]).square().sum().item()
        for sign in (1, -1)
    ]
    assert (gradient * direction).sum().item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)
