"""Intervals, p-values and adjustments against their definitions, written out or enumerated."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from vitlens.comparison.statistics import (
    _student_tail,
    bootstrap_interval,
    holm,
    is_equivalent,
    max_t_p,
    mcnemar_p,
    paired_mean,
    resample_counts,
    sign_flip_p,
    sign_flips,
    tango_interval,
)

few = settings(deadline=None, max_examples=25)
counts_of_changes = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40)).filter(sum)


def tango(gained: int, lost: int, n: int, level: float = 0.95) -> tuple[float, float]:
    low, high = tango_interval(np.array(gained), np.array(lost), np.array(n), level)
    return float(low), float(high)


def all_signs(n: int) -> np.ndarray:
    return np.array(list(itertools.product([-1, 1], repeat=n)), dtype=np.int8)


# Draws


def test_resamples_draw_as_many_images_as_there_are_and_each_equally_often():
    counts = resample_counts(40, n_resamples=5000)
    assert (counts.sum(axis=1) == 40).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.08)
    np.testing.assert_allclose(counts.var(axis=0), 1 - 1 / 40, atol=0.15)


def test_signs_are_fair():
    flips = sign_flips(40, n_flips=5000)
    assert set(np.unique(flips)) == {-1, 1}
    np.testing.assert_allclose(flips.mean(axis=0), 0, atol=0.08)


def test_draws_depend_on_their_seed_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    assert (resample_counts(30, 10, seed=3) == resample_counts(30, 10, seed=3)).all()
    assert (resample_counts(30, 10, seed=3) != resample_counts(30, 10, seed=4)).any()
    assert (sign_flips(30, 10, seed=3) == sign_flips(30, 10, seed=3)).all()
    assert (sign_flips(30, 10, seed=3) != sign_flips(30, 10, seed=4)).any()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


# Bootstrap


def expanded_tail(n: int, level: float = 0.95) -> float:
    return float(stats.norm.cdf(stats.t.ppf((1 - level) / 2, n - 1) * np.sqrt(n / (n - 1))))


def test_bootstrap_is_the_quantiles_of_means_of_drawn_images():
    rng = np.random.default_rng(0)
    counts = resample_counts(23, n_resamples=400)
    differences = rng.exponential(size=(23, 3))
    differences[[2, 7, 11], 1] = np.nan
    low, high = bootstrap_interval(differences, counts, level=0.9)
    for column in range(3):
        means = [np.nanmean(np.repeat(differences[:, column], times)) for times in counts]
        tail = expanded_tail(int(np.isfinite(differences[:, column]).sum()), level=0.9)
        assert low[column] == pytest.approx(np.quantile(means, tail), abs=1e-6)
        assert high[column] == pytest.approx(np.quantile(means, 1 - tail), abs=1e-6)


def test_bootstrap_agrees_with_scipy():
    values = np.random.default_rng(1).gamma(2, size=150)
    low, high = bootstrap_interval(values[:, None], resample_counts(150, n_resamples=4000))
    level = 1 - 2 * expanded_tail(150)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, confidence_level=level, method="percentile", rng=0
    ).confidence_interval
    width = theirs.high - theirs.low
    assert low[0] == pytest.approx(theirs.low, abs=0.05 * width)
    assert high[0] == pytest.approx(theirs.high, abs=0.05 * width)


@pytest.mark.parametrize("n", [10, 100])
def test_bootstrap_covers_95_percent_of_true_means(n):
    trials = np.random.default_rng(2).normal(0.3, 1, size=(n, 4000))
    low, high = bootstrap_interval(trials, resample_counts(n, n_resamples=1500))
    assert np.mean((low <= 0.3) & (high >= 0.3)) == pytest.approx(0.95, abs=0.02)


def test_resamples_that_miss_every_finite_image_do_not_count():
    differences = np.full((40, 1), np.nan)
    differences[:2, 0] = [1.0, 3.0]
    low, high = bootstrap_interval(differences, resample_counts(40))
    assert (low[0], high[0]) == (1.0, 3.0)


def test_bootstrap_of_one_image_or_none_knows_no_interval():
    differences = np.array([[1.0, np.nan]])
    assert np.isnan(bootstrap_interval(differences, resample_counts(1))).all()


def test_equal_differences_have_an_interval_without_width():
    differences = np.tile([0.0, 0.1], (50, 1))
    low, high = bootstrap_interval(differences, resample_counts(50))
    assert low[0] == high[0] == 0
    np.testing.assert_allclose([low[1], high[1]], 0.1, rtol=1e-12)


@few
@given(st.integers(0, 10**6), st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
def test_bootstrap_moves_and_scales_with_the_values(seed, shift, scale):
    differences = np.random.default_rng(seed).normal(size=(12, 2))
    counts = resample_counts(12, n_resamples=200)
    plain = np.array(bootstrap_interval(differences, counts))
    moved = np.array(bootstrap_interval(scale * differences + shift, counts))
    np.testing.assert_allclose(moved, scale * plain + shift, atol=1e-5 * scale)


def test_an_infinite_or_missing_difference_is_left_out_of_its_own_column_alone():
    rng = np.random.default_rng(3)
    clean = rng.normal(size=(30, 2))
    holed = clean.copy()
    holed[[0, 1, 2], 0] = [np.nan, np.inf, -np.inf]
    mean, n = paired_mean(holed)
    assert n.tolist() == [27, 30]
    np.testing.assert_allclose(mean, [clean[3:, 0].mean(), clean[:, 1].mean()])
    counts = resample_counts(30)
    np.testing.assert_array_equal(
        np.array(bootstrap_interval(holed, counts))[:, 1], np.array(bootstrap_interval(clean, counts))[:, 1]
    )


# Tango


def score_by_search(gained: int, lost: int, n: int, delta: float) -> float:
    """Tango's score with the constrained likelihood maximized numerically."""

    def minus_log_likelihood(p_lost: float) -> float:
        p = np.array([p_lost + delta, p_lost, 1 - 2 * p_lost - delta])
        seen = np.array([gained, lost, n - gained - lost])
        return -float(np.sum(seen[seen > 0] * np.log(np.maximum(p[seen > 0], 1e-300))))

    ends = max(0.0, -delta), (1 - delta) / 2
    inner = optimize.minimize_scalar(
        minus_log_likelihood, bounds=ends, options={"xatol": 1e-12}, method="bounded"
    )
    p_lost = min([inner.x, *ends], key=minus_log_likelihood)
    variance = n * (2 * p_lost + delta - delta**2)
    return (gained - lost - n * delta) / np.sqrt(variance)


