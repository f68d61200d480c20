"""Blurs that spread every pixel alike: by a gaussian, and by a disk."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor

from .kernels import filter_matrix, framed, gaussian_taps, mirrored, reach_of, windows
from .separable import LineFilter, filter_lines, line_filter


def gaussian_blur(
    pixels: Float[Tensor, "batch channels height width"], sigma_pixels: float
) -> Float[Tensor, "batch channels height width"]:
    """Blur by a gaussian, cut off at four standard deviations, with the border's pixels repeated outward.

    Matrix products along each axis: the border and a kernel wider than the image cost nothing.

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
    rows = _gaussian_filter(height, sigma_pixels, pixels.dtype, pixels.device)
    columns = _gaussian_filter(width, sigma_pixels, pixels.dtype, pixels.device)
    return filter_lines(pixels, [(rows, columns)])


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

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> point = torch.zeros(1, 3, 33, 33)
        >>> point[..., 16, 16] = 1.0
        >>> blurred = defocus_blur(point, radius_pixels=3, alias_sigma_pixels=0.1)
        >>> round(1 / blurred[0, 0, 16, 16].item()), round(blurred[0, 0].sum().item(), 4)
        (29, 1.0)
    """
    reach = max(8, radius_pixels)
    height, width = pixels.shape[-2:]
    planes = framed(pixels.flatten(0, 1), reach)
    # What wraps around a circular convolution stays inside the frame that is cut away.
    size = (_fast_size(planes.shape[-2]), _fast_size(planes.shape[-1]))
    transfer = _disk_transfer(radius_pixels, alias_sigma_pixels, size, pixels.dtype, pixels.device)
    # Two planes to a transform, as real and imaginary part: the kernel is real and keeps them apart.
    n_pairs = (len(planes) + 1) // 2
    pairs = torch.complex(planes[:n_pairs], planes[-n_pairs:])
    blurred = torch.fft.ifft2(torch.fft.fft2(pairs, s=size) * transfer)
    cut = blurred[:, reach : reach + height, reach : reach + width]
    return torch.cat([cut.real, cut.imag[2 * n_pairs - len(planes) :]]).view(pixels.shape)


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
    taps = gaussian_taps(alias_sigma_pixels, reach=1 if radius_pixels <= 8 else 2)
    soften = filter_matrix(taps, mirrored(windows(len(disk), len(taps) // 2), len(disk)))
    return soften @ (disk / disk.sum()) @ soften.T


@lru_cache(maxsize=32)
def _gaussian_filter(n: int, sigma_pixels: float, dtype: torch.dtype, device: torch.device) -> LineFilter:
    taps = gaussian_taps(sigma_pixels, reach_of(sigma_pixels))
    return line_filter(windows(n, len(taps) // 2).clamp(0, n - 1), taps.expand(n, -1), dtype, device)


@lru_cache(maxsize=16)
def _disk_transfer(
    radius_pixels: int,
    alias_sigma_pixels: float,
    size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "rows columns"]:
    """What the disk's blur multiplies each frequency by: real, since the disk is its own mirror image."""
    with torch.inference_mode(False):
        kernel = disk_kernel(radius_pixels, alias_sigma_pixels)
        reach = len(kernel) // 2
        centered = torch.zeros(size, dtype=torch.float64)
        centered[: len(kernel), : len(kernel)] = kernel
        transfer: Tensor = torch.fft.fft2(centered.roll((-reach, -reach), (0, 1))).real
        return transfer.to(device, dtype)


def _fast_size(n: int) -> int:
    """A size of at least n that is transformed fast: a multiple of 16 with the prime factors 2, 3 and 5."""
    return 16 * int(next_fast_len(-(-n // 16), real=True))
