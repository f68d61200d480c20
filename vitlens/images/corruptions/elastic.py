"""Elastic: an image stretched as a whole, then displaced point by point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample

from .draws import uniform
from .kernels import filter_matrix, gaussian_taps, mirrored_at_edges, reach_of, windows

_GAUSSIAN_TRUNCATE = 3.0
"""Half-width of the gaussian kernel in standard deviations."""


def elastic(
    pixels: Float[Tensor, "batch 3 height width"],
    generators: Sequence[torch.Generator],
    alpha_pixels: float,
    sigma_pixels: float,
    affine_pixels: float,
) -> Float[Tensor, "batch 3 height width"]:
    """Map an image by a random affine transform, then displace its points by a smooth random field.

    Both read between the pixels by bilinear interpolation: the affine transform from the image mirrored
    about its outermost pixels, the displacement from the image mirrored at their outer edges. The public
    implementation rounds the affine transform's positions to 1/32 pixel; here they are exact.

    Args:
        pixels: images.
        generators: one random stream for each image.
        alpha_pixels: factor of the displacement field, a gaussian-filtered field of U(-1, 1), in pixels.
        sigma_pixels: standard deviation of the gaussian that filters it, in pixels.
        affine_pixels: how far each coordinate of the three points that define the affine transform moves at
            most, in pixels.

    Returns:
        Distorted images.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C, after Simard, Steinkraus & Platt
    (2003), Best practices for convolutional neural networks.

    Example:
        >>> slope = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
        >>> generators = [torch.Generator().manual_seed(0)]
        >>> moved = elastic(slope, generators, alpha_pixels=12.2, sigma_pixels=2.44, affine_pixels=0.0)
        >>> bool((moved - slope).abs().max() > 1 / 64)
        True
    """
    height, width = pixels.shape[-2:]
    moves = 2 * uniform((3, 2), generators) - 1
    fields = (2 * uniform((2, height, width), generators)).sub_(1)
    matrices = affine_matrices(affine_pixels * moves.double(), height, width)
    positions = _affine_positions(matrices, height, width, pixels.device).to(pixels)
    stretched = grid_sample(pixels, positions, padding_mode="reflection", align_corners=True)
    positions = _displaced_positions(fields.to(pixels.device), alpha_pixels, sigma_pixels).to(pixels)
    return grid_sample(stretched, positions, padding_mode="reflection", align_corners=False)


def affine_matrices(
    moves_pixels: Float[Tensor, "batch 3 2"], height: int, width: int
) -> Float[Tensor, "batch 3 2"]:
    """The affine transforms that take three moved points back to where they were.

    With c the image's middle and s a third of its shorter side, both rounded down, the points are
    c + (s, s), c + (s, -s) and c - (s, s), as (x, y). On an image that is not square the middle is the true
    one; the definition, made for square images, exchanges its coordinates.

    Args:
        moves_pixels: how far each point moves, as (x, y), in pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        M such that (x, y, 1) @ M is where the transformed image's pixel (x, y) comes from.

    Example:
        >>> affine_matrices(torch.tensor([[[2.0, 0.0]] * 3]).double(), 64, 64)[0].round(decimals=4) + 0.0
        tensor([[ 1.,  0.],
                [ 0.,  1.],
                [-2.,  0.]], dtype=torch.float64)
    """
    third = min(height, width) // 3
    corners = moves_pixels.new_tensor([[third, third], [third, -third], [-third, -third]])
    points = corners + moves_pixels.new_tensor([width // 2, height // 2])
    moved = torch.cat([points + moves_pixels, torch.ones_like(moves_pixels[..., :1])], -1)
    # The pseudoinverse, since three points may come to lie on one line.
    matrices: Tensor = torch.linalg.pinv(moved) @ points
    return matrices


def _affine_positions(
    matrices: Float[Tensor, "batch 3 2"], height: int, width: int, device: torch.device
) -> Float[Tensor, "batch height width 2"]:
    """Where each pixel comes from, as (x, y); -1 and 1 are the middles of the outermost pixels."""
    scale = 2 / matrices.new_tensor([width - 1, height - 1]).clamp_min(1)
    # Two lines of numbers for each image, exact to float32, so that the plane takes one addition.
    of_x, of_y, constant = (matrices * scale).unsqueeze(-2).unbind(1)
    columns = of_x * torch.arange(width)[:, None] + constant - 1
    rows = of_y * torch.arange(height)[:, None]
    return columns.float().to(device)[:, None] + rows.float().to(device)[:, :, None]


def _displaced_positions(
    fields: Float[Tensor, "batch 2 height width"], alpha_pixels: float, sigma_pixels: float
) -> Float[Tensor, "batch height width 2"]:
    """Where each pixel comes from, as (x, y); -1 and 1 are the outer edges of the outermost pixels."""
    height, width = fields.shape[-2:]
    rows, columns = (_gaussian_matrix(n, sigma_pixels).to(fields) for n in (height, width))
    positions = rows @ (fields @ columns.T)
    for axis, n in enumerate((width, height)):
        middles = (2 * torch.arange(n, device=fields.device) + 1) / n - 1
        positions[:, axis].mul_(2 * alpha_pixels / n).add_(middles if axis == 0 else middles[:, None])
    return positions.movedim(1, -1)


def _gaussian_matrix(n: int, sigma_pixels: float) -> Float[Tensor, "n n"]:
    """The matrix whose product with a line of n pixels filters it, mirrored at its outer edges."""
    taps = gaussian_taps(sigma_pixels, reach_of(sigma_pixels, _GAUSSIAN_TRUNCATE))
    return filter_matrix(taps, mirrored_at_edges(windows(n, len(taps) // 2), n))