@pytest.mark.parametrize(
    ("gained", "lost", "n"),
    [(1, 7, 21), (0, 0, 30), (5, 0, 40), (0, 9, 40), (3, 4, 900), (1, 0, 1), (4, 6, 10)],
)
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_tango_is_where_the_score_equals_the_normal_quantile(gained, lost, n, level):
    z = stats.norm.ppf(0.5 + level / 2)
    low, high = tango(gained, lost, n, level)
    for bound, sign in ((low, 1), (high, -1)):
        if abs(bound) < 1:
            assert score_by_search(gained, lost, n, bound) == pytest.approx(sign * z, abs=2e-3)


def test_tango_gives_the_published_interval_of_21_patients():
    # Fagerland, Lydersen and Laake (2014), table of the airway hyper-responsiveness trial.
    assert tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize("n", [1, 2, 100, 10**6])
def test_tango_keeps_a_width_when_no_image_changed(n):
    half = 3.8414588 / (n + 3.8414588)
    assert tango(0, 0, n) == pytest.approx((-half, half), rel=1e-6)


@pytest.mark.parametrize("n", [1, 2, 50])
def test_tango_ends_at_one_when_every_image_changed(n):
    assert tango(n, 0, n)[1] == 1
    assert tango(0, n, n)[0] == -1


def test_tango_of_no_image_is_unknown():
    assert np.isnan(tango(0, 0, 0)).all()


