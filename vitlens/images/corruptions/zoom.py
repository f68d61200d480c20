"""Zooms about the center, and the blur of a lens that zooms while the shutter is open."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .separable import LineFilter, filter_lines, line_filter


def zoom_blur(
    pixels: Float[Tensor, "batch 3 height width"], zoom_end: float, zoom_step: float
) -> Float[Tensor, "batch 3 height width"]:
    """Average the image and its zooms about the center.

    The zooms are `numpy.arange(1, zoom_end, zoom_step)`, whose last value may lie at `zoom_end` or one step
    before, as rounding falls; zoom 1 is among them, so that the image itself counts twice. Each side of an
    image that is not square is zoomed by its own length.

    Args:
        pixels: images.
        zoom_end: where the zooms end.
        zoom_step: the step between two zooms.

    Returns:
        Blurred images.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C; scipy's `zoom` of order 1.

    Example:
        >>> pixels = torch.rand(1, 3, 32, 32)
        >>> blurred = zoom_blur(pixels, zoom_end=1.31, zoom_step=0.03)
        >>> bool(blurred.var() < pixels.var())
        True
    """
    zooms = np.arange(1, zoom_end, zoom_step).tolist()
    height, width = pixels.shape[-2:]
    kept = pixels.dtype, pixels.device
    moved = [(_zoom_within(height, zoom, *kept), _zoom_within(width, zoom, *kept)) for zoom in zooms[1:]]
    total = 2 * pixels
    if moved:
        total = total + filter_lines(pixels, moved)
    return total / (len(zooms) + 1)


def cropped_length(n: int, zoom: float) -> int:
    """How many of n pixels in a line a zoom shows.

    Args:
        n: pixels in the line.
        zoom: 1 shows all of them.

    Returns:
        The number of pixels in the center that fill the line.

    Example:
        >>> cropped_length(224, 4.5)
        50
    """
    return math.ceil(n / zoom)


@lru_cache(maxsize=128)
def zoom_filter(n: int, zoom: float, first: int, dtype: torch.dtype, device: torch.device) -> LineFilter:
    """Stretch `cropped_length(n, zoom)` pixels of a line to n, linearly between neighbors.

    Both ends of the stretched line lie on pixels; what is longer than n is trimmed equally on both sides.

    Args:
        n: pixels in the result.
        zoom: by what to stretch.
        first: where in the line the pixels that are stretched begin.
        dtype: of the pixels.
        device: of the pixels.

    Returns:
        The filter, for `filter_lines`.

    Source: scipy's `zoom` of order 1, whose length is rounded half to even.

    Example:
        >>> (tile,) = zoom_filter(4, 2.0, 0, torch.float32, torch.device("cpu"))
        >>> tile.weights
        tensor([[1.0000, 0.0000],
                [0.6667, 0.3333],
                [0.3333, 0.6667],
                [0.0000, 1.0000]])
    """
    cropped = cropped_length(n, zoom)
    stretched = round(cropped * zoom)
    trimmed = (stretched - n) // 2
    position = (torch.arange(n, dtype=torch.float64) + trimmed) * ((cropped - 1) / max(stretched - 1, 1))
    left = position.long().clamp(max=max(cropped - 2, 0))
    share = position - left
    sources = first + torch.stack([left, (left + 1).clamp(max=cropped - 1)], 1)
    return line_filter(sources, torch.stack([1 - share, share], 1), dtype, device)


def _zoom_within(n: int, zoom: float, dtype: torch.dtype, device: torch.device) -> LineFilter:
    """Zoom about the center of a line of n."""
    return zoom_filter(n, zoom, (n - cropped_length(n, zoom)) // 2, dtype, device)
