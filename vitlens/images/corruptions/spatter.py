"""Spatter: drops of water or splashes of mud on the lens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from .draws import normal
from .kernels import filter_matrix, framed, gaussian_taps, reach_of, windows

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)

_LEAST_MUD = 0.8
"""Thinner mud is none."""

_REACH_PIXELS = 20
"""Water looks the same at all distances from a drop's edge beyond this."""

_WEAK, _STRONG = 50, 150
"""Thresholds of the edges' gradient; weak edges count where they hang together with strong ones."""

_NOISE_UNITS, _MASK_UNITS, _WEIGHT_UNITS = 2**8, 2**11, 2**13
"""What the exact blur counts in: normal noise stays below 2³ and a mask below 1, so that every sum stays
below 2²⁴, where float32 still holds all whole numbers."""


def spatter(
    pixels: Float[Tensor, "batch 3 height width"],
    generators: Sequence[torch.Generator],
    mean: float,
    sigma: float,
    blur_sigma_pixels: float,
    threshold: float,
    strength: float,
    mud: int,
) -> Float[Tensor, "batch 3 height width"]:
    """Put liquid where smooth noise exceeds a threshold: gleaming water is added, mud covers.

    Args:
        pixels: images.
        generators: one random stream for each image.
        mean: of the noise.
        sigma: standard deviation of the noise before it is blurred.
        blur_sigma_pixels: standard deviation of the gaussian that blurs the noise, in pixels.
        threshold: of the blurred noise; there is liquid above it.
        strength: for water, the largest factor of its color; for mud, the standard deviation of the gaussian
            that softens its edges, in pixels.
        mud: 1 for mud, 0 for water.

    Returns:
        Spattered images, not yet clipped.

    Source: Hendrycks & Dietterich (2019), the extra corruptions; the steps are those of their public code.

    Example:
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> def share_changed(mud):
        ...     generators = [torch.Generator().manual_seed(0)]
        ...     return (spatter(grey, generators, 0.65, 0.3, 1.0, 0.68, 0.6, mud) != grey).float().mean()
        >>> 0.2 < share_changed(mud=0) < 0.8, 0.02 < share_changed(mud=1) < 0.5
        (tensor(True), tensor(True))
    """
    layer = liquid_layer(generators, pixels, mean, sigma, blur_sigma_pixels)
    if mud:
        cover = mud_cover(layer, threshold, strength)[:, None].to(pixels)
        return pixels * (1 - cover) + cover * pixels.new_tensor(_MUD)[:, None, None]
    gleam = water_gleam(layer, threshold, strength)[:, None].to(pixels)
    return pixels + gleam * pixels.new_tensor(_WATER)[:, None, None]


def liquid_layer(
    generators: Sequence[torch.Generator],
    pixels: Float[Tensor, "batch 3 height width"],
    mean: float,
    sigma: float,
    blur_sigma_pixels: float,
) -> Float[Tensor, "batch height width"]:
    """Normal noise, blurred: how much liquid there is.

    Thresholds follow, and a threshold turns the last bit into a drop more or less. Noise and weights are
    therefore rounded to units in which every sum is exact, and the same in any order and on any device. It
    moves the layer by well under a hundredth of its standard deviation (root mean square).

    Args:
        generators: one random stream for each image.
        pixels: the images, for their size and device.
        mean: of the noise.
        sigma: standard deviation of the noise before it is blurred.
        blur_sigma_pixels: standard deviation of the gaussian, in pixels, cut off at four; the border's values
            are repeated outward.

    Returns:
        The layer, in float32.

    Example:
        >>> generators = [torch.Generator().manual_seed(0)]
        >>> layer = liquid_layer(generators, torch.zeros(1, 3, 64, 64), 0.65, 0.3, 2.0)
        >>> round(layer.mean().item(), 2), round(layer.std().item(), 2)
        (0.65, 0.04)
    """
    noise = normal(pixels.shape[-2:], generators)
    return mean + sigma * _exactly_blurred(noise.to(pixels.device), blur_sigma_pixels, _NOISE_UNITS)