@few
@given(counts_of_changes)
def test_tango_turns_round_with_the_roles(changes):
    gained, lost, same = changes
    low, high = tango(gained, lost, gained + lost + same)
    assert tango(lost, gained, gained + lost + same) == pytest.approx((-high, -low), abs=1e-9)
    assert -1 <= low <= (gained - lost) / (gained + lost + same) <= high <= 1


@few
@given(counts_of_changes)
def test_tango_leaves_zero_out_exactly_where_mcnemars_score_is_significant(changes):
    gained, lost, same = changes
    low, high = tango(gained, lost, gained + lost + same)
    is_significant = (gained - lost) ** 2 > 3.8414588 * (gained + lost)
    assert (low > 0 or high < 0) == is_significant


def tango_coverage(p_gained: float, p_lost: float, n: int) -> float:
    """Exact: the probability of every outcome, added up where its interval holds the truth."""
    gained, lost = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    kept = (gained + lost <= n) & (gained + lost <= 60)
    gained, lost = gained[kept], lost[kept]
    probability = stats.multinomial.pmf(
        np.stack([gained, lost, n - gained - lost], axis=-1), n, [p_gained, p_lost, 1 - p_gained - p_lost]
    )
    assert probability.sum() == pytest.approx(1, abs=1e-6)
    low, high = tango_interval(gained, lost, np.full_like(gained, n))
    truth = p_gained - p_lost
    return float(probability[(low <= truth + 1e-12) & (truth - 1e-12 <= high)].sum())


@pytest.mark.parametrize("discordant", [0.05, 0.1, 0.2])
def test_tango_covers_95_percent_at_100_images(discordant):
    coverage = [
        tango_coverage(share * discordant, (1 - share) * discordant, 100) for share in (0.1, 0.3, 0.5, 1)
    ]
    assert np.mean(coverage) == pytest.approx(0.95, abs=0.015)
    assert min(coverage) > 0.93


def test_tango_errs_on_the_safe_side_when_two_of_100_images_change():
    coverage = [tango_coverage(share * 0.02, (1 - share) * 0.02, 100) for share in (0.1, 0.3, 0.5, 1)]
    assert min(coverage) > 0.98
    assert max(coverage) < 0.998


# McNemar


@few
@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_two_sided_binomial_test(gained, lost):
    p = mcnemar_p(np.array([gained]), np.array([lost]))[0]
    expected = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert p == pytest.approx(expected)


# Sign flips


@pytest.mark.parametrize("shift", [0.0, 0.4, 0.8])
def test_sign_flip_p_agrees_with_every_flip_enumerated(shift):
    differences = np.random.default_rng(4).normal(shift, 1, size=(12, 1))
    sums = np.abs(all_signs(12) @ differences[:, 0])
    exact = np.mean(sums >= abs(differences.sum()) - 1e-9)
    assert sign_flip_p(differences, sign_flips(12, n_flips=20_000))[0] == pytest.approx(exact, rel=0.1)


def test_sign_flip_p_counts_ties_as_reaching_the_observed():
    # Of 2^6 sign patterns of five equal changes and a zero, the sums ±5 come up 4 times, ±3 or more 24 times.
    differences = np.array([[1.0, 0.1], [1.0, 0.1], [1.0, 0.1], [1.0, 0.1], [1.0, -0.1], [0.0, 0.0]])
    p = sign_flip_p(differences, np.tile(all_signs(6), (50, 1)))
    np.testing.assert_allclose(p, [(1 + 50 * 4) / 3201, (1 + 50 * 24) / 3201])


def test_sign_flip_p_in_the_tail_is_within_a_factor_of_two_of_every_flip():
    differences = np.random.default_rng(5).normal(0.8, 1, size=(16, 60))
    sums = np.abs(all_signs(16).astype(float) @ differences)
    exact = np.mean(sums >= np.abs(differences.sum(axis=0)) - 1e-9, axis=0)
    # Where fewer than 50 of 2,000 flips reach the observed, but enough of all flips to know the exact p.
    is_tail = (exact > 2e-3) & (exact < 2e-2)
    assert is_tail.sum() > 10
    ratio = (sign_flip_p(differences, sign_flips(16)) / exact)[is_tail]
    assert (ratio > 0.5).all()
    assert (ratio < 2).all()


