"""Fog: a fractal haze laid over an image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .draws import uniform


def fog(
    pixels: Float[Tensor, "batch 3 height width"],
    generators: Sequence[torch.Generator],
    amount: float,
    decay: float,
) -> Float[Tensor, "batch 3 height width"]:
    """Add a haze, the same on all channels, and dim each image to the maximum it had.

    Args:
        pixels: images.
        generators: one random stream for each image.
        amount: what the densest haze adds, on the scale of the pixels.
        decay: how fast the haze loses detail, as in `plasma`.

    Returns:
        Foggy images: (x + amount · haze) · M / (M + amount), M being the image's own maximum.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> foggy = fog(grey, [torch.Generator().manual_seed(0)], amount=1.5, decay=2.0)
        >>> bool(foggy.min() >= 0.125), bool(foggy.max() <= 0.5)
        (True, True)
    """
    height, width = pixels.shape[-2:]
    # At least 2: a map of one point has no range to be scaled to.
    side = 1 << (max(height, width, 2) - 1).bit_length()
    drawn = (2 * uniform((side * side - 1,), generators)).sub_(1)
    haze = plasma(drawn.to(pixels.device), decay)[:, None, :height, :width].to(pixels)
    largest = pixels.amax((1, 2, 3), keepdim=True)
    return (pixels + amount * haze) * (largest / (largest + amount))


def plasma(drawn: Float[Tensor, "batch numbers"], decay: float) -> Float[Tensor, "batch side side"]:
    """Periodic fractal maps by the diamond-square algorithm, made from given random numbers.

    It begins with one point at 0. Each level halves the grid's step: the middle of every square of four
    points, then the middles of the squares' sides, become the mean of their four neighbors plus noise. From
    level to level the noise is divided by decay²: the definition divides a number by `decay` and multiplies
    by it twice.

    Args:
        drawn: side² − 1 numbers from U(-1, 1) for each map, `side` a power of two. They are used level by
            level: for the squares' middles, then those of their upper, then of their left sides, in rows.
        decay: square root of what the noise is divided by from level to level.

    Returns:
        Maps, each shifted and scaled to go from 0 to 1.

    Source: Fournier, Fussell & Carpenter (1982), Computer rendering of stochastic models.

    Example:
        >>> drawn = torch.empty(1, 64 * 64 - 1).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
        >>> smooth, rough = plasma(drawn, decay=2.0)[0], plasma(drawn, decay=1.2)[0]
        >>> smooth.shape, smooth.min().item(), smooth.max().item()
        (torch.Size([64, 64]), 0.0, 1.0)
        >>> bool(smooth.diff().abs().mean() < rough.diff().abs().mean())
        True
    """
    side = math.isqrt(drawn.shape[1] + 1)
    assert side * side == drawn.shape[1] + 1
    assert side.bit_count() == 1
    plane = drawn.new_zeros(len(drawn), side, side)
    used, amplitude, step = 0, 1.0, side
    while step > 1:
        half, n = step // 2, (side // step) ** 2
        corner = plane[:, ::step, ::step].contiguous()
        noise = amplitude * drawn[:, used : used + 3 * n].view(-1, 3, *corner.shape[1:])
        top = corner + corner.roll(-1, 2)
        middle = (top + top.roll(-1, 1)) / 4 + noise[:, 0]
        plane[:, half::step, half::step] = middle
        plane[:, ::step, half::step] = (top + middle + middle.roll(1, 1)) / 4 + noise[:, 1]
        left = corner + corner.roll(-1, 1)
        plane[:, half::step, ::step] = (left + middle + middle.roll(1, 2)) / 4 + noise[:, 2]
        used, amplitude, step = used + 3 * n, amplitude / decay**2, half
    plane -= plane.amin((1, 2), keepdim=True)
    # Numbers that are all 0 leave a flat map; it stays at 0.
    return plane / plane.amax((1, 2), keepdim=True).clamp_min(torch.finfo(plane.dtype).tiny)
