"""The blur of a camera that moves, and the blur along an angle that it shares with snow."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

_MAX_ANGLE_DEGREES = 45.0
"""Cameras are mostly swept sideways."""


def motion_blur(
    pixels: Float[Tensor, "batch 3 height width"],
    generators: Sequence[torch.Generator],
    radius_pixels: int,
    sigma_pixels: float,
) -> Float[Tensor, "batch 3 height width"]:
    """Blur along one angle for each image, drawn evenly from -45° to 45°.

    Args:
        pixels: images.
        generators: one random stream for each image.
        radius_pixels: half the length of the blur, which goes to one side alone.
        sigma_pixels: standard deviation of the one-sided gaussian, in pixels.

    Returns:
        Blurred images; the definition rounds them to 8 bits, which is left out.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 3, 16, 16)
        >>> blurred = motion_blur(stripes, [torch.Generator().manual_seed(0)], 10, 3.0)
        >>> bool(blurred.std() < stripes.std() / 2)
        True
    """
    angles = [draw_angle(g, -_MAX_ANGLE_DEGREES, _MAX_ANGLE_DEGREES) for g in generators]
    return blur_along(pixels, angles, radius_pixels, sigma_pixels)


def draw_angle(generator: torch.Generator, low_degrees: float, high_degrees: float) -> float:
    """One angle, drawn evenly.

    Args:
        generator: the random stream.
        low_degrees: the least angle.
        high_degrees: the greatest.

    Returns:
        An angle, in degrees.

    Example:
        >>> -45 <= draw_angle(torch.Generator().manual_seed(0), -45.0, 45.0) <= 45
        True
    """
    return (
        low_degrees
        + (high_degrees - low_degrees) * torch.rand((), generator=generator, dtype=torch.float32).item()
    )


def blur_along(
    planes: Float[Tensor, "batch channels height width"],
    angles_degrees: Sequence[float],
    radius_pixels: int,
    sigma_pixels: float,
) -> Float[Tensor, "batch channels height width"]:
    """Average each pixel with those that follow it along an angle, weighted by one side of a gaussian.

    Tap i of 2 · radius + 1 has the weight exp(-i² / 2σ²), divided by the sum, and is the image shifted by i
    pixels along the angle, rounded to whole pixels; beyond the border its last pixel is repeated.

    Args:
        planes: images.
        angles_degrees: one for each image; 0 looks to the right, 90 down, so that a point's trail leads to
            the left, and up.
        radius_pixels: half the length of the kernel, in pixels.
        sigma_pixels: standard deviation of the gaussian, in pixels.

    Returns:
        Blurred images.

    Source: ImageMagick's `MotionBlurImage`.

    Example:
        >>> point = torch.zeros(1, 1, 3, 5)
        >>> point[..., 1, 4] = 1.0
        >>> blur_along(point, [0.0], radius_pixels=1, sigma_pixels=10.0)[0, 0, 1].round(decimals=2)
        tensor([0.0000, 0.0000, 0.3300, 0.6600, 1.0000])
    """
    paths = [_path(angle, radius_pixels, sigma_pixels) for angle in angles_degrees]
    if planes.device.type == "cpu":
        images = [_sum_of_slices(image, path) for image, path in zip(planes, paths, strict=True)]
        return torch.stack(images) if images else planes.clone()
    return _sum_of_gathers(planes, paths)


_Path = dict[tuple[int, int], float]
"""The weight of each shift, (down, right) in pixels; taps that round to one shift are one."""


def _path(angle_degrees: float, radius_pixels: int, sigma_pixels: float) -> _Path:
    down, right = math.sin(math.radians(angle_degrees)), math.cos(math.radians(angle_degrees))
    weights = [math.exp(-(i**2) / (2 * sigma_pixels**2)) for i in range(2 * radius_pixels + 1)]
    path: _Path = {}
    for i, weight in enumerate(weights):
        shift = math.ceil(i * down - 0.5), math.ceil(i * right - 0.5)
        path[shift] = path.get(shift, 0.0) + weight / sum(weights)
    return path


def _sum_of_slices(
    image: Float[Tensor, "channels height width"], path: _Path
) -> Float[Tensor, "channels height width"]:
    """One image at a time, which stays in the cache, and no indices: the way for a CPU."""
    height, width = image.shape[-2:]
    top, left = (-min(shift[axis] for shift in path) for axis in (0, 1))
    bottom, right = (max(shift[axis] for shift in path) for axis in (0, 1))
    framed = pad(image[None], (left, right, top, bottom), mode="replicate")[0]
    blurred = torch.zeros_like(image)
    for (down, along), weight in path.items():
        y, x = top + down, left + along
        blurred.add_(framed[:, y : y + height, x : x + width], alpha=weight)
    return blurred


def _sum_of_gathers(
    planes: Float[Tensor, "batch channels height width"], paths: list[_Path]
) -> Float[Tensor, "batch channels height width"]:
    """All images at once, tap by tap: the way where each call costs more than its arithmetic."""
    height, width = planes.shape[-2:]
    n_taps = max((len(path) for path in paths), default=0)
    # What a shorter path lacks weighs nothing.
    taps = [[(*shift, weight) for shift, weight in path.items()] for path in paths]
    full = [path + [(0, 0, 0.0)] * (n_taps - len(path)) for path in taps]
    table = torch.tensor(full, dtype=torch.float64).view(len(paths), n_taps, 3).to(planes.device)
    down, right, weights = table.transpose(0, 1).unbind(-1)
    rows = (torch.arange(height, device=planes.device) + down.long()[..., None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=planes.device) + right.long()[..., None]).clamp(0, width - 1)
    flat = planes.flatten(-2)
    blurred = torch.zeros_like(flat)
    for y, x, weight in zip(rows, columns, weights.to(planes.dtype), strict=True):
        index = (y[:, :, None] * width + x[:, None]).flatten(1)
        shifted = flat.gather(-1, index[:, None].expand(-1, flat.shape[1], -1))
        blurred = blurred + weight[:, None, None] * shifted
    return blurred.view(planes.shape)
