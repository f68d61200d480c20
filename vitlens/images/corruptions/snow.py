"""Snow: flakes that leave streaks on a whitened image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..pixels import LUMA
from .draws import normal
from .motion import blur_along, draw_angle
from .separable import filter_lines
from .zoom import cropped_length, zoom_filter

_ANGLES_DEGREES = (-135.0, -45.0)
"""Flakes fall within 45° of straight down."""


def snow(
    pixels: Float[Tensor, "batch 3 height width"],
    generators: Sequence[torch.Generator],
    mean: float,
    sigma: float,
    zoom: float,
    threshold: float,
    radius_pixels: int,
    blur_sigma_pixels: float,
    mix: float,
) -> Float[Tensor, "batch 3 height width"]:
    """Whiten the image and add streaks of snow, and the same streaks turned by 180°.

    Args:
        pixels: images.
        generators: one random stream for each image.
        mean: of the normal noise that the flakes are the peaks of.
        sigma: its standard deviation.
        zoom: size of a flake, in pixels: what the noise is stretched by.
        threshold: noise below it is no snow.
        radius_pixels: a streak is 2 · radius pixels long.
        blur_sigma_pixels: standard deviation of a streak's one-sided gaussian, in pixels.
        mix: share of the image that is not whitened.

    Returns:
        Images in snow, not yet clipped; the definition rounds the streaks to 8 bits before and after they
        are blurred, which is left out. Of the noise only the center that the zoom shows is drawn.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> night = torch.zeros(1, 3, 32, 32)
        >>> snowy = snow(night, [torch.Generator().manual_seed(0)], 0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55)
        >>> round(snowy.min().item(), 3), bool(snowy.max() > 0.3)
        (0.225, True)
    """
    height, width = pixels.shape[-2:]
    cropped = cropped_length(height, zoom), cropped_length(width, zoom)
    noise = mean + sigma * normal((1, *cropped), generators)
    angles = [draw_angle(generator, *_ANGLES_DEGREES) for generator in generators]
    # Whether a flake reaches the threshold is settled where it was drawn: rounding elsewhere may differ.
    flakes = snow_flakes(noise, height, width, zoom, threshold).to(pixels)
    streaks = blur_along(flakes, angles, radius_pixels, blur_sigma_pixels)
    red, green, blue = pixels.split(1, dim=1)
    grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    white = torch.maximum(pixels, 1.5 * grey + 0.5)
    return torch.lerp(white, pixels, mix) + (streaks + streaks.flip(-2, -1))


def snow_flakes(
    noise: Float[Tensor, "batch 1 cropped_height cropped_width"],
    height: int,
    width: int,
    zoom: float,
    threshold: float,
) -> Float[Tensor, "batch 1 height width"]:
    """The peaks of noise, stretched over an image.

    Args:
        noise: one value for each pixel that the zoom shows.
        height: of the image, in pixels.
        width: of the image, in pixels.
        zoom: what the noise is stretched by.
        threshold: noise below it, once stretched, becomes 0.

    Returns:
        Flakes, in [0, 1].

    Example:
        >>> noise = torch.tensor([[[[0.0, 0.9], [0.0, 0.9]]]])
        >>> snow_flakes(noise, height=1, width=4, zoom=2.0, threshold=0.5)
        tensor([[[[0.0000, 0.0000, 0.6000, 0.9000]]]])
    """
    filters = [zoom_filter(n, zoom, 0, noise.dtype, noise.device) for n in (height, width)]
    stretched = filter_lines(noise, [(filters[0], filters[1])])
    return stretched.masked_fill(stretched < threshold, 0).clamp(0, 1)
