"""Noise: operations that draw each image's values from its own random stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


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

    Source: Hendrycks & Dietterich (2019), section 3.

    Example:
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> noisy = gaussian_noise(grey, [torch.Generator().manual_seed(0)], sigma=0.08)
        >>> round((noisy - grey).std().item(), 2)
        0.08
    """
    # Drawn in float32 on the CPU whatever the pixels are, so that every device and dtype sees one noise.
    noise = torch.empty(pixels.shape, dtype=torch.float32)
    for image, generator in zip(noise, generators, strict=True):
        image.normal_(generator=generator)
    return pixels + sigma * noise.to(pixels)


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

    Source: Hendrycks & Dietterich (2019), section 3.

    Example:
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> noisy = impulse_noise(grey, [torch.Generator().manual_seed(0)], share=0.25)
        >>> noisy.unique().tolist(), round((noisy != grey).float().mean().item(), 2)
        ([0.0, 0.5, 1.0], 0.25)
    """
    drawn = torch.empty(pixels.shape, dtype=torch.float32)
    for image, generator in zip(drawn, generators, strict=True):
        image.uniform_(generator=generator)
    drawn = drawn.to(pixels.device)
    peppered = pixels.masked_fill(drawn < share / 2, 0)
    return peppered.masked_fill(drawn >= 1 - share / 2, 1)
