"""Sharpness: an operation that raises the high frequencies that an image has."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from .blur import gaussian_blur


def sharpen(
    pixels: Float[Tensor, "batch 3 height width"], sigma_pixels: float, amount: float
) -> Float[Tensor, "batch 3 height width"]:
    """Unsharp masking: add what a gaussian blur would take away, several times over.

    The blur is narrow, so that the change lies as high in frequency as noise does: with σ = 0.7 and the
    amounts 1.5, 3, 5, 9 and 15 of severities 1 to 5, more than 90 % of it lies above 1/8 cycle per pixel
    (`measured_frequency`).

    Args:
        pixels: images.
        sigma_pixels: standard deviation of the blur, in pixels.
        amount: how many times the difference is added; 0 changes nothing.

    Returns:
        Sharpened images, not yet clipped.

    Example:
        >>> import torch
        >>> edge = torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(1, 3, 4, 4)
        >>> sharpen(edge, sigma_pixels=1.0, amount=1.0)[0, 0, 0, 1:3] - edge[0, 0, 0, 1:3]
        tensor([-0.1503,  0.1503])
    """
    return pixels + amount * (pixels - gaussian_blur(pixels, sigma_pixels))
