"""Where in frequency a perturbation lies, measured rather than assumed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import ShapeError
from .pixels import LUMA, check_batch

HIGH_FREQUENCY = 1 / 8
"""Where high frequencies begin, in cycles per pixel, in any direction."""


@dataclass(frozen=True)
class Spectrum:
    """Frequencies of a perturbation, one value for each image, in float64 on the CPU.

    Attributes:
        hf_energy: share of the perturbation's energy that lies above 1/8 cycle per pixel; 0.951 for white
            noise, NaN where nothing was changed.
        delta_hf_db: change of the image's own share of such energy, its mean left out, in decibels: below 0
            where high frequencies are lost. NaN for an image of one color.
        rms: root mean square of the perturbation over pixels and channels, on the scale of the pixels.
        radial_power: mean power of the perturbation's luma in rings of frequency, such that white noise in
            luma has its variance in every ring.
        radial_frequency: the rings' frequencies, in cycles per pixel, one over the shorter side apart.

    Example:
        See `spectrum`, which makes them.
    """

    hf_energy: Float[Tensor, " batch"]
    delta_hf_db: Float[Tensor, " batch"]
    rms: Float[Tensor, " batch"]
    radial_power: Float[Tensor, "batch n_bins"]
    radial_frequency: Float[Tensor, " n_bins"]


def spectrum(pixels: Tensor, corrupted: Tensor) -> Spectrum:
    """Measure in which frequencies `corrupted` differs from `pixels`.

    Two measures, since they may disagree: a blur's perturbation is rich in high frequencies, which it takes
    out of the image. Energy is |F|² after a Hann window, without which an image's opposite borders, side by
    side in F, would pass for high frequencies.

    - `hf_energy` and `radial_power` are of the perturbation's luma (Rec. 601), and keep its mean: a shift in
      brightness is a low frequency.
    - `delta_hf_db` is summed over the three channels, since noise that differs between them cancels in luma,
      and drops the image's mean: a change of contrast then changes nothing.

    Args:
        pixels: [batch 3 height width], floats in [0, 1].
        corrupted: the same images after the perturbation.

    Returns:
        The measures, for each image.

    Raises:
        ShapeError: the two differ in shape.
        PixelError: either is no batch of images in [0, 1].

    Source: Yin et al. (2019), A Fourier perspective on model robustness in computer vision, which looks at
    the energy of C(x) - x by frequency.

    Example:
        >>> from vitlens.images import corrupt
        >>> pixels = torch.full((1, 3, 64, 64), 0.5)
        >>> noisy = corrupt(pixels, "gaussian_noise", severity=1, image_ids=["a"])
        >>> measured = spectrum(pixels, noisy)
        >>> round(measured.rms.item(), 2), round(measured.hf_energy.item(), 2)
        (0.08, 0.95)
    """
    check_batch(pixels, "The pixels before the perturbation")
    check_batch(corrupted, "The pixels after the perturbation")
    if pixels.shape != corrupted.shape:
        raise ShapeError(
            f"pixels have shape {list(pixels.shape)} and corrupted {list(corrupted.shape)}.",
            expected="one shape",
            remedy="Give the same images before and after the perturbation.",
        )
    before, after = (images.detach().to("cpu", torch.float64) for images in (pixels, corrupted))
    perturbation = after - before
    height, width = pixels.shape[-2:]
    radius = torch.hypot(frequencies(height)[:, None], frequencies(width)[: width // 2 + 1])
    high = radius > HIGH_FREQUENCY
    power = _power((perturbation * perturbation.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True))
    own_before, own_after = (_high_share(_power(_without_mean(images)), high) for images in (before, after))
    ring = (radius * min(height, width)).round().long().flatten()
    n_in_ring = torch.bincount(ring, _multiplicity(width).expand_as(radius).flatten())
    ring_sums = power.new_zeros(len(power), len(n_in_ring)).index_add_(1, ring, power.flatten(1))
    return Spectrum(
        hf_energy=_high_share(power, high),
        delta_hf_db=10 * torch.log10(own_after / own_before),
        rms=perturbation.square().mean((1, 2, 3)).sqrt(),
        radial_power=ring_sums / n_in_ring,
        radial_frequency=torch.arange(len(n_in_ring), dtype=torch.float64) / min(height, width),
    )


def frequencies(n: int) -> Float[Tensor, " n"]:
    """Frequencies of a line of n pixels in F's order, in cycles per pixel.

    Each is a single division, so that 1/8 is 1/8.

    Example:
        >>> frequencies(4).tolist()
        [0.0, 0.25, -0.5, -0.25]
    """
    index = torch.arange(n, dtype=torch.float64)
    return torch.where(index < n / 2, index, index - n) / n


def _multiplicity(width: int) -> Float[Tensor, " column"]:
    """How many of F's columns each stands for: of a real image, half of F mirrors the other half."""
    column = torch.arange(width // 2 + 1)
    return 2.0 - ((column == 0) | (2 * column == width)).double()


def _window(height: int, width: int) -> Float[Tensor, "height width"]:
    """Hann, without the zeros at its ends, which would waste a border and leave nothing of a line."""
    down, across = (
        torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1] for n in (height, width)
    )
    return torch.outer(down, across)


def _without_mean(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Images less their mean under the window; exactly 0 for an image of one color."""
    # Rounding would leave a pattern of its own in an image of one color, were its corner not taken off first.
    images = images - images[..., :1, :1]
    window = _window(*images.shape[-2:])
    return images - (images * window).sum((-2, -1), keepdim=True) / window.sum()


def _power(images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch row column"]:
    """|F|² under the window, summed over channels; its mean over all of F is the mean square."""
    window = _window(*images.shape[-2:])
    transform = torch.view_as_real(torch.fft.rfft2(images * window))
    power = transform.square().sum((1, -1)) / window.square().sum()
    return power * _multiplicity(images.shape[-1])


def _high_share(
    power: Float[Tensor, "batch row column"], high: Bool[Tensor, "row column"]
) -> Float[Tensor, " batch"]:
    return (power * high).sum((-2, -1)) / power.sum((-2, -1))
