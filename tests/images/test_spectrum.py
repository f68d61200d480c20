"""Spectra of perturbations with known answers, and of photographs."""

import math

import numpy as np
import pytest
import torch

from vitlens.errors import PixelError, ShapeError
from vitlens.images import corrupt, spectrum

from .conftest import textured


def wave(cycles_per_pixel: float, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.cos(2 * math.pi * cycles_per_pixel * torch.arange(width)).expand(1, 3, height, width)


def test_white_noise_has_the_share_of_the_area_outside_the_disk():
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((8, 3, 96, 96), 0.5)
    noisy = grey + 0.05 * torch.randn(grey.shape, generator=generator).clamp(-5, 5)
    measured = spectrum(grey, noisy)
    assert measured.hf_energy.mean().item() == pytest.approx(1 - math.pi / 64, abs=0.002)
    assert measured.rms.mean().item() == pytest.approx(0.05, rel=0.01)
    luma_variance = 0.05**2 * (0.299**2 + 0.587**2 + 0.114**2)
    assert measured.radial_power[:, 4:].mean(0) == pytest.approx(luma_variance * torch.ones(65), rel=0.25)
    assert measured.radial_power[:, 4:].mean().item() == pytest.approx(luma_variance, rel=0.03)


@pytest.mark.parametrize(
    ("cycles_per_pixel", "share"), [(1 / 16, 0), (3 / 32, 0), (5 / 32, 1), (1 / 4, 1), (1 / 2, 1)]
)
def test_a_wave_lies_on_its_side_of_an_eighth_and_in_its_ring(cycles_per_pixel, share):
    grey = torch.full((1, 3, 64, 64), 0.5)
    measured = spectrum(grey, grey + 0.25 * wave(cycles_per_pixel))
    assert measured.hf_energy.item() == pytest.approx(share, abs=0.01)
    peak = measured.radial_frequency[measured.radial_power[0].argmax()].item()
    assert peak == pytest.approx(cycles_per_pixel, abs=1 / 64)


def test_radial_power_and_rms_account_for_all_of_the_energy():
    pixels = textured(2, 40, 56)
    shifted = (pixels * 0.5 + 0.25 * textured(1, 40, 56, seed=1)).clamp(0, 1)
    measured = spectrum(pixels, shifted)
    luma = ((shifted - pixels).double() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1).numpy()
    windows = [np.hanning(n + 2)[1:-1] for n in luma.shape[1:]]
    window = np.outer(*windows)
    # Parseval: mean power over frequencies is the windowed mean square.
    fy, fx = (np.fft.fftfreq(n) for n in luma.shape[1:])
    ring = np.rint(np.hypot(fy[:, None], fx) * 40).astype(int)
    counts = np.bincount(ring.ravel())
    total = (measured.radial_power.numpy() * counts).sum(1) / luma[0].size
    assert total == pytest.approx(((luma * window) ** 2).sum((1, 2)) / (window**2).sum())
    power = np.abs(np.fft.fft2(luma * window)) ** 2
    high = np.hypot(fy[:, None], fx) > 1 / 8
    assert measured.hf_energy.numpy() == pytest.approx((power * high).sum((1, 2)) / power.sum((1, 2)))


def test_a_shift_in_brightness_is_a_low_frequency():
    pixels = textured(2, 32, 48) / 2
    measured = spectrum(pixels, pixels + 0.25)
    assert measured.hf_energy.max() < 1e-3
    assert measured.delta_hf_db.abs().max() < 1e-4
    assert measured.rms == pytest.approx(torch.full((2,), 0.25), abs=1e-6)


def test_contrast_keeps_the_images_own_share():
    pixels = textured(2, 32, 48)
    assert spectrum(pixels, corrupt(pixels, "contrast", 3)).delta_hf_db.abs().max() < 1e-3


def test_halving_high_frequencies_beside_a_strong_low_one_costs_six_decibels():
    low, high = 0.4 * wave(1 / 32), 0.01 * wave(1 / 4)
    measured = spectrum(0.5 + low + high, 0.5 + low + high / 2)
    assert measured.delta_hf_db.item() == pytest.approx(-6.02, abs=0.05)


def test_an_unchanged_image_has_no_share_and_no_change():
    pixels = textured(1, 32, 32)
    measured = spectrum(pixels, pixels.clone())
    assert measured.hf_energy.isnan().all()
    assert measured.delta_hf_db.item() == 0
    assert measured.rms.item() == 0
    assert not measured.radial_power.any()


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_an_image_of_one_color_has_no_share_of_its_own(level):
    flat = torch.full((1, 3, 33, 20), level)
    assert spectrum(flat, (flat + 0.1).clamp(0, 1)).delta_hf_db.isnan().all()


def test_each_image_is_measured_by_itself():
    pixels = textured(3, 24, 30)
    blurred = corrupt(pixels, "gaussian_blur", 2)
    together = spectrum(pixels, blurred)
    for index in range(3):
        alone = spectrum(pixels[index : index + 1], blurred[index : index + 1])
        for name in ("hf_energy", "delta_hf_db", "rms", "radial_power"):
            assert getattr(alone, name)[0].tolist() == pytest.approx(getattr(together, name)[index].tolist())
    assert len(together.radial_frequency) == together.radial_power.shape[1]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 16), (17, 16)])
def test_small_and_odd_sizes_are_measured_without_an_error(size):
    pixels = textured(2, *size)
    measured = spectrum(pixels, 1 - pixels)
    assert measured.radial_power.isfinite().all()
    assert (measured.hf_energy[measured.hf_energy.isfinite()] <= 1).all()


def test_other_dtypes_are_measured_alike():
    pixels = textured(2, 24, 24)
    other = corrupt(pixels, "pixelate")
    expected = spectrum(pixels, other).hf_energy
    assert spectrum(pixels.double(), other.double()).hf_energy == pytest.approx(expected)
    assert spectrum(pixels.half(), other.half()).hf_energy == pytest.approx(expected, abs=0.01)


def test_images_that_are_none_or_differ_in_shape_are_refused():
    pixels = textured(2, 16, 16)
    with pytest.raises(ShapeError, match=r"shape \[2, 3, 16, 16\] and corrupted \[1, 3, 16, 16\]"):
        spectrum(pixels, pixels[:1])
    with pytest.raises(PixelError, match="pixels before the perturbation go from 0 to 2"):
        spectrum(torch.linspace(0, 2, 768).view(1, 3, 16, 16), pixels[:1])
    with pytest.raises(PixelError, match=r"pixels after the perturbation have shape \[3, 16, 16\]"):
        spectrum(pixels, pixels[0])


# Mean share of the perturbation above 1/8 cycle per pixel, and mean change of the image's own in dB.
PUBLISHED = {
    "gaussian_noise": (0.90, 7.7),
    "impulse_noise": (0.92, 7.9),
    "sharpen": (0.95, 6.2),
    "gaussian_blur": (0.55, -28.6),
    "defocus_blur": (0.51, -21),
    "contrast": (0.11, 0.1),
    "pixelate": (0.95, -1.8),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_photographs_give_the_published_figures_at_severity_three(photographs, name):
    ids = [str(index) for index in range(len(photographs))]
    corrupted = corrupt(photographs, name, 3, image_ids=ids)
    # As stored, on 256 levels: rounding is what is left above 1/8 after a strong blur.
    measured = spectrum(photographs, (corrupted * 255).round() / 255)
    share, decibels = PUBLISHED[name]
    assert measured.hf_energy.mean().item() == pytest.approx(share, abs=0.03)
    assert measured.delta_hf_db.mean().item() == pytest.approx(decibels, abs=1)
