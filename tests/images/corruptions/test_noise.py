"""The noises against their distributions, and the draws that they rest on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vitlens.images import corrupt
from vitlens.images.corruptions.draws import in_threads, normal, uniform
from vitlens.images.corruptions.noise import impulse_noise, shot_noise, speckle_noise
from vitlens.images.corruptions.poisson import poisson_counts

from ..conftest import textured

PHOTONS = (60, 25, 12, 5, 3)
SPECKLE = (0.15, 0.2, 0.35, 0.45, 0.6)
HUNDRED = [f"image {i}" for i in range(100)]


def generators(n: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def in_middle(n: int) -> torch.Tensor:
    """[n 3 12 16] of one image, away from both ends, so that little is clipped."""
    return textured(1, 12, 16).mul(0.2).add(0.4).expand(n, 3, 12, 16)


def chi_square(counts: np.ndarray, mean: float) -> float:
    """The p-value of counts being Poisson; counts that are rarely expected share a cell."""
    n = len(counts)
    inside = [k for k in range(int(counts.max()) + 2) if n * stats.poisson.pmf(k, mean) >= 5]
    low, high = inside[0], inside[-1]
    expected = [stats.poisson.cdf(low, mean), *stats.poisson.pmf(range(low + 1, high), mean)]
    expected = n * np.array([*expected, stats.poisson.sf(high - 1, mean)])
    observed = np.bincount(np.clip(counts.astype(int), low, high) - low, minlength=len(expected))
    return stats.chisquare(observed, expected).pvalue


@pytest.mark.parametrize("photons", PHOTONS)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.123456, 0.7 / 255, 0.9999])
def test_photon_counts_are_poisson(photons, share):
    pixels = torch.full((1, 3, 150, 150), share)
    counts = shot_noise(pixels, generators(1), photons).double().numpy().ravel() * photons
    assert np.abs(counts - counts.round()).max() < 1e-4
    assert chi_square(counts.round(), photons * float(np.float32(share))) > 1e-4


@pytest.mark.parametrize("most", [*PHOTONS, 0.3, 400.0])
def test_counts_are_the_quantiles_that_scipy_gives(most):
    generator = torch.Generator().manual_seed(1)
    shares = torch.rand(20_000, generator=generator)
    shares[:2000] *= 1e-3
    shares[2000:4000] = (shares[2000:4000] * 1024).floor() / 1024
    shares[4000:4100] = 1.0
    uniforms = (torch.rand(20_000, generator=generator) * 2**24).floor() / 2**24
    uniforms[5000:6000] = (torch.rand(1000, generator=generator) * 2**10).floor() / 2**24
    uniforms[6000:7000] = 1 - uniforms[5000:6000] - 2**-24
    middle = uniforms.double().numpy() + 2**-25
    expected = stats.poisson.ppf(middle, shares.double().numpy() * most)
    assert np.array_equal(poisson_counts(shares, uniforms, most).numpy(), expected)


def test_no_light_gives_no_photons_and_values_beside_the_range_are_clipped():
    pixels = torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    pixels[0, 1] = -1e-7
    assert not shot_noise(pixels, generators(1), 60).any()
    white = torch.ones(1, 3, 64, 64)
    assert torch.equal(shot_noise(white + 1e-6, generators(1), 60), shot_noise(white, generators(1), 60))


@settings(max_examples=25, deadline=None)
@given(photons=st.sampled_from(PHOTONS), seed=st.integers(0, 2**20), step=st.floats(0, 0.1))
def test_a_brighter_pixel_never_counts_fewer_photons(photons, seed, step):
    darker = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(seed)) * 0.9
    counts = [shot_noise(pixels, generators(1), photons) for pixels in (darker, darker + step)]
    assert (counts[1] >= counts[0]).all()


def test_rounding_in_one_pixel_leaves_the_luck_of_the_others():
    pixels = textured(1, 32, 32)
    noisy = shot_noise(pixels, generators(1), 12)
    pixels[0, 0, 0, 0] += 0.4
    changed = (shot_noise(pixels, generators(1), 12) != noisy).nonzero()
    assert len(changed) <= 1


def test_single_and_double_precision_count_alike():
    pixels = textured(2, 64, 64)
    single, double = (shot_noise(x, generators(2), 25) for x in (pixels, pixels.double()))
    assert double.dtype == torch.float64
    assert (single - double).abs().max() < 1e-6


def test_counting_has_no_slope():
    pixels = textured(1, 8, 8).requires_grad_()
    assert not torch.autograd.grad(shot_noise(pixels, generators(1), 12).sum(), pixels)[0].any()


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", ["shot_noise", "speckle_noise"])
def test_noise_over_a_hundred_draws_has_the_mean_and_variance_of_its_definition(name, severity):
    row = severity - 1
    pixels = in_middle(100)
    if name == "shot_noise":
        noisy, variance = shot_noise(pixels, generators(100), PHOTONS[row]), pixels / PHOTONS[row]
    else:
        noisy = speckle_noise(pixels, generators(100), SPECKLE[row])
        variance = (SPECKLE[row] * pixels).square()
    standard = ((noisy - pixels) / variance.sqrt()).double()
    n = standard.numel()
    assert abs(standard.mean()) < 4 / n**0.5
    # A Poisson number's fourth moment is larger than a normal one's, by 1 over its mean.
    spread = (2 + (1 / (PHOTONS[row] * 0.4) if name == "shot_noise" else 0)) ** 0.5
    assert abs(standard.square().mean() - 1) < 4 * spread / n**0.5
    by_element = standard.mean(0) * 10
    assert by_element.abs().max() < 5
    assert abs(by_element.square().mean() - 1) < 4 * (2.5 / by_element.numel()) ** 0.5


def test_speckle_is_normal_in_proportion_and_spares_black():
    pixels = textured(2, 64, 64)
    pixels[..., :8] = 0
    noisy = speckle_noise(pixels, generators(2), 0.35)
    assert not noisy[..., :8].any()
    lit = pixels > 0
    ratio = ((noisy - pixels)[lit] / pixels[lit] / 0.35).double().numpy()
    assert stats.kstest(ratio, "norm").pvalue > 1e-3


def test_impulses_over_a_hundred_draws_come_to_their_share_everywhere():
    pixels = in_middle(100)
    noisy = impulse_noise(pixels, generators(100), 0.17)
    n = noisy.numel()
    for replaced in (noisy == 0, noisy == 1):
        assert abs(replaced.double().mean() - 0.085) < 4 * (0.085 * 0.915 / n) ** 0.5
        by_element = replaced.double().sum(0).flatten().numpy()
        assert abs(by_element.var() - 8.5 * 0.915) < 4 * 8.5 * (2.2 / by_element.size) ** 0.5


@pytest.mark.parametrize("name", ["shot_noise", "speckle_noise"])
def test_other_streams_are_other_noise_and_the_same_stream_the_same(name):
    grey = torch.full((2, 3, 16, 16), 0.5)
    noisy = corrupt(grey, name, image_ids=["a", "b"])
    assert torch.equal(noisy[1:], corrupt(grey[:1], name, image_ids=["b"]))
    assert not torch.equal(noisy[0], noisy[1])


@pytest.mark.parametrize("draw", [normal, uniform])
@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 90, 90)])
def test_any_number_of_threads_draws_the_same_numbers(draw, shape):
    alone = draw(shape, generators(5))
    assert alone.shape == (5, *shape)
    assert torch.equal(alone[3:], draw(shape, generators(5)[3:]))
    torch.set_num_threads(3)
    try:
        assert torch.equal(draw(shape, generators(5)), alone)
    finally:
        torch.set_num_threads(1)


def test_no_image_draws_nothing():
    assert normal((3, 4, 4), []).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("n_threads", [None, 1, 4])
def test_results_come_in_the_order_of_the_items(n_threads):
    assert in_threads(lambda i: i * i, range(20), n_threads) == [i * i for i in range(20)]


def test_a_failure_in_a_thread_is_raised():
    def fail(item):
        raise ValueError(f"{item} is refused")

    with pytest.raises(ValueError, match="is refused"):
        in_threads(fail, range(3), n_threads=2)
