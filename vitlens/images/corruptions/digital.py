"""Digital: what scaling an image on 256 levels does to it."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag


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

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> row = torch.tensor([0.0, 0.2, 0.4, 1.0])
        >>> pixelate(row.expand(1, 3, 4, 4), scale=0.5)[0, 0, 0]
        tensor([0.1020, 0.1020, 0.7020, 0.7020])
    """
    height, width = pixels.shape[-2:]
    small_height, small_width = max(1, int(height * scale)), max(1, int(width * scale))
    rows, columns = _boxes(height, small_height, pixels), _boxes(width, small_width, pixels)
    down = _repeats(small_height, height).to(pixels.device)
    across = _repeats(small_width, width).to(pixels.device)
    result = torch.empty_like(pixels, requires_grad=False)
    # One image at a time stays in the processor's cache. Its planes stand on their sides in the first pass
    # and side by side in the second: sums of whole rows are the fast ones.
    for image, squares in zip(pixels.detach(), result, strict=True):
        levels = image.flatten(0, 1).t().clone(memory_format=torch.contiguous_format).mul_(255).round_()
        narrow = _box_means(levels, columns).view(small_width, 3, height)
        side_by_side = narrow.permute(2, 1, 0).reshape(height, 3 * small_width)
        small = _box_means(side_by_side, rows).div_(255).view(small_height, 3, small_width)
        on_side = small.permute(2, 1, 0).reshape(small_width, -1).index_select(0, across)
        wide = on_side.view(width, 3, small_height).permute(1, 2, 0).contiguous()
        torch.index_select(wide, 1, down, out=squares)
    return without_slope(result, pixels)


def without_slope(
    values: Float[Tensor, "*shape"], pixels: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """The values, tied to the pixels that they were made from by gradients of zero, as rounding has them.

    Example:
        >>> pixels = torch.full((2,), 0.3, requires_grad=True)
        >>> torch.autograd.grad(without_slope(torch.ones(2), pixels).sum(), pixels)[0]
        tensor([0., 0.])
    """
    return values + 0 * pixels if pixels.requires_grad else values


class _Boxes(NamedTuple):
    """Which pixels of a line each small pixel is the mean of."""

    members: Int[Tensor, " member"]
    first: Int[Tensor, " small"]
    n_members: Float[Tensor, "small 1"]


def _boxes(n: int, n_small: int, like: Tensor) -> _Boxes:
    """The pixels whose middle lies in the box of a small pixel.

    Where a middle falls on the edge of a box, rounding decides, and so each step is Pillow's.
    """
    scale = n / n_small
    pixel = torch.arange(n, dtype=torch.float64)
    middle = (torch.arange(n_small, dtype=torch.float64)[:, None] + 0.5) * scale
    first, end = (middle - 0.5 * scale + 0.5).floor(), (middle + 0.5 * scale + 0.5).floor()
    offset = (pixel - middle + 0.5) * (1 / scale)
    inside = (pixel >= first) & (pixel < end) & (offset > -0.5) & (offset <= 0.5)
    n_members = inside.sum(-1)
    return _Boxes(
        inside.nonzero()[:, 1].to(like.device),
        (n_members.cumsum(0) - n_members).to(like.device),
        n_members[:, None].to(like),
    )


def _box_means(rows: Float[Tensor, "n row"], boxes: _Boxes) -> Float[Tensor, "small row"]:
    # Sums of whole levels are exact, so that a half is a half and is rounded up, as Pillow does.
    sums: Tensor = embedding_bag(boxes.members, rows, boxes.first, mode="sum")
    return sums.div_(boxes.n_members).add_(0.5).floor_()


def _repeats(n_small: int, n: int) -> Int[Tensor, " n"]:
    """Which small pixel each pixel shows. The step is added up, as Pillow does: rounding decides here too."""
    step = n_small / n
    steps = itertools.accumulate(itertools.repeat(step, n - 1), initial=step / 2)
    return torch.tensor([min(int(position), n_small - 1) for position in steps])
