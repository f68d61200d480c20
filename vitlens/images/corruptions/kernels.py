"""Kernels: gaussian taps, and what a filter sees beyond the border."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def reach_of(sigma_pixels: float, truncate: float = 4.0) -> int:
    """How many pixels a gaussian reaches to either side.

    Args:
        sigma_pixels: standard deviation, in pixels.
        truncate: where it is cut off, in standard deviations.

    Example:
        >>> reach_of(1.0), reach_of(1.0, truncate=3.0)
        (4, 3)
    """
    return int(truncate * sigma_pixels + 0.5)


def gaussian_taps(sigma_pixels: float, reach: int) -> Float[Tensor, " taps"]:
    """The weights of a gaussian at whole distances, in float64; they sum to 1.

    Args:
        sigma_pixels: standard deviation, in pixels.
        reach: taps to either side of the middle.

    Example:
        >>> gaussian_taps(1.0, reach=1).round(decimals=3)
        tensor([0.2740, 0.4520, 0.2740], dtype=torch.float64)
    """
    distance = torch.arange(-reach, reach + 1, dtype=torch.float64)
    taps = torch.exp(-(distance**2) / (2 * sigma_pixels**2))
    return taps / taps.sum()


def windows(n: int, reach: int) -> Int[Tensor, "n taps"]:
    """The places that each pixel of a line is filtered from; some lie beyond the border.

    Example:
        >>> windows(2, reach=1)
        tensor([[-1,  0,  1],
                [ 0,  1,  2]])
    """
    return torch.arange(n)[:, None] + torch.arange(-reach, reach + 1)


def mirrored(places: Int[Tensor, "*shape"], n: int) -> Int[Tensor, "*shape"]:
    """Fold places into 0 to n - 1, mirrored about the outermost pixels, as often as it takes.

    Example:
        >>> mirrored(torch.tensor([-2, -1, 0, 3]), 3)
        tensor([2, 1, 0, 1])
    """
    period = max(2 * (n - 1), 1)
    places = places % period
    return torch.minimum(places, period - places)


def mirrored_at_edges(places: Int[Tensor, "*shape"], n: int) -> Int[Tensor, "*shape"]:
    """Fold places into 0 to n - 1, mirrored at the outer edges of the outermost pixels.

    Example:
        >>> mirrored_at_edges(torch.tensor([-2, -1, 0, 3]), 3)
        tensor([1, 0, 0, 2])
    """
    places = places % (2 * n)
    return torch.minimum(places, 2 * n - 1 - places)


def filter_matrix(taps: Float[Tensor, " taps"], places: Int[Tensor, "n taps"]) -> Float[Tensor, "n n"]:
    """The matrix whose product with a line of n pixels filters it.

    Args:
        taps: the kernel.
        places: for each pixel, what each tap reads; the border's rule is in them.

    Example:
        >>> filter_matrix(torch.tensor([0.5, 0.5]), torch.tensor([[0, 1], [1, 1]]))
        tensor([[0.5000, 0.5000],
                [0.0000, 1.0000]])
    """
    n = len(places)
    return taps.new_zeros(n, n).scatter_add_(1, places, taps.expand(n, -1))


def framed(planes: Float[Tensor, "planes height width"], reach: int) -> Float[Tensor, "planes _ _"]:
    """Add `reach` lines on each side, mirrored about the outermost pixels.

    torch's `pad` could not add more lines than there are.

    Example:
        >>> framed(torch.tensor([[[1.0, 2.0]]]), 1)[0]
        tensor([[2., 1., 2., 1.],
                [2., 1., 2., 1.],
                [2., 1., 2., 1.]])
    """
    for dim in (-2, -1):
        n = planes.shape[dim]
        before = mirrored(torch.arange(-reach, 0), n).to(planes.device)
        after = mirrored(torch.arange(n, n + reach), n).to(planes.device)
        planes = torch.cat([planes.index_select(dim, before), planes, planes.index_select(dim, after)], dim)
    return planes