def mud_cover(
    layer: Float[Tensor, "batch height width"], threshold: float, blur_sigma_pixels: float
) -> Float[Tensor, "batch height width"]:
    """How much of each pixel is mud: the mask of what exceeds the threshold, blurred, none below 0.8.

    Args:
        layer: how much liquid there is.
        threshold: of the layer.
        blur_sigma_pixels: standard deviation of the gaussian that softens the mask, in pixels.

    Returns:
        Values from 0 to 1.

    Example:
        >>> mud_cover(torch.tensor([[[0.0, 0.0, 1.0, 1.0, 1.0]]]), 0.5, 0.5).round(decimals=1)
        tensor([[[0.0000, 0.0000, 0.9000, 1.0000, 1.0000]]])
    """
    cover = _exactly_blurred((layer > threshold).float(), blur_sigma_pixels, _MASK_UNITS)
    return cover.masked_fill(cover < _LEAST_MUD, 0)


def water_gleam(
    layer: Float[Tensor, "batch height width"], threshold: float, strength: float
) -> Float[Tensor, "batch height width"]:
    """How much water gleams: liquid times a relief made from the distance to the drops' edges.

    The layer above the threshold is cut into 255 levels, and its edges are found (Canny). The distances to
    them, up to 20 pixels, are smoothed (3 by 3), cut into whole pixels, equalized in their histogram,
    embossed and smoothed again. Distances are exact Euclidean ones; the public implementation approximates
    them by steps on a mask of 5 by 5.

    Args:
        layer: how much liquid there is.
        threshold: of the layer.
        strength: the largest value of the result.

    Returns:
        Values from 0 to `strength`; 0 everywhere where there is no liquid.

    Example:
        >>> layer = torch.zeros(1, 24, 24)
        >>> layer[0, 8:16, 8:16] = 0.7
        >>> gleam = water_gleam(layer, 0.68, 0.5)
        >>> gleam.max().item(), bool((gleam[layer == 0] == 0).all())
        (0.5, True)
    """
    levels = (layer * 255).floor().masked_fill(layer < threshold, 0)
    relief = (_sum_of_3_by_3(_edge_distances(_edges(levels))) / 9).floor().long()
    embossed = _embossed(_equalized(relief)).clamp(0, 255)
    wet = levels * (_sum_of_3_by_3(embossed) / 9).round()
    # Without any liquid all is 0, and stays it.
    return strength * (wet / wet.amax((1, 2), keepdim=True).clamp_min(1))


def _exactly_blurred(
    planes: Float[Tensor, "batch height width"], sigma_pixels: float, units: int
) -> Float[Tensor, "batch height width"]:
    """A gaussian blur, cut off at four sigma, the border repeated: all sums are of whole numbers."""
    height, width = planes.shape[-2:]
    rows, columns = (_whole_weights(n, sigma_pixels).to(planes) for n in (height, width))
    across = ((planes * units).round() @ columns.T / _WEIGHT_UNITS).round()
    return rows @ across / (_WEIGHT_UNITS * units)


def _whole_weights(n: int, sigma_pixels: float) -> Float[Tensor, "n n"]:
    taps = (gaussian_taps(sigma_pixels, reach_of(sigma_pixels)) * _WEIGHT_UNITS).round()
    middle = len(taps) // 2
    taps[middle] += _WEIGHT_UNITS - taps.sum()
    return filter_matrix(taps, windows(n, middle).clamp(0, n - 1))


