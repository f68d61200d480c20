"""Digital: what storing or scaling an image does to it."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor


def pixelate(
    pixels: Float[Tensor, "batch 3 height width"], scale: float
) -> Float[Tensor, "batch 3 height width"]:
    """Scale down by a box filter, and up again by repeating pixels.

    The definition is Pillow's resize of 8-bit images, and so is this: values are rounded to 256 levels, at
    first and after each of the filter's passes, along the width and then along the height. (Some versions of
    Pillow take the height first where the sides differ, which changes single levels.)

    Args:
        pixels: images.
        scale: size of the small image, as a share of each side; at least one pixel is left.

    Returns:
        Images of visible squares, on 256 levels.

    Source: Hendrycks & Dietterich (2019), section 3.

    Example:
        >>> row = torch.tensor([0.0, 0.2, 0.4, 1.0])
        >>> pixelate(row.expand(1, 3, 4, 4), scale=0.5)[0, 0, 0]
        tensor([0.1020, 0.1020, 0.7020, 0.7020])
    """
    height, width = pixels.shape[-2:]
    small_height, small_width = max(1, int(height * scale)), max(1, int(width * scale))
    rows, columns = _boxes(height, small_height).to(pixels), _boxes(width, small_width).to(pixels)
    # Sums of whole levels are exact, so that a half is a half and is rounded up, as Pillow does.
    levels = (pixels * 255).round()
    levels = (levels @ columns.T / columns.sum(-1) + 0.5).floor()
    levels = (rows @ levels / rows.sum(-1, keepdim=True) + 0.5).floor()
    down, across = _repeats(small_height, height), _repeats(small_width, width)
    return levels[..., down, :][..., across] / 255


def _boxes(n: int, n_small: int) -> Float[Tensor, "n_small n"]:
    """1 where a pixel's middle lies in the box of a small pixel.

    Where a middle falls on the edge of a box, rounding decides, and so each step is Pillow's.
    """
    scale = n / n_small
    pixel = torch.arange(n, dtype=torch.float64)
    middle = (torch.arange(n_small, dtype=torch.float64)[:, None] + 0.5) * scale
    first, end = (middle - 0.5 * scale + 0.5).floor(), (middle + 0.5 * scale + 0.5).floor()
    offset = (pixel - middle + 0.5) * (1 / scale)
    return ((pixel >= first) & (pixel < end) & (offset > -0.5) & (offset <= 0.5)).double()


def _repeats(n_small: int, n: int) -> list[int]:
    """Which small pixel each pixel shows. The step is added up, as Pillow does: rounding decides here too."""
    step = n_small / n
    steps = itertools.accumulate(itertools.repeat(step, n - 1), initial=step / 2)
    return [min(int(position), n_small - 1) for position in steps]
