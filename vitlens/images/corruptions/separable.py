"""Linear filters that act on rows and columns apart, applied by tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TILE = 32
"""Lines to a tile on a CPU: a filter is narrow, so that nearly all of its whole matrix would be zeros."""


class Tile(NamedTuple):
    """Some lines of the result: `weights` times the lines `first` to `stop` of what is filtered."""

    first: int
    stop: int
    weights: Float[Tensor, "lines reached"]


LineFilter = tuple[Tile, ...]
"""One linear filter along one axis, its tiles in order."""


def line_filter(
    sources: Int[Tensor, "n taps"], weights: Float[Tensor, "n taps"], dtype: torch.dtype, device: torch.device
) -> LineFilter:
    """Cut a filter along one axis into tiles.

    Args:
        sources: the lines that each line of the result is a sum of; the border's rule is in them. A line may
            be named twice.
        weights: what each is multiplied by, in float64.
        dtype: of the pixels.
        device: of the pixels. Away from the CPU, where a call costs more than zeros, there is one tile.

    Returns:
        The filter, for `filter_lines`.

    Example:
        >>> halves = torch.full((3, 2), 0.5, dtype=torch.float64)
        >>> neighbors = torch.tensor([[0, 1], [1, 2], [2, 2]])
        >>> (tile,) = line_filter(neighbors, halves, torch.float32, torch.device("cpu"))
        >>> tile.weights
        tensor([[0.5000, 0.5000, 0.0000],
                [0.0000, 0.5000, 0.5000],
                [0.0000, 0.0000, 1.0000]])
    """
    tiles = []
    # Filters are kept from call to call, and what is made in inference mode can't serve a gradient later.
    with torch.inference_mode(False):
        n_lines = _TILE if device.type == "cpu" else len(sources)
        for start in range(0, len(sources), n_lines):
            reached = sources[start : start + n_lines]
            first, stop = int(reached.min()), int(reached.max()) + 1
            matrix = torch.zeros(len(reached), stop - first, dtype=torch.float64)
            matrix.scatter_add_(1, reached - first, weights[start : start + n_lines])
            tiles.append(Tile(first, stop, matrix.to(device, dtype)))
    return tuple(tiles)


def filter_lines(
    pixels: Float[Tensor, "batch channels height width"],
    terms: Sequence[tuple[LineFilter, LineFilter]],
) -> Float[Tensor, "batch channels new_height new_width"]:
    """The sum over `terms` of filters along the height, then along the width.

    Args:
        pixels: images; on a CPU one after the other, so that what lies between the passes stays in the
            cache and no image's result depends on its batch.
        terms: one or more pairs of a filter along the height and a filter along the width.

    Returns:
        Filtered images.

    Example:
        >>> mirror = torch.tensor([[2], [1], [0]])
        >>> flip = line_filter(mirror, torch.ones(3, 1).double(), torch.float32, torch.device("cpu"))
        >>> pixels = torch.rand(1, 3, 3, 3)
        >>> torch.equal(filter_lines(pixels, [(flip, flip)]), pixels.flip(-2, -1))
        True
    """
    chunks = pixels.split(1) if pixels.device.type == "cpu" else (pixels,)
    return torch.cat([_filter_chunk(chunk, terms) for chunk in chunks])


def _filter_chunk(
    pixels: Float[Tensor, "batch channels height width"], terms: Sequence[tuple[LineFilter, LineFilter]]
) -> Float[Tensor, "batch channels new_height new_width"]:
    planes = pixels.flatten(0, 1)
    total: Tensor | None = None
    for along_height, along_width in terms:
        narrow = torch.cat([planes[..., t.first : t.stop] @ t.weights.T for t in along_width], -1)
        term = torch.cat(
            [
                torch.bmm(t.weights.expand(len(planes), -1, -1), narrow[:, t.first : t.stop])
                for t in along_height
            ],
            -2,
        )
        total = term if total is None else total + term
    assert total is not None, "no terms"
    return total.view(*pixels.shape[:2], *total.shape[1:])
