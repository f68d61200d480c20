"""Where checkpoints lie between their nulls, against shares and intervals written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student_t

from vitlens.errors import SAEError
from vitlens.saes.matching import match
from vitlens.saes.similarity import similarity
from vitlens.saes.yardstick import seed_interval, similarity_share

from .conftest import make_sae

D_IN, N_FEATURES = 16, 40


def random_rows(seed, n_rows=N_FEATURES):
    return torch.randn(n_rows, D_IN, generator=torch.Generator().manual_seed(seed))


CORE = random_rows(999)
CHANGE = random_rows(998)


def trained(checkpoint, seed):
    """As if trained: the checkpoint's directions, and what a seed adds."""
    if checkpoint == "unrelated":
        rows = random_rows(100 + seed)
    else:
        rows = CORE + (0.6 * CHANGE if checkpoint == "tuned" else 0) + 0.5 * random_rows(seed)
    order = torch.randperm(N_FEATURES, generator=torch.Generator().manual_seed(seed))
    return make_sae(rows[order], threshold=0.5, seed=seed)


@pytest.fixture(scope="module")
def found():
    x = random_rows(7, 100)
    return similarity(
        {
            "base": [trained("base", seed) for seed in (0, 1, 2)],
            "tuned": [trained("tuned", seed) for seed in (2, 3, 4)],
        },
        unrelated=[trained("unrelated", seed) for seed in (2, 5)],
        activations={"base": x, "tuned": x + 0.1 * random_rows(8, 100)},
    )


def test_all_pairs_that_differ_in_seed_are_matched_in_their_roles(found):
    pairs = {
        (role, a, b): {(x, y) for x, y in zip(rows.seed_a, rows.seed_b, strict=True)}
        for (role, a, b), rows in found.table().groupby(["role", "checkpoint_a", "checkpoint_b"])
    }
    everything = {(a, b) for a in (0, 1, 2) for b in (2, 3, 4)}
    assert pairs == {
        ("checkpoints", "base", "tuned"): everything - {(2, 2)},
        ("seeds", "base", "base"): {(0, 1), (0, 2), (1, 2)},
        ("seeds", "tuned", "tuned"): {(2, 3), (2, 4), (3, 4)},
        ("unrelated", "base", "unrelated"): {(0, 2), (1, 2), (0, 5), (1, 5), (2, 5)},
    }
    assert found.n_left_out == 1
    assert found.seeds == {"base": (0, 1, 2), "tuned": (2, 3, 4), "unrelated": (2, 5)}


def test_the_summary_is_of_means_over_pairs(found):
    table, summary = found.table(), found.summary().set_index("statistic")
    row = summary.loc[found.primary]
    assert summary.index[0] == found.primary == "mean_matched_decoder_cosine"
    means = table.groupby("role")[found.primary].mean()
    own = table[(table.role == "seeds") & (table.checkpoint_a == "base")][found.primary].mean()
    assert row["pair"] == pytest.approx(means["checkpoints"])
    assert row["unrelated"] == pytest.approx(means["unrelated"])
    assert row["seed_to_seed"] == pytest.approx(own)
    assert row["similarity_share"] == pytest.approx(
        (means["checkpoints"] - means["unrelated"]) / (own - means["unrelated"])
    )
    assert 0 < row["ci_low"] < row["similarity_share"] < row["ci_high"]
    assert row[["n_pairs", "n_seeds_reference", "n_seeds_checkpoint", "n_unrelated"]].tolist() == [8, 3, 3, 2]
    assert row["reason"] == ""
    assert f"{row['similarity_share']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]" in repr(found)
    # The unrelated SAEs came without activations: their codes are not compared.
    assert summary.loc["mean_matched_activation_correlation", "reason"] == "no unrelated similarity"


def test_each_match_is_the_one_that_the_two_have_by_themselves(found):
    x = random_rows(7, 100)
    for pair in found.pairs[::5]:
        tokens = {"base": x, "tuned": x + 0.1 * random_rows(8, 100)}
        saes = trained(pair.checkpoint_a, pair.seed_a), trained(pair.checkpoint_b, pair.seed_b)
        given_ = tuple(tokens.get(name) for name in (pair.checkpoint_a, pair.checkpoint_b))
        if None in given_:
            continue
        alone = match(*saes, given_)
        assert alone.pairs.equals(pair.match.pairs)
        assert alone.best_b.equals(pair.match.best_b)