def test_sign_flip_p_of_many_images_follows_students_tail():
    differences = np.random.default_rng(6).normal([0.2, 0.3, 0.4, 0.5], 1, size=(400, 4))
    ratio = sign_flip_p(differences, sign_flips(400)) / stats.ttest_1samp(differences, 0).pvalue
    np.testing.assert_allclose(np.log(ratio), 0, atol=0.5)


def test_students_tail_at_a_score_is_that_of_the_t_test():
    differences = np.random.default_rng(16).normal(0.5, 1, size=(6, 5))
    score = np.abs(differences.sum(axis=0)) / np.sqrt(np.square(differences).sum(axis=0))
    expected = stats.ttest_1samp(differences, 0).pvalue / 2
    np.testing.assert_allclose(_student_tail(score, np.full(5, 6)), expected)


def test_sign_flip_p_falls_without_a_step_where_flips_give_way_to_the_tail():
    noise = np.random.default_rng(7).normal(size=(60, 1))
    noise -= noise.mean()
    p = sign_flip_p(noise + np.linspace(0.15, 0.6, 400), sign_flips(60))
    assert p[0] > 0.1
    assert p[-1] < 1e-4
    # 50 flips reach the joint: a step between neighbors there is a few of them, plus the shift's own effect.
    assert np.diff(np.log(p)).max() < 0.05
    assert np.diff(np.log(p)).min() > -0.15


def test_sign_flip_p_is_uniform_without_a_difference():
    trials = np.random.default_rng(8).laplace(size=(40, 4000))
    p = sign_flip_p(trials, sign_flips(40))
    assert stats.kstest(p, "uniform").pvalue > 1e-3
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.012)
    assert np.mean(p < 0.005) == pytest.approx(0.005, abs=0.004)


@pytest.mark.parametrize("n_changed", [1, 2, 6, 12])
def test_sign_flip_p_is_never_below_what_the_changed_images_can_give(n_changed):
    differences = np.zeros((5000, 1))
    differences[:n_changed] = 1
    p = sign_flip_p(differences, sign_flips(5000))[0]
    assert 2.0 ** (1 - n_changed) * 0.8 < p < 2.0 ** (1 - n_changed) * 3


def test_sign_flip_p_stays_above_zero_for_thousands_of_equal_changes():
    p = sign_flip_p(np.ones((3000, 1)), sign_flips(3000))[0]
    assert 0 < p < 1e-300


def test_sign_flip_p_of_one_image_or_of_no_change_is_one_and_of_none_unknown():
    assert sign_flip_p(np.array([[0.7, 0.0, np.nan]]), sign_flips(1)).tolist()[:2] == [1.0, 1.0]
    assert np.isnan(sign_flip_p(np.array([[np.nan]]), sign_flips(1))[0])


def test_sign_flip_p_is_that_of_the_finite_differences():
    rng = np.random.default_rng(9)
    differences = rng.normal(0.3, 1, size=(30, 1))
    differences[[4, 9, 20]] = np.nan
    kept = np.isfinite(differences[:, 0])
    flips = sign_flips(30)
    expected = sign_flip_p(differences[kept], np.ascontiguousarray(flips[:, kept]))
    np.testing.assert_allclose(sign_flip_p(differences, flips), expected)


@few
@given(st.integers(0, 10**6), st.floats(-2, 2), st.floats(1e-6, 1e6))
def test_sign_flip_p_knows_neither_scale_nor_direction(seed, shift, scale):
    differences = np.random.default_rng(seed).normal(shift, 1, size=(15, 2))
    flips = sign_flips(15, n_flips=300)
    np.testing.assert_allclose(
        sign_flip_p(-scale * differences, flips), sign_flip_p(differences, flips), rtol=1e-4
    )


# max-T


