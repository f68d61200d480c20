"""Perturbations that are made in the Fourier domain: noise in one band of frequencies, and single waves."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import ConditionError
from .image_ids import check_image_ids
from .options import Options, as_number
from .pixels import check_batch
from .spectrum import frequencies
from .streams import stream
from .values import is_real

HIGHEST = 0.71
"""The upper end of the widest band, in cycles per pixel: a little above √½, that of the corner of F."""


class FourierPerturbation(ABC):
    """What is added to each image, drawn from a random stream of the image's own."""

    STREAM: ClassVar[str]
    """What the stream is named by, in place of a corruption."""

    @abstractmethod
    def check_size(self, height: int, width: int) -> None:
        """Raise `ConditionError` where images of this size cannot hold the perturbation."""

    @abstractmethod
    def drawn(self, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "*axes"]:
        """What one image draws, in float32 on the CPU."""

    @abstractmethod
    def perturbation(
        self, drawn: Float[Tensor, "batch ..."], height: int, width: int
    ) -> Float[Tensor, "batch 3 height width"]:
        """What is added, from what was drawn: on its device, in its dtype."""

    def apply(
        self, pixels: Tensor, image_ids: Sequence[str] | None, *, seed: int = 0, step: int | None = None
    ) -> Float[Tensor, "batch 3 height width"]:
        """Add it to a batch of images.

        Args:
            pixels: [batch 3 height width], floats in [0, 1], on any device.
            image_ids: one for each image, no two alike.
            seed: the study's seed.
            step: the training step, where each step shall draw anew.

        Returns:
            The same shape, dtype and device, clipped to [0, 1].

        Raises:
            PixelError: the pixels are no such batch.
            ConditionError: the image ids do not fit, or images of this size cannot hold the perturbation.
        """
        check_batch(pixels, f"The pixels to be perturbed by '{self.STREAM}'")
        ids = check_image_ids(image_ids, len(pixels), self.STREAM, draws=True)
        height, width = pixels.shape[-2:]
        self.check_size(height, width)
        if len(pixels) == 0:
            return pixels.clone()
        precise = pixels if pixels.dtype == torch.float64 else pixels.float()
        # The stream names no band and no frequency: all of them are cut from one draw of the image, so that
        # what differs between two of them is the frequency alone.
        drawn = torch.stack(
            [self.drawn(height, width, stream(seed, each, self.STREAM, 0, step)) for each in ids]
        ).to(precise)
        with torch.autocast(pixels.device.type, enabled=False):
            perturbed = (precise + self.perturbation(drawn, height, width)).clamp(0, 1)
        return perturbed.to(pixels.dtype)


