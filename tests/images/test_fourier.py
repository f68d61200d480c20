"""Fourier noise and waves, against numpy's F and cosines written out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.errors import ConditionError, PixelError
from vitlens.images import parse_condition, spectrum
from vitlens.images.fourier import FourierNoise, FourierWave, fourier_noise
from vitlens.images.options import Options

from .conftest import textured


def grey(n=2, height=48, width=40, dtype=torch.float64):
    return torch.full((n, 3, height, width), 0.5, dtype=dtype)


def energy(perturbation):
    """|F|² and the frequencies it belongs to, by numpy."""
    power = np.abs(np.fft.fft2(perturbation.double().numpy())) ** 2
    height, width = power.shape[-2:]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    return power, radius


@settings(deadline=None, max_examples=25)
@given(
    ends=st.tuples(st.floats(0, 0.6), st.floats(0.08, 0.71)),
    height=st.integers(16, 50),
    width=st.integers(16, 50),
    seed=st.integers(0, 99),
)
def test_all_energy_lies_in_the_band_and_the_rms_is_the_given_one(ends, height, width, seed):
    low, high = ends[0], min(ends[0] + ends[1], 0.71)
    pixels = grey(2, height, width)
    noise = fourier_noise(pixels, (low, high), 0.01, image_ids=["a", "b"], seed=seed) - pixels
    power, radius = energy(noise)
    outside = (radius < low - 1e-9) | (radius >= high + 1e-9)
    assert (power * outside).sum() <= 1e-20 * power.sum()
    np.testing.assert_allclose(noise.square().mean((1, 2, 3)).sqrt(), 0.01, rtol=1e-9)


def test_inside_the_band_the_noise_is_white_gaussian_and_each_channel_has_its_own():
    ids = [str(i) for i in range(100)]
    pixels = grey(100, 32, 32)
    noise = (fourier_noise(pixels, (0.0, 0.25), 0.02, image_ids=ids) - pixels).numpy()
    power, radius = energy(torch.from_numpy(noise))
    inside = radius < 0.25
    mean = power.mean((0, 1))[inside]
    # A mean of 300 exponential values: each within five standard errors of the common one.
    np.testing.assert_allclose(mean, mean.mean(), rtol=5 * (2 / 300) ** 0.5)
    channels = np.corrcoef(noise.transpose(1, 0, 2, 3).reshape(3, -1))
    assert np.abs(channels - np.eye(3)).max() < 0.03
    standardized = noise / noise.std()
    assert abs((standardized**4).mean() - 3) < 0.1


def test_neighboring_bands_of_an_image_are_parts_of_one_noise():
    pixels = grey(1)
    bands = [(0.0, 0.125), (0.125, 0.71), (0.0, 0.71)]
    low, high, whole = (fourier_noise(pixels, band, 0.01, image_ids=["a"]) - pixels for band in bands)
    coefficients = [torch.fft.fft2(part) for part in (low, high, whole)]
    for part in coefficients[:2]:
        there = part.abs() > 1e-6
        ratio = (part / coefficients[2])[there]
        torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-6, atol=1e-6)


def test_spectrum_finds_low_bands_low_and_high_bands_high(photographs):
    # Leaving room at both ends, so that nothing is clipped.
    pixels = photographs[:8] * 0.5 + 0.25
    ids = [str(i) for i in range(8)]
    for band, wanted in (((0.0, 0.115), 0.0), ((0.135, 0.71), 1.0)):
        measured = spectrum(pixels, fourier_noise(pixels, band, 0.04, image_ids=ids))
        np.testing.assert_allclose(measured.hf_energy, wanted, atol=1e-3)
        np.testing.assert_allclose(measured.rms, 0.04, rtol=1e-3)


def test_a_band_from_0_shifts_the_mean_and_another_does_not():
    pixels = grey(1, 16, 16)
    shift = [
        (fourier_noise(pixels, band, 0.01, image_ids=["a"]) - pixels).mean((2, 3)).abs().max()
        for band in ((0.0, 0.01), (0.01, 0.2))
    ]
    assert shift[0] > 1e-3
    assert shift[1] < 1e-12


@pytest.mark.parametrize(
    "operation", [FourierNoise((0.1, 0.3), 0.1), FourierWave((0.125, -0.25), 4.0)], ids=["noise", "wave"]
)
def test_pixels_depend_on_seed_image_and_step_alone(operation):
    pixels, ids = textured(5, 24, 32), list("abcde")
    whole = operation.apply(pixels, ids, seed=3)
    order = [4, 2, 0]
    part = operation.apply(pixels[order], [ids[i] for i in order], seed=3)
    torch.testing.assert_close(part, whole[order], rtol=0, atol=2e-6)
    alone = torch.cat([operation.apply(pixels[i : i + 1], [ids[i]], seed=3) for i in range(5)])
    torch.testing.assert_close(alone, whole, rtol=0, atol=2e-6)
    before = torch.get_rng_state()
    for other in (operation.apply(pixels, ids, seed=4), operation.apply(pixels, ids, seed=3, step=0)):
        assert not torch.allclose(other, whole, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), before)
    assert whole.min() >= 0
    assert whole.max() <= 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_shape_stay_and_all_dtypes_see_the_same_noise(dtype):
    pixels = textured(2, 16, 24).double()
    for operation in (FourierNoise((0.0, 0.25), 0.1), FourierWave((0.125, 0.0), 2.0)):
        exact = operation.apply(pixels, ["a", "b"])
        seen = operation.apply(pixels.to(dtype), ["a", "b"])
        assert (seen.dtype, seen.shape) == (dtype, pixels.shape)
        torch.testing.assert_close(seen.double(), exact, rtol=0, atol=8 * torch.finfo(dtype).eps + 1e-6)


def test_no_images_and_no_rms_are_left_as_they_are():
    pixels = textured(2, 16, 16)
    assert fourier_noise(pixels[:0], image_ids=[]).shape == (0, 3, 16, 16)
    assert torch.equal(fourier_noise(pixels, rms=0.0, image_ids=["a", "b"]), pixels)


@pytest.mark.parametrize("size", [(16, 16), (17, 24), (33, 20)])
def test_a_wave_is_a_cosine_with_two_conjugate_entries_and_the_given_norm(size):
    height, width = size
    pixels = grey(1, height, width)
    for y, x in [(0, 0), (1, 0), (0, -3), (5, 2), (-height // 2 + height % 2, 3), (height // 2, width // 2)]:
        added = FourierWave((y / height, x / width), 1.5).apply(pixels, ["a"]) - pixels
        plain = np.array(
            [
                [np.cos(2 * np.pi * (y * row / height + x * column / width)) for column in range(width)]
                for row in range(height)
            ]
        )
        plain *= 1.5 / np.linalg.norm(plain)
        signs = np.sign(added[0, :, 0, 0].numpy())
        np.testing.assert_allclose(added[0], signs[:, None, None] * plain, atol=1e-12)
        transform = np.fft.fft2(added[0].numpy())
        allowed = np.zeros(size, dtype=bool)
        allowed[y % height, x % width] = allowed[-y % height, -x % width] = True
        assert np.abs(transform[:, ~allowed]).max() < 1e-9
        np.testing.assert_allclose(np.sqrt((added**2).sum((2, 3))), 1.5, rtol=1e-12)


def test_opposite_frequencies_are_the_same_wave():
    pixels = textured(3, 16, 20).double()
    first, second = (
        FourierWave((sign * 3 / 16, -sign * 4 / 20), 2.0).apply(pixels, list("abc")) for sign in (1, -1)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_signs_are_fair_and_each_channel_has_its_own():
    ids = [str(i) for i in range(400)]
    pixels = grey(400, 16, 16)
    signs = torch.sign(FourierWave((0.0, 0.0), 1.0).apply(pixels, ids) - pixels)[:, :, 0, 0]
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert signs.mean(0).abs().max() < 0.2
    assert (signs.T @ signs / 400 - torch.eye(3)).abs().max() < 0.2


def test_a_condition_says_band_and_rms_and_is_the_function():
    pixels = textured(2, 32, 32)
    condition = parse_condition("fourier:band=1/8-0.3,rms=0.05")
    assert condition.corruption == FourierNoise((0.125, 0.3), 0.05)
    shown = condition.apply(pixels, ["a", "b"], seed=7)
    assert torch.equal(shown, fourier_noise(pixels, (0.125, 0.3), 0.05, image_ids=["a", "b"], seed=7))
    assert parse_condition("fourier:band=0-1/8").corruption == FourierNoise((0.0, 0.125), 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"'fourier:' has no band\. Expected: a band LOW-HIGH in cycles per pixel"),
        ("rms=0.1", "has no band"),
        ("band=low", "has band=low"),
        ("band=1/8", "has band=1/8"),
        ("band=0.3-0.2", r"is none: .* from 0.3 to 0.2 cycles per pixel\. Expected: 0 <= low < high <= 0.71"),
        ("band=0-28", "from 0 to 28 cycles per pixel"),
        ("band=0-1/8,rms=26", r"rms of Fourier noise is 26\.0\. Expected: a value in \[0, 1\]"),
        ("band=0-1/8,rms=-1", "rms of Fourier noise is -1"),
    ],
)
def test_a_condition_that_is_none_is_refused(text, message):
    with pytest.raises(ConditionError, match=message):
        FourierNoise.from_options(Options(f"fourier:{text}", text, FourierNoise.OPTIONS))


def test_what_cannot_be_perturbed_is_refused():
    pixels = textured(2, 16, 16)
    nearest = r"no frequency from 0.01 to 0.02 .* nearest of which are 0 and 0.0625\. Widen the band"
    with pytest.raises(ConditionError, match=nearest):
        fourier_noise(pixels, (0.01, 0.02), image_ids=["a", "b"])
    with pytest.raises(ConditionError, match=r"nearest of which are 0\.7071"):
        fourier_noise(pixels, (0.7075, 0.709), image_ids=["a", "b"])
    with pytest.raises(ConditionError, match=r"from nan to 0\.2"):
        fourier_noise(pixels, (float("nan"), 0.2), image_ids=["a", "b"])
    with pytest.raises(ConditionError, match="'a' is given twice"):
        fourier_noise(pixels, image_ids=["a", "a"])
    with pytest.raises(ConditionError, match="1 image_ids were given for 2 images"):
        fourier_noise(pixels, image_ids=["a"])
    with pytest.raises(PixelError, match="perturbed by 'fourier' go from"):
        fourier_noise(pixels * 2, image_ids=["a", "b"])
    with pytest.raises(ConditionError, match="draws at random and no image_ids"):
        FourierNoise((0.0, 0.2)).apply(pixels, None)
    with pytest.raises(ConditionError, match=r"1.6 and 0 cycles in 16 × 16 .* multiples of 1/16"):
        FourierWave((0.1, 0.0), 1.0).apply(pixels, ["a", "b"])
    with pytest.raises(ConditionError, match=r"two values within ±0.5"):
        FourierWave((3.0, 0.0), 1.0)
    with pytest.raises(ConditionError, match="l2_norm_pixel is -1"):
        FourierWave((0.0, 0.0), -1.0)