def test_distributions_have_a_row_for_each_live_feature_of_each_first_sae(found):
    rows = found.distributions()
    assert len(rows) == sum(len(pair.match.best_a) for pair in found.pairs)
    assert {"role", "checkpoint_a", "seed_a", "checkpoint_b", "seed_b", "feature", "partner"} <= set(rows)


@pytest.mark.parametrize("by", ["decoder_cosine", "activation_correlation"])
def test_a_checkpoint_that_did_not_change_lies_at_the_seed_to_seed_end(by):
    x = random_rows(7, 200)
    result = similarity(
        {"base": [trained("base", s) for s in (0, 1, 2)], "tuned": [trained("base", s) for s in (3, 4, 5)]},
        unrelated=[trained("unrelated", s) for s in (6, 7)],
        activations={"base": x, "tuned": x, "unrelated": x},
        method="hungarian",
        by=by,
    )
    row = result.summary().iloc[0]
    assert row["statistic"] == f"mean_matched_{by}"
    assert row["ci_low"] < 1 < row["ci_high"]
    assert row["similarity_share"] == pytest.approx(1, abs=0.1)


def test_several_checkpoints_each_lie_somewhere():
    saes = {name: [trained(kind, s) for s in its] for name, kind, its in (
        ("base", "base", (0, 1)), ("same", "base", (2, 3)), ("tuned", "tuned", (4, 5)))}  # fmt: skip
    rows = similarity(saes, unrelated=[trained("unrelated", 9)]).summary().drop_duplicates("checkpoint")
    assert rows["checkpoint"].tolist() == ["same", "tuned"]
    assert rows["similarity_share"].iloc[0] > rows["similarity_share"].iloc[1]
    assert rows["ci_low"].isna().all()
    assert (rows["reason"] == "no interval: 2 of at least 3 seeds of the reference").all()


def crossed(rng, n_a, n_b, at, sd=0.01):
    return (
        at
        + sd * rng.normal(size=(n_a, 1))
        + sd * rng.normal(size=(1, n_b))
        + sd * rng.normal(size=(n_a, n_b))
    )


def upper(matrix):
    return np.where(np.triu(np.ones_like(matrix), 1), matrix, np.nan)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), n_a=st.integers(3, 5), n_b=st.integers(3, 5), n_u=st.integers(2, 4))
def test_the_interval_holds_the_ratios_that_a_jackknifed_t_test_does_not_reject(seed, n_a, n_b, n_u):
    rng = np.random.default_rng(seed)
    pair, unrelated = crossed(rng, n_a, n_b, 0.5), crossed(rng, n_a, n_u, 0.2)
    seeds = upper(crossed(rng, n_a, n_a, 0.7))
    share = seed_interval(pair, seeds, unrelated)

    def distance(ratio, a=None, b=None, u=None):
        keep = [[i for i in range(n) if i != out] for n, out in ((n_a, a), (n_b, b), (n_u, u))]
        mean = [np.nanmean(m[np.ix_(rows, columns)]) for m, rows, columns in (
            (pair, keep[0], keep[1]), (seeds, keep[0], keep[0]), (unrelated, keep[0], keep[2]))]  # fmt: skip
        return mean[0] - mean[2] - ratio * (mean[1] - mean[2])

    def variances(ratio):
        for name, n in (("a", n_a), ("b", n_b), ("u", n_u)):
            values = np.array([distance(ratio, **{name: i}) for i in range(n)])
            yield (n - 1) / n * ((values - values.mean()) ** 2).sum()

    parts = np.array(list(variances(share.value)))
    degrees = parts.sum() ** 2 / (parts**2 / (np.array([n_a, n_b, n_u]) - 1)).sum()
    critical = student_t.ppf(0.975, degrees)
    assert share.ci_low < share.value < share.ci_high
    for bound in (share.ci_low, share.ci_high):
        assert abs(distance(bound)) == pytest.approx(critical * math.sqrt(sum(variances(bound))), rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10), shift=st.floats(-1, 1))
