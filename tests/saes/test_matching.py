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


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000), n_a=st.integers(1, 14), n_b=st.integers(1, 14), n_block=st.integers(1, 15)
)
def test_pairs_and_neighbors_are_those_of_the_whole_matrix(seed, n_a, n_b, n_block):
    rows_a, rows_b = random_rows(seed, n_a, 5), random_rows(seed + 1, n_b, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitlens.saes.matching.N_BLOCK_FEATURES", n_block)
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
        "FeatureMatch(4 and 3 features, 0 and 0 dead: 3 pairs, median decoder cosine 1.000)"
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
    with pytest.raises(SAEError, match=r"method is 'hungarian'.*'mutual'"):
        saes.match(two, two, method="hungarian")
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