def _edges(levels: Float[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    """Canny's edges: where the gradient (3 by 3 Sobel, |dx| + |dy|) is largest along its own direction."""
    around = pad(levels[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    smooth = around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:]
    dx = smooth[..., 2:] - smooth[..., :-2]
    smooth = around[..., :-2] + 2 * around[..., 1:-1] + around[..., 2:]
    dy = smooth[:, 2:] - smooth[:, :-2]
    size = dx.abs() + dy.abs()
    around = pad(size, (1, 1, 1, 1))
    left, right = around[:, 1:-1, :-2], around[:, 1:-1, 2:]
    above, below = around[:, :-2, 1:-1], around[:, 2:, 1:-1]
    tangent = 2**0.5 - 1  # of 22.5 degrees
    is_flat, is_steep = dy.abs() < tangent * dx.abs(), dx.abs() < tangent * dy.abs()
    falls = dx * dy < 0
    before = torch.where(falls, around[:, :-2, 2:], around[:, :-2, :-2])
    after = torch.where(falls, around[:, 2:, :-2], around[:, 2:, 2:])
    is_peak = torch.where(
        is_flat,
        (size > left) & (size >= right),
        torch.where(is_steep, (size > above) & (size >= below), (size > before) & (size > after)),
    )
    return _connected(is_peak & (size > _WEAK), is_peak & (size > _STRONG))


def _connected(
    candidates: Bool[Tensor, "batch height width"], seeds: Bool[Tensor, "batch height width"]
) -> Bool[Tensor, "batch height width"]:
    """Those candidates that a chain of candidates, side by side or corner to corner, joins to a seed."""
    while True:
        across = seeds.clone()
        across[..., 1:] |= seeds[..., :-1]
        across[..., :-1] |= seeds[..., 1:]
        grown = across.clone()
        grown[:, 1:] |= across[:, :-1]
        grown[:, :-1] |= across[:, 1:]
        grown &= candidates
        if torch.equal(grown, seeds):
            return seeds
        seeds = grown


def _edge_distances(edges: Bool[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
    """Distance of each pixel to the nearest edge, in pixels, at most 20."""
    across = torch.where(edges, 0, _REACH_PIXELS).short()
    # All distances up to the reach are sums of some of these.
    for step in (1, 2, 4, 8, _REACH_PIXELS - 15):
        stepped = across + step
        across[..., step:] = torch.minimum(across[..., step:], stepped[..., :-step])
        across[..., :-step] = torch.minimum(across[..., :-step], stepped[..., step:])
    height = edges.shape[1]
    squares = pad(across**2, (0, 0, _REACH_PIXELS, _REACH_PIXELS), value=_REACH_PIXELS**2)
    nearest = squares[:, _REACH_PIXELS : _REACH_PIXELS + height]
    for k in range(1, _REACH_PIXELS):
        above = squares[:, _REACH_PIXELS - k : _REACH_PIXELS - k + height]
        below = squares[:, _REACH_PIXELS + k : _REACH_PIXELS + k + height]
        nearest = torch.minimum(nearest, torch.minimum(above, below).add_(k * k))
    return nearest.float().sqrt()


def _equalized(relief: Int[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
    """The histogram spread over 0 to 255: the lowest level that occurs becomes 0, the highest 255.

    A plane of one level stays as it is.
    """
    flat = relief.flatten(1)
    ones = torch.ones_like(flat, dtype=torch.float32)
    counts = ones.new_zeros(len(flat), _REACH_PIXELS + 1).scatter_add_(1, flat, ones).cumsum(1)
    lowest = counts.masked_fill(counts == 0, torch.inf).amin(1, keepdim=True)
    others = flat.shape[1] - lowest
    spread = ((counts - lowest).clamp_min(0) * (255 / others)).round()
    levels = torch.arange(_REACH_PIXELS + 1, device=flat.device).to(spread)
    return torch.where(others > 0, spread, levels).gather(1, flat).view(relief.shape)


def _embossed(planes: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
    """Filtered by [-2 -1 0; -1 1 1; 0 1 2], a relief lit from the lower right."""
    height, width = planes.shape[1:]
    around = framed(planes, 1)

    def shifted(down: int, right: int) -> Tensor:
        return around[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]

    lit = 2 * shifted(1, 1) + shifted(1, 0) + shifted(0, 1)
    dark = 2 * shifted(-1, -1) + shifted(-1, 0) + shifted(0, -1)
    return planes + lit - dark


def _sum_of_3_by_3(planes: Float[Tensor, "batch height width"]) -> Float[Tensor, "batch height width"]:
    around = framed(planes, 1)
    down = around[:, :-2] + around[:, 1:-1] + around[:, 2:]
    return down[..., :-2] + down[..., 1:-1] + down[..., 2:]
