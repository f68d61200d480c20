"""Noise: operations that draw each image's values from its own random stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from .digital import without_slope
from .draws import normal, uniform
from .poisson import poisson_counts


def gaussian_noise(
    pixels: Float[Tensor, "batch 3 height width"], generators: Sequence[torch.Generator], sigma: float
) -> Float[Tensor, "batch 3 height width"]:
    """Add independent normal noise to every element.

    Args:
        pixels: images.
        generators: one random stream for each image.
        sigma: standard deviation, on the scale of the pixels.

    Returns:
        Noisy images, not yet clipped.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> noisy = gaussian_noise(grey, [torch.Generator().manual_seed(0)], sigma=0.08)
        >>> round((noisy - grey).std().item(), 2)
        0.08
    """
    return torch.add(pixels, normal(pixels.shape[1:], generators).to(pixels), alpha=sigma)


def speckle_noise(
    pixels: Float[Tensor, "batch 3 height width"], generators: Sequence[torch.Generator], sigma: float
) -> Float[Tensor, "batch 3 height width"]:
    """Add to every element normal noise in proportion to it, so that black stays black.

    Args:
        pixels: images.
        generators: one random stream for each image.
        sigma: standard deviation, as a share of the element.

    Returns:
        Noisy images, not yet clipped.

    Source: Hendrycks & Dietterich (2019), the extra corruptions.

    Example:
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> noisy = speckle_noise(grey, [torch.Generator().manual_seed(0)], sigma=0.2)
        >>> round((noisy - grey).std().item(), 2)
        0.1
    """
    return torch.addcmul(pixels, pixels, normal(pixels.shape[1:], generators).to(pixels), value=sigma)


def shot_noise(
    pixels: Float[Tensor, "batch 3 height width"], generators: Sequence[torch.Generator], photons: float
) -> Float[Tensor, "batch 3 height width"]:
    """Count photons: every element becomes a Poisson number with the element as its mean.

    One uniform number per element is turned into a count, so that two images of one stream see the same
    luck: where a pixel is brighter, its count is the same or larger.

    Args:
        pixels: images; what rounding put below 0 or above 1 counts as 0 or 1.
        generators: one random stream for each image.
        photons: expected count of an element of 1; fewer are noisier.

    Returns:
        Counts divided by `photons`, not yet clipped.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> noisy = shot_noise(grey, [torch.Generator().manual_seed(0)], photons=8)
        >>> round(noisy.mean().item(), 2), round(noisy.var().item() * 8, 2)
        (0.5, 0.5)
    """
    drawn = uniform(pixels.shape[1:], generators).to(pixels.device)
    counts = poisson_counts(pixels.detach().clamp(0, 1), drawn, photons)
    return without_slope(counts.to(pixels.dtype).div_(photons), pixels)


def impulse_noise(
    pixels: Float[Tensor, "batch 3 height width"], generators: Sequence[torch.Generator], share: float
) -> Float[Tensor, "batch 3 height width"]:
    """Salt and pepper: set a share of the elements to 0 or 1, either with the same chance.

    Each element is drawn by itself, so that a pixel may lose one channel and keep the others.

    Args:
        pixels: images.
        generators: one random stream for each image.
        share: chance of an element being replaced.

    Returns:
        Noisy images.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> noisy = impulse_noise(grey, [torch.Generator().manual_seed(0)], share=0.25)
        >>> noisy.unique().tolist(), round((noisy != grey).float().mean().item(), 2)
        ([0.0, 0.5, 1.0], 0.25)
    """
    drawn = uniform(pixels.shape[1:], generators).to(pixels.device)
    peppered = pixels.masked_fill(drawn < share / 2, 0)
    return peppered.masked_fill(drawn >= 1 - share / 2, 1)
