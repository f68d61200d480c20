"""Tone: operations on light, contrast and color, that move nothing in space."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_NOTHING = 1e-18
"""A smaller value counts as black, and a smaller spread as grey: so small, quotients and slopes overflow."""


def contrast(
    pixels: Float[Tensor, "batch 3 height width"], factor: float
) -> Float[Tensor, "batch 3 height width"]:
    """Scale each channel about its own mean over the image.

    Args:
        pixels: images.
        factor: what is left of the contrast; 1 changes nothing, 0 leaves the mean.

    Returns:
        Images of less contrast.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> contrast(torch.tensor([0.0, 1.0]).expand(1, 3, 2, 2), factor=0.2)[0, 0, 0]
        tensor([0.4000, 0.6000])
    """
    mean = pixels.mean((-2, -1), keepdim=True)
    return mean + factor * (pixels - mean)


def brightness(
    pixels: Float[Tensor, "batch 3 height width"], shift: float
) -> Float[Tensor, "batch 3 height width"]:
    """Raise the value in HSV, at most to 1, and keep hue and saturation.

    The value of a pixel is its largest channel. With hue and saturation kept, all three channels scale as it
    does, and there is no need to work out the hue. Black has neither, and becomes grey.

    Args:
        pixels: images.
        shift: what is added to the value.

    Returns:
        Brighter images.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> brown = torch.tensor([0.4, 0.2, 0.0]).view(1, 3, 1, 1)
        >>> brightness(brown, shift=0.4).flatten()
        tensor([0.8000, 0.4000, 0.0000])
    """
    value = pixels.amax(1, keepdim=True)
    raised = (value + shift).clamp(0, 1)
    black = value < _NOTHING
    return torch.where(black, raised, pixels * (raised / value.masked_fill(black, 1)))


def saturate(
    pixels: Float[Tensor, "batch 3 height width"], factor: float, shift: float
) -> Float[Tensor, "batch 3 height width"]:
    """Scale and shift the saturation in HSV, within [0, 1], and keep hue and value.

    Saturation is the spread of a pixel's channels over the largest. With hue and value kept, the distances of
    the channels from the largest scale as it does. Grey has no hue; the definition takes it for red, so that
    a positive `shift` tints it.

    Args:
        pixels: images.
        factor: what the saturation is multiplied by.
        shift: what is added to it then.

    Returns:
        Images more or less colorful.

    Source: Hendrycks & Dietterich (2019), the extra corruptions.

    Example:
        >>> brown = torch.tensor([0.4, 0.2, 0.0]).view(1, 3, 1, 1)
        >>> saturate(brown, factor=0.5, shift=0.0).flatten()
        tensor([0.4000, 0.3000, 0.2000])
        >>> saturate(torch.full((1, 3, 1, 1), 0.5), factor=5.0, shift=0.2).flatten()
        tensor([0.5000, 0.4000, 0.4000])
    """
    value = pixels.amax(1, keepdim=True)
    spread = value - pixels.amin(1, keepdim=True)
    wanted = torch.minimum((factor * spread + shift * value).clamp(min=0), value)
    grey = spread < _NOTHING
    red = pixels.new_tensor([0.0, 1.0, 1.0]).view(3, 1, 1)
    distance = torch.where(grey, red, value - pixels)
    return value - distance * (wanted / spread.masked_fill(grey, 1))