def test_max_t_is_the_share_of_flips_whose_largest_t_reaches_a_cells():
    differences = np.random.default_rng(10).normal([0, 0.3, 0.8, 0], [1, 1, 1, 50], size=(15, 4))
    flips = sign_flips(15, n_flips=500)
    largest = np.array(
        [np.abs(stats.ttest_1samp(signs[:, None] * differences, 0).statistic).max() for signs in flips]
    )
    observed = np.abs(stats.ttest_1samp(differences, 0).statistic)
    expected = (1 + (largest[:, None] >= observed - 1e-4).sum(axis=0)) / 501
    np.testing.assert_allclose(max_t_p(differences[:, None], flips)[0], expected)


def test_max_t_calls_anything_changed_in_five_percent_of_maps_without_a_difference():
    rng = np.random.default_rng(11)
    shared = rng.normal(size=(25, 1500, 1))
    p = max_t_p(rng.normal(size=(25, 1500, 12)) + shared, sign_flips(25, n_flips=1000))
    assert np.mean((p < 0.05).any(axis=1)) == pytest.approx(0.05, abs=0.018)


def test_max_t_of_cells_that_agree_is_the_p_of_one_of_them():
    differences = np.random.default_rng(12).normal(0.2, 1, size=(20, 1))
    flips = sign_flips(20, n_flips=500)
    together = max_t_p(np.repeat(differences, 30, axis=1)[:, None], flips)
    np.testing.assert_allclose(together, max_t_p(differences[:, None], flips)[0, 0])


def test_max_t_leaves_missing_and_dead_cells_out_of_the_others_way():
    live = np.random.default_rng(13).normal(0.5, 1, size=(20, 2))
    flips = sign_flips(20)
    p = max_t_p(np.concatenate([live, np.full((20, 1), np.nan), np.zeros((20, 1))], axis=1)[:, None], flips)[
        0
    ]
    np.testing.assert_array_equal(p[:2], max_t_p(live[:, None], flips)[0])
    assert np.isnan(p[2])
    assert p[3] == 1


# Adjustment and equivalence


@few
@given(st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.02, 0.02, 0.3, 1.0, np.nan]), max_size=9))
def test_holm_rejects_what_the_sequential_procedure_rejects(p_values):
    p = np.array(p_values, dtype=np.float64)
    adjusted = holm(p)
    assert (np.isnan(adjusted) == np.isnan(p)).all()
    for alpha in (0.005, 0.05, 0.09):
        remaining = sorted(p[np.isfinite(p)])
        rejected = []
        while remaining and remaining[0] <= alpha / len(remaining):
            rejected.append(remaining.pop(0))
        assert sorted(p[adjusted <= alpha]) == rejected


def test_holm_and_mcnemar_agree_with_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    p = np.random.default_rng(14).beta(0.3, 3, size=20)
    np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1])
    expected = tables.mcnemar([[50, 3], [11, 36]], exact=True).pvalue
    assert mcnemar_p(np.array([11]), np.array([3]))[0] == pytest.approx(expected)


def test_equivalent_needs_the_whole_interval_strictly_inside_the_margin():
    low = np.array([-0.02, -0.03, 0.0, -0.05, np.nan])
    high = np.array([0.02, 0.01, 0.03, 0.01, 0.0])
    assert is_equivalent(low, high, np.full(5, 100), margin=0.03).tolist() == [
        True,
        False,
        False,
        False,
        False,
    ]


def test_equivalent_is_never_said_of_fewer_images_than_could_show_it():
    n = np.arange(8)
    said = is_equivalent(np.zeros(8), np.zeros(8), n, margin=1.0, alpha=0.05)
    assert n[said].min() == 5


@pytest.mark.parametrize("n", [5, 8, 80])
def test_equivalent_is_wrong_in_five_percent_of_trials_at_the_margin(n):
    trials = np.random.default_rng(15).normal(0.5, 0.5, size=(n, 4000))
    low, high = bootstrap_interval(trials, resample_counts(n), level=0.9)
    assert np.mean(is_equivalent(low, high, np.full(4000, n), margin=0.5)) < 0.065