@dataclass(frozen=True)
class FourierNoise(FourierPerturbation):
    """Gaussian noise that lies in one band of frequencies: "fourier:band=0-1/8,rms=0.1" as a condition.

    White noise, each channel for itself, loses all frequencies outside the band and is then scaled, so that
    each image's perturbation has exactly the given rms before it is clipped to [0, 1]. Bands of one image
    are cut from one draw: before they are scaled, those of neighboring bands add up to that of the whole.

    Attributes:
        band_cycles_per_pixel: (low, high), 0 <= low < high <= 0.71, of the distance from frequency 0 in any
            direction: low itself belongs to the band, high does not. A band from 0 on holds frequency 0, a
            shift of color. The corner's √½ is the highest frequency there is.
        rms: root mean square of the perturbation over pixels and channels, 0 to 1, on the pixels' scale.

    Raises:
        ConditionError: the band or the rms is none.

    Source: Yin et al. (2019), A Fourier perspective on model robustness in computer vision, which adds noise
    of limited bands.

    Example:
        >>> FourierNoise((0.0, 0.125), 0.1).band_cycles_per_pixel
        (0.0, 0.125)
    """

    STREAM: ClassVar[str] = "fourier"
    OPTIONS: ClassVar[tuple[str, ...]] = ("band", "rms")

    band_cycles_per_pixel: tuple[float, float]
    rms: float = 0.1

    def __post_init__(self) -> None:
        band: object = self.band_cycles_per_pixel
        if not isinstance(band, tuple | list) or len(band) != 2 or not all(map(is_real, band)):
            raise ConditionError(
                f"The band of Fourier noise is {band!r}.",
                expected="two numbers (low, high), in cycles per pixel",
                remedy="Write (0, 1/8) for low frequencies and (1/8, 0.71) for high ones.",
            )
        low, high = self.band_cycles_per_pixel
        # Written so that NaN is refused too.
        if not 0 <= low < high <= HIGHEST:
            raise ConditionError(
                f"The band of Fourier noise goes from {low:g} to {high:g} cycles per pixel.",
                expected=f"0 <= low < high <= {HIGHEST}, the highest frequency of an image being √½",
                remedy="Write (0, 1/8) for low frequencies and (1/8, 0.71) for high ones.",
            )
        if not is_real(self.rms) or not 0 <= self.rms <= 1:
            raise ConditionError(
                f"The rms of Fourier noise is {self.rms!r}.",
                expected="a value in [0, 1], on the scale of the pixels",
                remedy="0.1 is usual; of 255 levels, write 26/255.",
            )

    @classmethod
    def from_options(cls, options: Options) -> FourierNoise:
        """The noise that a condition's string asks for: a band, and an rms of 0.1 unless it says another.

        Args:
            options: what stands after `fourier:`.

        Returns:
            The noise.

        Raises:
            ConditionError: the band is missing or none, or the rms is none.

        Example:
            >>> text = "band=1/8-0.71,rms=0.05"
            >>> FourierNoise.from_options(Options(f"fourier:{text}", text, FourierNoise.OPTIONS))
            FourierNoise(band_cycles_per_pixel=(0.125, 0.71), rms=0.05)
        """
        band = options.text("band")
        low, _, high = (band or "").partition("-")
        ends = as_number(low), as_number(high)
        if ends[0] is None or ends[1] is None:
            raise options.wrong(
                "has no band" if band is None else f"has band={band}",
                "a band LOW-HIGH in cycles per pixel",
                "Write fourier:band=0-1/8,rms=0.1, say.",
            )
        try:
            return cls((ends[0], ends[1]), options.number("rms", cls.rms))
        except ConditionError as error:
            given = error.given.removesuffix(".")
            raise options.wrong(f"is none: {given}", error.expected, error.remedy) from None

    def check_size(self, height: int, width: int) -> None:
        """Refuse a band between two neighboring frequencies of images of `height` × `width` pixels.

        Raises:
            ConditionError: it is.
        """
        radius = _radius(height, width)
        if not self._band(radius).any():
            low, high = self.band_cycles_per_pixel
            # Frequency 0 lies below any band that is empty.
            ends = [radius[radius < low].max(), *radius[radius >= high].sort().values[:1]]
            nearest = " and ".join(f"{end.item():.4g}" for end in ends)
            raise ConditionError(
                f"Images of {height} × {width} pixels have no frequency from {low:g} to {high:g} cycles per "
                "pixel.",
                expected=f"a band that holds one of theirs, the nearest of which are {nearest}",
                remedy="Widen the band.",
            )

    def drawn(self, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "3 height width"]:
        """White noise of standard deviation 1, `height` × `width`, from `generator`."""
        return torch.randn(3, height, width, generator=generator)

    def perturbation(
        self, drawn: Float[Tensor, "batch 3 height width"], height: int, width: int
    ) -> Float[Tensor, "batch 3 height width"]:
        """The white noise `drawn`, `height` × `width`, scaled, without what lies outside the band."""
        band = self._band(_radius(height, width))[:, : width // 2 + 1].to(drawn.device)
        noise: Tensor = torch.fft.irfft2(torch.fft.rfft2(drawn) * band, s=(height, width))
        noise *= self.rms / noise.square().mean((1, 2, 3), keepdim=True).sqrt()
        return noise

    def _band(self, radius: Float[Tensor, "*axes"]) -> Bool[Tensor, "*axes"]:
        low, high = self.band_cycles_per_pixel
        return (radius >= low) & (radius < high)


@dataclass(frozen=True)
class FourierWave(FourierPerturbation):
    """One wave, a real image whose Fourier transform is 0 but at one frequency and its mirror image.

    A cosine with its crest in the first pixel, so that a frequency and its negative give the same wave. It
    is added to each channel with a sign of its own, drawn for each image.

    Attributes:
        frequency_cycles_per_pixel: (downward, across), each within ±1/2 and such that a whole number of
            cycles fits into the image.
        l2_norm_pixel: root of the sum of squares of what is added to one channel, before it is clipped. The
            rms is this divided by the root of the number of pixels.

    Raises:
        ConditionError: the frequency or the norm is none.

    Source: Yin et al. (2019), A Fourier perspective on model robustness in computer vision.

    Example:
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> wave = FourierWave((0.0, 0.25), l2_norm_pixel=1.0).apply(grey, ["a"]) - grey
        >>> wave.square().sum((2, 3)), wave[0, 0, 0, :4].abs() > 0.1
        (tensor([[1.0000, 1.0000, 1.0000]]), tensor([ True, False,  True, False]))
    """

    STREAM: ClassVar[str] = "fourier_wave"

    frequency_cycles_per_pixel: tuple[float, float]
    l2_norm_pixel: float

    def __post_init__(self) -> None:
        down, across = self.frequency_cycles_per_pixel
        if not (abs(down) <= 0.5 and abs(across) <= 0.5):
            raise ConditionError(
                f"The frequency of a wave is ({down:g}, {across:g}) cycles per pixel.",
                expected="two values within ±0.5",
                remedy="Divide the cycles per image by its height and its width.",
            )
        if not is_real(self.l2_norm_pixel) or not 0 <= self.l2_norm_pixel < math.inf:
            raise ConditionError(
                f"l2_norm_pixel is {self.l2_norm_pixel!r}.",
                expected="a finite value of 0 or more",
                remedy="It is the rms times the root of the number of pixels: 0.07 * 224 for 224 × 224.",
            )

    def check_size(self, height: int, width: int) -> None:
        """Refuse a wave that does not close at the border of `height` × `width` pixels.

        Other frequencies would come in.

        Raises:
            ConditionError: it does not.
        """
        down, across = self.frequency_cycles_per_pixel
        if any(abs(cycles - round(cycles)) > 1e-6 for cycles in (down * height, across * width)):
            raise ConditionError(
                f"A wave of ({down:g}, {across:g}) cycles per pixel has {down * height:g} and "
                f"{across * width:g} cycles in {height} × {width} pixels.",
                expected="whole numbers of cycles",
                remedy=f"Give multiples of 1/{height} downward and of 1/{width} across.",
            )

    def drawn(self, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "3 1 1"]:
        """A sign for each channel, from `generator`; the same for any `height` and `width`."""
        return (2 * torch.randint(2, (3, 1, 1), generator=generator) - 1).float()

    def perturbation(
        self, drawn: Float[Tensor, "batch 3 1 1"], height: int, width: int
    ) -> Float[Tensor, "batch 3 height width"]:
        """The wave in each channel of `height` × `width` pixels, times the sign that was `drawn`."""
        down, across = (
            # Whole turns are taken off before the cosine, which is then as exact at a million pixels.
            (round(frequency * n) * torch.arange(n) % n).double() / n
            for frequency, n in zip(self.frequency_cycles_per_pixel, (height, width), strict=True)
        )
        wave = torch.cos(2 * math.pi * (down[:, None] + across))
        wave *= self.l2_norm_pixel / wave.square().sum().sqrt()
        return drawn * wave.to(drawn)


def fourier_noise(
    pixels: Tensor,
    band_cycles_per_pixel: tuple[float, float] = (0.0, 0.125),
    rms: float = 0.1,
    *,
    image_ids: Sequence[str],
    seed: int = 0,
    step: int | None = None,
) -> Float[Tensor, "batch 3 height width"]:
    """Add random noise that lies in one band of frequencies.

    Low and high frequencies can so be perturbed alone, at one strength. What it does, `FourierNoise` says.

    Args:
        pixels: [batch 3 height width], floats in [0, 1], on any device.
        band_cycles_per_pixel: (low, high), 0 <= low < high <= 0.71; high itself is left out.
        rms: root mean square of each image's perturbation, over pixels and channels, before it is clipped.
        image_ids: one for each image, no two alike.
        seed: the study's seed.
        step: the training step, where each step shall draw anew.

    Returns:
        The same shape, dtype and device, clipped to [0, 1]. Clipping takes off some of the rms, and adds
        frequencies outside the band: measure what is left with `spectrum`.

    Raises:
        PixelError: the pixels are no such batch.
        ConditionError: the band or the rms is none, no frequency of images of this size lies in the band, or
            the image ids do not fit.

    Source: Yin et al. (2019), A Fourier perspective on model robustness in computer vision.

    Example:
        >>> from vitlens.images import spectrum
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> measured = spectrum(grey, fourier_noise(grey, (0.25, 0.5), rms=0.05, image_ids=["a"]))
        >>> round(measured.rms.item(), 4), round(measured.hf_energy.item(), 4)
        (0.05, 1.0)
    """
    noise = FourierNoise(band_cycles_per_pixel, rms)
    return noise.apply(pixels, image_ids, seed=seed, step=step)


def _radius(height: int, width: int) -> Float[Tensor, "height width"]:
    """Distance from frequency 0 in F's order, in cycles per pixel."""
    return torch.hypot(frequencies(height)[:, None], frequencies(width))
