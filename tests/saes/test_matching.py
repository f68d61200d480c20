"""Matching, against the whole matrix of cosines and numpy's correlations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens import saes
from vitlens.errors import SAEError

from .conftest import make_sae


def random_rows(seed, n_rows, d_in):
    return torch.randn(n_rows, d_in, generator=torch.Generator().manual_seed(seed))


def permuted(sae, order):
    copy = make_sae(sae.W_dec[order], sae.W_enc[:, order], threshold=0.0)
    for name in ("b_enc", "threshold"):
        getattr(copy, name).copy_(getattr(sae, name)[order])
    copy.b_dec.copy_(sae.b_dec)
    return copy


def test_a_permuted_copy_is_matched_by_its_permutation(trained, planted):
    sae = trained[0]
    order = torch.randperm(sae.cfg.d_sae, generator=torch.Generator().manual_seed(1))
    result = saes.match(sae, permuted(sae, order), activations=(planted.activations, planted.activations))
    pairs = result.pairs
    assert (order.numpy()[pairs.feature_b] == pairs.feature_a).all()
    assert len(pairs) == sae.cfg.d_sae - len(result.dead_a) == sae.cfg.d_sae - len(result.dead_b)
    assert len(result.unmatched_a) == len(result.unmatched_b) == 0
    for column in ("decoder_cosine", "activation_cosine", "activation_correlation"):
        np.testing.assert_allclose(pairs[column], 1.0, atol=1e-6)
        assert pairs[column].max() <= 1.0
    assert result.share_above(0.999) == 1.0
    assert len(saes.match(sae, permuted(sae, order)).pairs) == sae.cfg.d_sae


@pytest.mark.parametrize("method", ["mutual", "hungarian"])
def test_what_two_seeds_both_found_is_matched(trained, planted, method):
    found = [
        (planted.features @ (sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True)).T).max(dim=1) for sae in trained
    ]
    both = (found[0].values > 0.9) & (found[1].values > 0.9)
    expected = set(zip(*(each.indices[both].tolist() for each in found), strict=True))
    x = planted.activations
    pairs = saes.match(*trained, (x, x), method=method).pairs
    assert expected <= set(zip(pairs.feature_a, pairs.feature_b, strict=True))
    assert expected


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000), n_a=st.integers(1, 14), n_b=st.integers(1, 14), n_block=st.integers(1, 15)
)
def test_pairs_and_neighbors_are_those_of_the_whole_matrix(seed, n_a, n_b, n_block):
    rows_a, rows_b = random_rows(seed, n_a, 5), random_rows(seed + 1, n_b, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitlens.saes.nearest.N_BLOCK_FEATURES", n_block)
        result = saes.match(make_sae(rows_a), make_sae(rows_b))
    a, b = (rows.numpy().astype(np.float64) for rows in (rows_a, rows_b))
    cosines = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (
        b / np.linalg.norm(b, axis=1, keepdims=True)
    ).T
    to_b, to_a = cosines.argmax(axis=1), cosines.argmax(axis=0)
    assert result.best_a.feature.tolist() == list(range(n_a))
    assert result.best_a.nearest.tolist() == to_b.tolist()
    assert result.best_b.nearest.tolist() == to_a.tolist()
    np.testing.assert_allclose(result.best_a.decoder_cosine, cosines.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(result.best_b.decoder_cosine, cosines.max(axis=0), atol=1e-6)
    expected = {(i, int(j)) for i, j in enumerate(to_b) if to_a[j] == i}
    pairs = set(zip(result.pairs.feature_a, result.pairs.feature_b, strict=True))
    assert pairs == expected
    assert pairs  # the largest cosine of all is always mutual
    assert set(result.unmatched_a) == set(range(n_a)) - {i for i, _ in expected}
    assert set(result.unmatched_b) == set(range(n_b)) - {j for _, j in expected}
    assert result.pairs.decoder_cosine.is_monotonic_decreasing
    assert (result.n_a, result.n_b) == (n_a, n_b)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), n_tokens=st.integers(2, 60), batch_size=st.integers(1, 70))
def test_likeness_of_codes_is_numpys_and_only_live_features_take_part(seed, n_tokens, batch_size):
    sae_a = make_sae(random_rows(seed, 10, 5), threshold=1.0)
    sae_b = make_sae(sae_a.W_dec + 0.3 * random_rows(seed + 1, 10, 5), threshold=1.0)
    x_a, x_b = random_rows(seed + 2, n_tokens, 5), random_rows(seed + 3, n_tokens, 5)
    x_b = x_a + 0.2 * x_b
    result = saes.match(sae_a, sae_b, (x_a, x_b), batch_size=batch_size)
    codes_a, codes_b = (sae.encode(x).double().numpy() for sae, x in ((sae_a, x_a), (sae_b, x_b)))
    assert result.dead_a.tolist() == np.flatnonzero((codes_a == 0).all(axis=0)).tolist()
    assert result.dead_b.tolist() == np.flatnonzero((codes_b == 0).all(axis=0)).tolist()
    live_a, live_b = set(range(10)) - set(result.dead_a), set(range(10)) - set(result.dead_b)
    assert set(result.best_a.feature) == live_a == set(result.pairs.feature_a) | set(result.unmatched_a)
    assert set(result.best_b.feature) == live_b >= set(result.best_a.nearest) - {-1}
    for pair in result.pairs.itertuples():
        a, b = codes_a[:, pair.feature_a], codes_b[:, pair.feature_b]
        cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        assert pair.activation_cosine == pytest.approx(cosine, abs=1e-6)
        if a.std() > 1e-6 and b.std() > 1e-6:
            assert pair.activation_correlation == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-5)


def test_a_dead_feature_is_nobodys_neighbor():
    # Feature 0 of b is the very direction of a's, but never active on b's tokens.
    sae_a = make_sae(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    sae_b = make_sae(torch.tensor([[1.0, 0.0], [0.6, 0.8]]), encoder=torch.tensor([[-1.0, 0.6], [0.0, 0.8]]))
    x = torch.tensor([[1.0, 2.0], [2.0, 1.0]])
    result = saes.match(sae_a, sae_b, activations=(x, x))
    assert result.dead_b.tolist() == [0]
    assert result.best_a.nearest.tolist() == [1, 1]
    assert result.pairs[["feature_a", "feature_b"]].to_numpy().tolist() == [[1, 1]]
    assert result.pairs.decoder_cosine.item() == pytest.approx(0.8)
    assert result.unmatched_a.tolist() == [0]
    assert result.share_above(0.7) == 0.5
    without = saes.match(sae_a, sae_b)
    assert without.dead_b.tolist() == []
    assert without.pairs.feature_b.tolist() == [0, 1]


def test_a_feature_that_writes_nothing_is_dead():
    sae = make_sae(torch.tensor([[1.0, 0.0], [0.0, 0.0], [1e-30, -1e-30]]))
    result = saes.match(sae, sae)
    assert result.dead_a.tolist() == [1]
    assert result.pairs.feature_a.tolist() == [0, 2]
    assert result.pairs.decoder_cosine.tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


def test_without_live_features_everything_is_empty_rather_than_wrong():
    live, dead = make_sae(torch.eye(2)), make_sae(torch.zeros(3, 2))
    for result in (saes.match(live, dead), saes.match(live, dead, (torch.ones(4, 2), torch.ones(4, 2)))):
        assert len(result.pairs) == len(result.best_b) == 0
        assert result.best_a.nearest.tolist() == [-1, -1]
        assert result.best_a.decoder_cosine.isna().all()
        assert result.unmatched_a.tolist() == [0, 1]
        assert result.share_above(0.0) == 0.0
    assert math.isnan(saes.match(dead, live).share_above(0.0))
    assert "0 pairs" in repr(saes.match(dead, live))
    assert saes.match(dead, dead).summary().n_pairs == 0


def test_equals_are_matched_one_to_one():
    sae = make_sae(torch.ones(3, 2))
    result = saes.match(sae, sae)
    assert result.pairs[["feature_a", "feature_b"]].to_numpy().tolist() == [[0, 0]]
    assert result.unmatched_a.tolist() == [1, 2]


def test_one_token_has_a_cosine_and_no_correlation():
    sae = make_sae(torch.eye(2))
    pairs = saes.match(sae, sae, activations=(torch.ones(1, 2), torch.ones(1, 2))).pairs
    assert pairs.activation_cosine.tolist() == [1.0, 1.0]
    assert pairs.activation_correlation.isna().all()


def test_a_code_that_never_varies_has_no_correlation():
    sae = make_sae(torch.eye(2))
    x = torch.stack(
        [torch.full((1000,), 0.1), torch.rand(1000, generator=torch.Generator().manual_seed(0))], 1
    )
    pairs = saes.match(sae, sae, activations=(x, x), batch_size=300).pairs.set_index("feature_a")
    assert math.isnan(pairs.activation_correlation[0])
    assert pairs.activation_correlation[1] == pytest.approx(1.0)
    assert pairs.activation_cosine[0] == pytest.approx(1.0)


def test_without_activations_likeness_of_codes_is_unknown():
    sae = make_sae(torch.eye(2))
    pairs = saes.match(sae, sae).pairs
    assert pairs.activation_cosine.isna().all()
    assert pairs.activation_correlation.isna().all()


def test_units_do_not_matter():
    rows_a, rows_b = random_rows(0, 8, 4), random_rows(1, 8, 4)
    plain, scaled = (saes.match(make_sae(rows_a), make_sae(rows_b * factor)) for factor in (1.0, 1024.0))
    pd.testing.assert_frame_equal(plain.pairs, scaled.pairs)


def test_summary_counts_and_shares():
    sae_a = make_sae(torch.eye(4))
    sae_b = make_sae(torch.cat([torch.eye(4)[:2], torch.tensor([[0.0, 0.0, 1.0, 1.0]])]))
    result = saes.match(sae_a, sae_b)
    summary = result.summary()
    assert summary[["n_a", "n_b", "n_pairs", "n_unmatched_a", "n_unmatched_b"]].tolist() == [4, 3, 3, 1, 0]
    assert summary["share_above_0.7"] == 0.75
    assert summary["share_above_0.9"] == 0.5
    assert summary["median_decoder_cosine"] == 1.0
    assert repr(result) == (
        "FeatureMatch(4 and 3 features, 0 and 0 dead: 3 pairs, median decoder cosine 1.000, without a null)"
    )


def test_saes_of_different_hooks_are_matched_only_when_asked():
    sae_a, sae_b = (make_sae(torch.eye(2), hook_name=f"blocks.{layer}.hook_resid_post") for layer in (1, 2))
    with pytest.raises(
        SAEError, match=r"'blocks.1.hook_resid_post', sae_b on 'blocks.2.*allow_other_hook=True"
    ):
        saes.match(sae_a, sae_b)
    assert len(saes.match(sae_a, sae_b, allow_other_hook=True).pairs) == 2
    assert len(saes.match(sae_a, make_sae(torch.eye(2))).pairs) == 2


def test_what_cannot_be_matched_is_refused():
    two, three = make_sae(torch.eye(2)), make_sae(torch.eye(3))
    x = torch.ones(4, 2)
    with pytest.raises(SAEError, match="sae_a has d_in 2, sae_b 3"):
        saes.match(two, three)
    with pytest.raises(SAEError, match=r"method is 'hungary'.*'mutual', 'hungarian'.*nearest is 'hungarian'"):
        saes.match(two, two, method="hungary")
    with pytest.raises(SAEError, match=r"by is 'cosine'.*'decoder_cosine', 'activation_correlation'"):
        saes.match(two, two, by="cosine")
    with pytest.raises(SAEError, match=r"by is 'activation_correlation', and there are no activations of a"):
        saes.match(two, two, by="activation_correlation")
    with pytest.raises(SAEError, match="activations of b are 3 wide, the SAE's d_in is 2"):
        saes.match(two, two, (x, torch.ones(4, 3)))
    with pytest.raises(SAEError, match="activations of a have 4 tokens, those of b 3"):
        saes.match(two, two, (x, x[:3]))
    with pytest.raises(SAEError, match="activations of a hold NaN or infinity in 4"):
        saes.match(two, two, (x * math.nan, x))
    with pytest.raises(SAEError, match="sae_b has NaN"):
        saes.match(two, make_sae(torch.full((2, 2), math.nan)))
    with pytest.raises(SAEError, match="batch_size is 0"):
        saes.match(two, two, (x, x), batch_size=0)


def seeded(rows, seed, **metadata):
    return make_sae(rows, threshold=0.5, seed=seed, **metadata)


BOTH = [
    (method, by) for method in ("mutual", "hungarian") for by in ("decoder_cosine", "activation_correlation")
]


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), which=st.sampled_from(BOTH))
def test_a_permuted_and_rescaled_copy_is_matched_perfectly(seed, which):
    method, by = which
    sae, x = make_sae(random_rows(seed, 12, 6), threshold=0.5), random_rows(seed + 1, 60, 6)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    scale = 0.5 + torch.rand(12, generator=torch.Generator().manual_seed(seed + 2))
    copy = make_sae(sae.W_dec[order] / scale[:, None], sae.W_enc[:, order] * scale, threshold=0.0)
    copy.threshold.copy_(0.5 * scale)
    itself = saes.match(sae, sae, (x, x), method=method, by=by)
    result = saes.match(sae, copy, (x, x), method=method, by=by)
    assert (itself.pairs.feature_a == itself.pairs.feature_b).all()
    assert (order.numpy()[result.pairs.feature_b] == result.pairs.feature_a).all()
    for each in (itself, result):
        assert len(each.pairs) == 12 - len(each.dead_a)
        np.testing.assert_allclose(each.pairs[["decoder_cosine", "activation_correlation"]], 1.0, atol=1e-5)
        assert each.statistics()[each.primary] == pytest.approx(1.0)


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 10_000), which=st.sampled_from(BOTH))
def test_swapping_the_two_swaps_the_result(seed, which):
    method, by = which
    sae_a, sae_b = (make_sae(random_rows(seed + i, 7 + 3 * i, 5), threshold=1.0) for i in (0, 1))
    x_a, x_b = random_rows(seed + 2, 50, 5), random_rows(seed + 3, 50, 5)
    one = saes.match(sae_a, sae_b, (x_a, x_b), method=method, by=by)
    other = saes.match(sae_b, sae_a, (x_b, x_a), method=method, by=by)
    both = [
        sorted(zip(each.pairs[first], each.pairs[second], strict=True))
        for each, first, second in ((one, "feature_a", "feature_b"), (other, "feature_b", "feature_a"))
    ]
    assert both[0] == both[1]
    pd.testing.assert_frame_equal(one.best_a, other.best_b, atol=1e-6)
    pd.testing.assert_frame_equal(one.best_b, other.best_a, atol=1e-6)
    assert one.unmatched_a.tolist() == other.unmatched_b.tolist()
    assert one.dead_a.tolist() == other.dead_b.tolist()
    pd.testing.assert_series_equal(one.statistics(), other.statistics(), atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), batch_size=st.integers(1, 60), n_block=st.integers(1, 12))
def test_matched_by_correlation_pairs_are_those_of_numpys_whole_matrix(seed, batch_size, n_block):
    sae_a, sae_b = (make_sae(random_rows(seed + i, 10, 5), threshold=1.0) for i in (0, 1))
    x_a = random_rows(seed + 2, 50, 5)
    x_b = x_a + 0.3 * random_rows(seed + 3, 50, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitlens.saes.nearest.N_BLOCK_FEATURES", n_block)
        result = saes.match(sae_a, sae_b, (x_a, x_b), by="activation_correlation", batch_size=batch_size)
    codes_a, codes_b = (sae.encode(x).double().numpy() for sae, x in ((sae_a, x_a), (sae_b, x_b)))
    live_a, live_b = (np.flatnonzero(codes.any(axis=0)) for codes in (codes_a, codes_b))
    matrix = np.corrcoef(codes_a[:, live_a].T, codes_b[:, live_b].T)[: len(live_a), len(live_a) :]
    np.testing.assert_allclose(result.best_a.activation_correlation, matrix.max(axis=1), atol=1e-9)
    np.testing.assert_allclose(result.best_b.activation_correlation, matrix.max(axis=0), atol=1e-9)
    assert result.best_a.nearest.tolist() == live_b[matrix.argmax(axis=1)].tolist()
    pairs = result.pairs
    expected = {(i, j) for i, j in enumerate(matrix.argmax(axis=1)) if matrix[:, j].argmax() == i}
    assert set(zip(pairs.feature_a, pairs.feature_b, strict=True)) == {
        (live_a[i], live_b[j]) for i, j in expected
    }
    a, b = (rows.W_dec / rows.W_dec.norm(dim=1, keepdim=True) for rows in (sae_a, sae_b))
    np.testing.assert_allclose(
        pairs.decoder_cosine, (a @ b.T).numpy()[pairs.feature_a, pairs.feature_b], atol=1e-6
    )
    assert result.share_above(0.5) == (pairs.activation_correlation > 0.5).sum() / len(live_a)


def test_a_code_that_never_varies_is_no_neighbor_by_correlation():
    sae = make_sae(torch.eye(2))
    x = torch.stack([torch.full((9,), 0.1), torch.arange(9.0)], 1)
    for method in ("mutual", "hungarian"):
        result = saes.match(sae, sae, (x, x), by="activation_correlation", method=method)
        assert result.best_a.nearest.tolist() == [-1, 1]
        assert result.pairs.feature_a.tolist() == [1]
        assert result.unmatched_a.tolist() == [0]
        assert math.isnan(result.best_a.activation_correlation[0])


def test_statistics_are_means_over_the_live_features_of_both():
    sae_a = make_sae(torch.eye(4))
    sae_b = make_sae(torch.cat([torch.eye(4)[:2], torch.tensor([[0.0, 0.0, 1.0, 1.0]])]))
    statistics = saes.match(sae_a, sae_b).statistics()
    # Pairs: 1, 1 and √½, with one of the two that are equally near; four and three features.
    assert statistics.mean_matched_decoder_cosine == pytest.approx(2 * (2 + 0.5**0.5) / 7)
    assert statistics.mean_nearest_decoder_cosine == pytest.approx((4 + 3 * 0.5**0.5) / 7)
    assert statistics["share_matched_above_0.7"] == pytest.approx(6 / 7)
    assert statistics["share_matched_above_0.9"] == pytest.approx(4 / 7)
    assert math.isnan(statistics.mean_matched_activation_correlation)


def test_every_feature_has_a_row_with_neighbor_and_partner():
    sae_a = make_sae(torch.tensor([[1.0, 0.0], [0.9, 0.1]]))
    table = saes.match(sae_a, make_sae(torch.eye(2))).by_feature()
    assert table.feature.tolist() == [0, 1]
    assert table.nearest.tolist() == [0, 0]
    assert table.partner.tolist() == [0, -1]
    assert table.decoder_cosine.isna().tolist() == [False, True]
    assert table.nearest_decoder_cosine.tolist() == pytest.approx([1.0, 0.9 / 0.82**0.5])


def test_the_nulls_are_matched_the_same_way_and_the_pair_lies_between_them():
    shared = random_rows(0, 60, 16)
    base, again, tuned = (
        shared + noise * random_rows(s, 60, 16) for s, noise in ((1, 0.2), (2, 0.2), (3, 1.0))
    )
    x = random_rows(9, 200, 16)
    nulls = {
        "seed": [seeded(again, 1)],
        "unrelated": [seeded(random_rows(4, 60, 16), 2), (seeded(random_rows(5, 60, 16), 3), x)],
    }
    result = saes.match(seeded(base, 0), seeded(tuned, 4), (x, x), nulls=nulls)
    assert {role: len(each) for role, each in result.nulls.items()} == {
        "seed": 1,
        "unrelated": 2,
        "shuffled": 1,
    }
    alone = saes.match(seeded(base, 0), seeded(again, 1), (x, x))
    pd.testing.assert_frame_equal(result.nulls["seed"][0].pairs, alone.pairs)
    assert result.nulls["unrelated"][0].pairs.activation_correlation.isna().all()
    assert result.nulls["unrelated"][1].pairs.activation_correlation.notna().all()
    table = result.yardstick()
    row = table.loc[result.primary]
    assert table.index[0] == result.primary == "mean_matched_decoder_cosine"
    expected = (row.pair - row.unrelated) / (row.seed - row.unrelated)
    assert result.similarity_share == row.similarity_share == pytest.approx(expected)
    assert 0 < result.similarity_share < 1
    assert row.shuffled < row.pair
    assert f"similarity share {result.similarity_share:.3f}" in repr(result)
    shares = result.shares_above((0.5, 0.9))
    assert list(shares) == ["pair", "seed", "unrelated", "shuffled"]
    assert shares.loc[0.5, "pair"] == result.share_above(0.5)
    rows = result.distributions()
    assert rows.groupby(["role", "match"]).size().to_dict() == {
        (role, number): len(each.best_a)
        for role, its in {"pair": [result], **result.nulls}.items()
        for number, each in enumerate(its)
    }


def test_a_share_without_its_ends_is_unknown_and_says_why():
    a, b, c, d = (seeded(random_rows(seed, 30, 8), seed) for seed in range(4))
    alone = saes.match(a, b)
    assert math.isnan(alone.similarity_share)
    assert alone.yardstick().reason.iloc[0] == "no seed-to-seed similarity"
    assert saes.match(a, b, nulls={"seed": [c]}).yardstick().reason.iloc[0] == "no unrelated similarity"
    reason = saes.match(a, b, nulls={"seed": [c], "unrelated": [seeded(a.W_dec, 9), d]}).yardstick().reason
    assert "does not clearly exceed unrelated (1.000 at most)" in reason.iloc[0]


def test_a_shuffled_dictionary_keeps_mean_and_covariance_and_no_feature():
    from vitlens.saes.pairing import Matching, shuffled, side

    rows = random_rows(0, 4000, 6) * torch.tensor([4.0, 2, 1, 1, 0.5, 0.1]) + torch.tensor(
        [1.0, 0, 0, 0, 0, 0]
    )
    before = side(make_sae(rows), None, Matching())
    after = shuffled(before, Matching(), seed=0)
    # The rows are scaled to norm 1 once more, which moves the covariance a little.
    cos = torch.nn.functional.cosine_similarity(
        torch.cov(before.directions.T).flatten(), torch.cov(after.directions.T).flatten(), dim=0
    )
    assert cos > 0.99
    torch.testing.assert_close(after.directions.norm(dim=1), torch.ones(4000))
    together = (before.directions @ after.directions.T).diagonal()
    assert together.mean().abs() < 0.9 * before.directions.norm(dim=1).mean()
    assert torch.equal(after.directions, shuffled(before, Matching(), seed=0).directions)
    assert not torch.equal(after.directions, shuffled(before, Matching(), seed=1).directions)


def test_by_correlation_the_shuffle_is_of_tokens():
    x = random_rows(1, 300, 8)
    a, b = (seeded(random_rows(0, 20, 8), seed) for seed in (0, 1))
    result = saes.match(a, b, (x, x), by="activation_correlation", nulls={})
    assert result.statistics()[result.primary] == pytest.approx(1.0)
    (null,) = result.nulls["shuffled"]
    assert null.best_a.activation_correlation.max() < 0.5
    assert null.pairs.activation_cosine.isna().all()


def test_nulls_that_mean_nothing_are_refused():
    rows, x = torch.eye(4), torch.ones(5, 4)
    a, b, c = (seeded(rows, seed) for seed in range(3))
    with pytest.raises(SAEError, match=r"sae_a and nulls\['seed'\]\[1\] were both trained with seed 0"):
        saes.match(a, b, nulls={"seed": [c, seeded(rows, 0)]})
    with pytest.raises(
        SAEError, match=r"sae_a and sae_b were both trained with seed 0.*shared initialization"
    ):
        saes.match(a, seeded(rows, 0), nulls={"seed": [c]})
    with pytest.raises(SAEError, match=r"nulls has 'seeds'.*'seed', 'unrelated'.*nearest is 'seed'"):
        saes.match(a, b, nulls={"seeds": [c]})
    with pytest.raises(SAEError, match=r"nulls\['seed'\]\[0\] comes with activations"):
        saes.match(a, b, nulls={"seed": [(c, x)]})
    with pytest.raises(SAEError, match=r"no activations of nulls\['unrelated'\]\[0\]"):
        saes.match(a, b, (x, x), by="activation_correlation", nulls={"unrelated": [c]})
    with pytest.raises(SAEError, match=r"sae_a has d_in 4, nulls\['unrelated'\]\[0\] 3"):
        saes.match(a, b, nulls={"unrelated": [seeded(torch.eye(3), 5)]})
    with pytest.raises(
        SAEError, match=r"activations of a have 5 tokens, those of nulls\['unrelated'\]\[0\] 4"
    ):
        saes.match(a, b, (x, x), nulls={"unrelated": [(c, x[:4])]})
