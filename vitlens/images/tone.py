"""Tone: operations on how light and dark an image is, that move nothing in space."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def contrast(
    pixels: Float[Tensor, "batch 3 height width"], factor: float
) -> Float[Tensor, "batch 3 height width"]:
    """Scale each channel about its own mean over the image.

    Args:
        pixels: images.
        factor: what is left of the contrast; 1 changes nothing, 0 leaves the mean.

    Returns:
        Images of less contrast.

    Source: Hendrycks & Dietterich (2019), section 3.

    Example:
        >>> import torch
        >>> contrast(torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2), factor=0.2)[0, 0, 0]
        tensor([0.4000, 0.6000])
    """
    mean = pixels.mean((-2, -1), keepdim=True)
    return mean + factor * (pixels - mean)
