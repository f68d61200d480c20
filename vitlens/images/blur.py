"""Blurs: linear filters that take high frequencies out of an image."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from scipy.fft import next_fast_len
from torch import Tensor

_GAUSSIAN_TRUNCATE = 4.0
"""Half-width of the gaussian kernel in standard deviations."""


def gaussian_blur(
    pixels: Float[Tensor, "batch 3 height width"], sigma_pixels: float
) -> Float[Tensor, "batch 3 height width"]:
    """Blur by a gaussian, cut off at four standard deviations, with the border's pixels repeated outward.

    Two matrix products, one along each axis: the border and a kernel wider than the image cost nothing.

    Args:
        pixels: images.
        sigma_pixels: standard deviation, in pixels.

    Returns:
        Blurred images.

    Source: Hendrycks & Dietterich (2019), extra corruptions; scipy's `gaussian_filter`, mode "nearest".

    Example:
        >>> stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 3, 16, 16)
        >>> gaussian_blur(stripes, sigma_pixels=2.0)[0, 0, 8, 7:9].round(decimals=2)
        tensor([0.5000, 0.5000])
    """
    height, width = pixels.shape[-2:]
    rows = _gaussian_matrix(height, sigma_pixels).to(pixels)
    columns = _gaussian_matrix(width, sigma_pixels).to(pixels)
    return rows @ (pixels @ columns.T)


def defocus_blur(
    pixels: Float[Tensor, "batch 3 height width"], radius_pixels: int, alias_sigma_pixels: float
) -> Float[Tensor, "batch 3 height width"]:
    """Blur by a disk, as a lens out of focus does; the image is mirrored at its border.

    Args:
        pixels: images.
        radius_pixels: radius of the disk, in pixels.
        alias_sigma_pixels: standard deviation of the small gaussian that softens the disk's edge, in pixels.

    Returns:
        Blurred images.

    Source: Hendrycks & Dietterich (2019), section 3.

    Example:
        >>> point = torch.zeros(1, 3, 33, 33)
        >>> point[..., 16, 16] = 1.0
        >>> blurred = defocus_blur(point, radius_pixels=3, alias_sigma_pixels=0.1)
        >>> round(1 / blurred[0, 0, 16, 16].item()), round(blurred[0, 0].sum().item(), 4)
        (29, 1.0)
    """
    kernel = disk_kernel(radius_pixels, alias_sigma_pixels)
    reach = kernel.shape[0] // 2
    height, width = pixels.shape[-2:]
    rows = _mirror(torch.arange(-reach, height + reach), height).to(pixels.device)
    columns = _mirror(torch.arange(-reach, width + reach), width).to(pixels.device)
    framed = pixels.index_select(-2, rows).index_select(-1, columns)
    # A circular convolution; what wraps around stays inside the frame that is cut away.
    size = tuple(next_fast_len(n, real=True) for n in framed.shape[-2:])
    spectrum = torch.fft.rfft2(framed, s=size) * torch.fft.rfft2(kernel.to(pixels), s=size)
    blurred: Tensor = torch.fft.irfft2(spectrum, s=size)
    return blurred[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def disk_kernel(radius_pixels: int, alias_sigma_pixels: float) -> Float[Tensor, "side side"]:
    """The kernel of `defocus_blur`: a disk on a grid of 17 by 17 or more, its edge softened.

    The small gaussian has 3 by 3 taps for radii up to 8 and 5 by 5 beyond, and sees the grid mirrored at
    its border.

    Args:
        radius_pixels: radius of the disk, in pixels.
        alias_sigma_pixels: standard deviation of the small gaussian, in pixels.

    Returns:
        Weights in float64 that sum to 1, but for what the mirrored border adds.

    Example:
        >>> disk_kernel(10, 0.5).shape
        torch.Size([21, 21])
    """
    reach = max(8, radius_pixels)
    position = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (position[:, None] ** 2 + position**2 <= radius_pixels**2).double()
    taps = _gaussian_taps(1 if radius_pixels <= 8 else 2, alias_sigma_pixels)
    soften = _filter_matrix(taps, _mirror(_windows(len(disk), len(taps) // 2), len(disk)))
    return soften @ (disk / disk.sum()) @ soften.T


def _gaussian_taps(reach: int, sigma_pixels: float) -> Float[Tensor, " taps"]:
    distance = torch.arange(-reach, reach + 1, dtype=torch.float64)
    taps = torch.exp(-(distance**2) / (2 * sigma_pixels**2))
    return taps / taps.sum()


def _gaussian_matrix(n: int, sigma_pixels: float) -> Float[Tensor, "n n"]:
    taps = _gaussian_taps(int(_GAUSSIAN_TRUNCATE * sigma_pixels + 0.5), sigma_pixels)
    return _filter_matrix(taps, _windows(n, len(taps) // 2).clamp(0, n - 1))


def _filter_matrix(taps: Float[Tensor, " taps"], sources: Int[Tensor, "n taps"]) -> Float[Tensor, "n n"]:
    """The matrix whose product with a line of n pixels filters it; `sources` holds the border's rule."""
    n = len(sources)
    return taps.new_zeros(n, n).scatter_add_(1, sources, taps.expand(n, -1))


def _windows(n: int, reach: int) -> Int[Tensor, "n taps"]:
    return torch.arange(n)[:, None] + torch.arange(-reach, reach + 1)


def _mirror(index: Int[Tensor, "*shape"], n: int) -> Int[Tensor, "*shape"]:
    """Fold indices into 0 to n - 1, mirrored about the outermost pixels, as often as it takes."""
    period = max(2 * (n - 1), 1)
    index = index % period
    return torch.minimum(index, period - index)
