"""The blur of frosted glass: pixels that are copied from nearby."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .blur import gaussian_blur


def glass_blur(
    pixels: Float[Tensor, "batch 3 height width"],
    generators: Sequence[torch.Generator],
    sigma_pixels: float,
    max_delta_pixels: int,
    n_iterations: int,
) -> Float[Tensor, "batch 3 height width"]:
    """Blur, copy pixels from nearby along a scan, and blur again.

    The scan goes from the bottom right to the top left, and each pixel takes the value that a neighbor has
    by then, so that a value may travel far. Pixels as near to the border as neighbors may be stay as they
    are. What moves does not depend on the image: each scan is solved as one map of where pixels come from.

    Args:
        pixels: images.
        generators: one random stream for each image.
        sigma_pixels: standard deviation of both gaussian blurs, in pixels.
        max_delta_pixels: neighbors lie from so many pixels before to one fewer after, along each axis.
        n_iterations: how many scans.

    Returns:
        Blurred images; the definition cuts to 8 bits between the first blur and the scans, which is left out.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C. Its program means to swap two
    pixels; what it computes, and what is done here, is a copy.

    Example:
        >>> stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 3, 32, 32)
        >>> blurred = glass_blur(stripes, [torch.Generator().manual_seed(0)], 0.7, 1, 2)
        >>> bool(blurred.std() < stripes.std() / 2)
        True
    """
    height, width = pixels.shape[-2:]
    maps = [
        scan_sources(_draw_steps(generator, height, width, max_delta_pixels, n_iterations))
        for generator in generators
    ]
    blurred = gaussian_blur(pixels, sigma_pixels).flatten(-2)
    if maps:
        sources = torch.stack(maps).flatten(1).long().to(pixels.device)
        blurred = blurred.gather(-1, sources[:, None].expand(-1, blurred.shape[1], -1))
    return gaussian_blur(blurred.view(pixels.shape), sigma_pixels)


def scan_sources(steps: Int[Tensor, "n_iterations height width"]) -> Int[Tensor, "height width"]:
    """Where each pixel comes from after scans from the bottom right to the top left.

    Args:
        steps: for each scan, from where in the flattened image each pixel is copied, as a distance: positive
            is further on, where the scan has been already; 0 leaves the pixel as it is.

    Returns:
        The index, in the flattened image, of the pixel whose value each pixel ends with.

    Example:
        >>> scan_sources(torch.tensor([[[1, 1, 0]]]))
        tensor([[2, 2, 2]])
        >>> scan_sources(torch.tensor([[[0, -1, -1]]]))
        tensor([[0, 0, 1]])
    """
    flat = torch.arange(steps[0].numel(), dtype=steps.dtype)
    sources = flat
    for step in steps.flatten(1):
        # A pixel that copies from further on gets what that one has got; follow these until one looks back.
        last = flat + step.clamp(min=0)
        while True:
            further = last.index_select(0, last)
            if torch.equal(further, last):
                break
            last = further
        came_from = (flat + step).index_select(0, last)
        sources = sources.index_select(0, came_from)
    return sources.view(steps.shape[1:])


def _draw_steps(
    generator: torch.Generator, height: int, width: int, max_delta_pixels: int, n_iterations: int
) -> Int[Tensor, "n_iterations height width"]:
    """One neighbor for each pixel and scan, drawn evenly; 0 near the border, whose pixels stay."""
    d = max_delta_pixels
    steps = torch.zeros(n_iterations, height, width, dtype=torch.int32)
    if min(height, width) <= 2 * d:
        return steps
    delta = torch.arange(-d, d, dtype=torch.int32)
    neighbors = (delta[:, None] * width + delta).flatten()
    size = (n_iterations, height - 2 * d, width - 2 * d)
    drawn = torch.randint(len(neighbors), size, generator=generator, dtype=torch.int32)
    steps[:, d + 1 : height - d + 1, d + 1 : width - d + 1] = neighbors.take(drawn.long())
    return steps
