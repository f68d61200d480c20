"""Spatter, against a plain writing of its steps."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from vitlens.images import CORRUPTIONS
from vitlens.images.corruptions.spatter import liquid_layer, mud_cover, spatter, water_gleam

from ..conftest import textured

PARAMETERS = CORRUPTIONS["spatter"].parameters
SIZES = [(64, 64), (33, 50), (16, 16)]


def streams(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def layers(n: int, size: tuple[int, int], severity: int) -> torch.Tensor:
    return liquid_layer(streams(n), torch.zeros(n, 3, *size), *PARAMETERS[severity - 1][:3])


def canny(levels: np.ndarray) -> np.ndarray:
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    dx, dy = (ndimage.correlate(levels, kernel, mode="nearest") for kernel in (sobel, sobel.T))
    size = np.pad(abs(dx) + abs(dy), 1)
    weak = np.zeros(levels.shape, dtype=bool)
    for row, column in np.argwhere(size[1:-1, 1:-1] > 50):
        x, y = dx[row, column], dy[row, column]
        angle = math.degrees(math.atan2(abs(y), abs(x)))
        if angle < 22.5:
            down, right = 0, 1
        elif angle > 67.5:
            down, right = 1, 0
        else:
            down, right = 1, -1 if x * y < 0 else 1
        here = size[row + 1, column + 1]
        before = size[row + 1 - down, column + 1 - right]
        after = size[row + 1 + down, column + 1 + right]
        weak[row, column] = here > before and (here > after or (down * right == 0 and here == after))
    labels, _ = ndimage.label(weak, structure=np.ones((3, 3)))
    return weak & np.isin(labels, np.unique(labels[weak & (size[1:-1, 1:-1] > 150)]))


def equalized(levels: np.ndarray) -> np.ndarray:
    present = np.unique(levels)
    if len(present) == 1:
        return levels.astype(float)
    result = np.zeros(levels.shape)
    for level in present:
        share = (np.sum(levels <= level) - np.sum(levels == present[0])) / np.sum(levels > present[0])
        result[levels == level] = np.rint(255 * share)
    return result


def water(layer: np.ndarray, threshold: float, strength: float) -> np.ndarray:
    levels = np.floor(np.where(layer < threshold, 0, layer) * np.float32(255)).astype(int)
    edges = canny(levels)
    distance = np.full(levels.shape, 20.0)
    if edges.any():
        distance = np.minimum(ndimage.distance_transform_edt(~edges), 20)
    box, emboss = np.ones((3, 3)), np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    relief = np.floor(ndimage.correlate(distance, box, mode="mirror") / 9 + 1e-9).astype(int)
    lit = np.clip(ndimage.correlate(equalized(relief), emboss, mode="mirror"), 0, 255)
    gleam = levels * np.rint(ndimage.correlate(lit, box, mode="mirror") / 9)
    return strength * gleam / max(gleam.max(), 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("severity", range(1, 6))
def test_the_layer_is_normal_noise_blurred_as_scipy_blurs_it(size, severity):
    mean, sigma, blur = PARAMETERS[severity - 1][:3]
    found = layers(2, size, severity)
    for generator, layer in zip(streams(2), found, strict=True):
        noise = mean + sigma * torch.empty(size).normal_(generator=generator).double().numpy()
        blurred = ndimage.gaussian_filter(noise, blur, mode="nearest", truncate=4)
        np.testing.assert_allclose(layer, blurred, atol=0.5 / 255)
        assert np.std(layer.numpy() - blurred) < 0.01 * np.std(blurred)


@pytest.mark.parametrize("severity", range(1, 6))
def test_sums_of_the_layer_are_exact_so_that_no_order_of_summing_changes_it(severity):
    mean, sigma, blur = PARAMETERS[severity - 1][:3]
    plain = liquid_layer(streams(3), torch.zeros(3, 3, 48, 40), 0.0, 1.0, blur)
    units = plain.double() * 2**21
    assert torch.equal(units, units.round())
    assert units.abs().max() < 2**24
    apart = [
        liquid_layer([generator], torch.zeros(1, 3, 48, 40), mean, sigma, blur) for generator in streams(3)
    ]
    assert torch.equal(
        torch.cat(apart), liquid_layer(streams(3), torch.zeros(3, 3, 48, 40), mean, sigma, blur)
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("severity", [1, 2, 3])
def test_water_gleams_by_canny_distance_equalization_and_embossing(size, severity):
    *_, threshold, strength, _ = PARAMETERS[severity - 1]
    found = layers(4, size, severity)
    gleam = water_gleam(found, threshold, strength)
    for layer, seen in zip(found.numpy(), gleam, strict=True):
        np.testing.assert_allclose(seen, water(layer, threshold, strength), atol=1e-6)


def test_weak_edges_count_where_they_hang_together_with_strong_ones():
    # Wide waves have gradients on both sides of the lower threshold; a step has one above the upper.
    generator = torch.Generator().manual_seed(0)
    waves = torch.rand(6, 40, 40, generator=generator).numpy()
    waves = np.stack([ndimage.gaussian_filter(wave, 1.5, mode="nearest") for wave in waves])
    levels = torch.from_numpy(waves - waves.min()) / float(np.ptp(waves))
    gleam = water_gleam(levels.float(), 0.2, 1.0)
    for layer, seen in zip(levels.float().numpy(), gleam, strict=True):
        np.testing.assert_allclose(seen, water(layer, 0.2, 1.0), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("severity", [4, 5])
def test_mud_is_the_blurred_mask_without_its_thin_parts(size, severity):
    *_, threshold, strength, _ = PARAMETERS[severity - 1]
    found = layers(3, size, severity)
    cover = mud_cover(found, threshold, strength)
    for layer, seen in zip(found.numpy(), cover.numpy(), strict=True):
        blurred = ndimage.gaussian_filter(
            (layer > threshold).astype(float), strength, mode="nearest", truncate=4
        )
        expected = np.where(blurred < 0.8, 0, blurred)
        clear = abs(blurred - 0.8) > 1 / 255
        np.testing.assert_allclose(seen[clear], expected[clear], atol=1 / 255)
        assert clear.mean() > 0.95


def test_water_is_pale_turquoise_added_and_mud_is_brown_that_covers():
    pixels = textured(2, 40, 30)
    wet = (spatter(pixels, streams(2), *PARAMETERS[1]) - pixels).double()
    gleam = water_gleam(layers(2, (40, 30), 2), 0.68, 0.6).double()
    assert gleam.max() == pytest.approx(0.6)
    for channel, level in enumerate((175, 238, 238)):
        torch.testing.assert_close(wet[:, channel], gleam * level / 255, atol=1e-6, rtol=0)
    muddy = spatter(pixels, streams(2), *PARAMETERS[3])
    cover = mud_cover(layers(2, (40, 30), 4), 0.65, 1.5)
    assert 0 < (cover > 0).double().mean() < 1
    for channel, level in enumerate((63, 42, 20)):
        expected = pixels[:, channel] * (1 - cover) + cover * level / 255
        torch.testing.assert_close(muddy[:, channel], expected, atol=1e-6, rtol=0)


def test_a_dry_layer_leaves_the_image_as_it_was():
    assert not water_gleam(torch.zeros(1, 20, 20), 0.68, 0.6).any()
    assert not mud_cover(torch.zeros(1, 20, 20), 0.65, 1.5).any()


def test_a_layer_without_an_edge_is_water_everywhere():
    assert (water_gleam(torch.full((1, 20, 20), 0.7), 0.68, 0.6) == 0.6).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 3), (21, 5)])
@pytest.mark.parametrize("severity", [3, 5])
def test_the_smallest_images_stay_finite(size, severity):
    assert spatter(textured(4, *size), streams(4), *PARAMETERS[severity - 1]).isfinite().all()


@pytest.mark.parametrize(("severity", "share"), [(1, 0.035), (2, 0.138), (3, 0.216), (4, 0.124), (5, 0.197)])
def test_the_liquid_covers_the_share_that_the_public_code_covers(severity, share):
    # Shares of changed elements, at 224 x 224 over a hundred draws of that code.
    grey = torch.full((40, 3, 224, 224), 0.3)
    changed = (spatter(grey, streams(40), *PARAMETERS[severity - 1]) != grey).double().mean().item()
    assert changed == pytest.approx(share, rel=0.1)