def test_share_and_interval_do_not_depend_on_the_scale_of_the_statistic(seed, scale, shift):
    rng = np.random.default_rng(seed)
    ends = crossed(rng, 4, 4, 0.5), upper(crossed(rng, 4, 4, 0.7)), crossed(rng, 4, 3, 0.2)
    plain, moved = seed_interval(*ends), seed_interval(*(shift + scale * end for end in ends))
    for name in ("value", "ci_low", "ci_high"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name), rel=1e-6)


def test_the_interval_covers_a_known_share():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        share = seed_interval(
            crossed(rng, 3, 3, 0.5), upper(crossed(rng, 3, 3, 0.7)), crossed(rng, 3, 3, 0.2, sd=0.003)
        )
        covered += share.ci_low <= 0.6 <= share.ci_high
    assert covered > 90


def test_a_noisy_denominator_gives_no_bounds_and_an_overlap_no_share():
    rng = np.random.default_rng(1)
    seeds = upper(np.array([[0, 0.9, 0.31], [0, 0, 0.32], [0, 0, 0]]))
    pair, unrelated = crossed(rng, 3, 3, 0.35, sd=0.001), crossed(rng, 3, 3, 0.3, sd=0.001)
    share = seed_interval(pair, seeds, unrelated)
    assert math.isfinite(share.value)
    assert math.isnan(share.ci_low)
    assert math.isnan(share.ci_high)
    assert share.reason == "no interval: seed-to-seed − unrelated is not clearly above 0 over seeds"
    share = similarity_share(pair, np.array([0.5, 0.29]), unrelated)
    assert math.isnan(share.value)
    assert share.reason.startswith("seed-to-seed (0.290 at least) does not clearly exceed unrelated (0.3")


def test_pairs_that_stand_on_one_seed_alone_have_no_interval():
    pair = np.full((3, 3), np.nan)
    pair[0] = 0.5
    share = seed_interval(pair, upper(np.full((3, 3), 0.7)), np.full((3, 2), 0.2))
    assert share.value == pytest.approx(0.6)
    assert share.reason == "no interval: without one of the seeds too few pairs are left"


def test_without_any_spread_the_interval_is_a_point():
    share = seed_interval(np.full((3, 3), 0.5), upper(np.full((3, 3), 0.7)), np.full((3, 2), 0.2))
    assert (share.ci_low, share.value, share.ci_high) == pytest.approx((0.6, 0.6, 0.6))


def test_what_cannot_be_placed_is_refused():
    base, tuned = [trained("base", 0), trained("base", 1)], [trained("tuned", 2)]
    with pytest.raises(SAEError, match=r"saes has SAEs of base.*two checkpoints or more"):
        similarity({"base": base})
    with pytest.raises(SAEError, match=r"saes has SAEs of base.*two checkpoints or more"):
        similarity({"base": base, "tuned": []})
    with pytest.raises(SAEError, match="none of them called 'unrelated'"):
        similarity({"base": base, "unrelated": tuned})
    with pytest.raises(SAEError, match=r"SAEs of 'base' have seeds 0, 0\. Expected: a seed of its own"):
        similarity({"base": [base[0], base[0]], "tuned": tuned})
    with pytest.raises(SAEError, match="SAEs of 'unrelated' have seeds 5, 5"):
        similarity({"base": base, "tuned": tuned}, unrelated=[trained("unrelated", 5)] * 2)
    with pytest.raises(SAEError, match=r"'base' and 'tuned' all have seed 0.*shared initialization"):
        similarity({"base": base[:1], "tuned": [trained("tuned", 0)]})
    with pytest.raises(SAEError, match="An SAE of 'tuned' does not say its seed"):
        similarity({"base": base, "tuned": [make_sae(CORE)]})
    x = random_rows(7, 30)
    with pytest.raises(SAEError, match="activations of base, and none of tuned"):
        similarity({"base": base, "tuned": tuned}, activations={"base": x})
    with pytest.raises(SAEError, match="no activations of unrelated"):
        similarity(
            {"base": base, "tuned": tuned},
            unrelated=[trained("unrelated", 3)],
            activations={"base": x, "tuned": x},
            by="activation_correlation",
        )
    with pytest.raises(SAEError, match=r"level is 95.*between 0 and 1"):
        similarity({"base": base, "tuned": tuned}, level=95)
