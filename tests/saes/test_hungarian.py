"""The assignment and its candidates, against scipy's on the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from vitlens import saes
from vitlens.errors import SAEError
from vitlens.saes.hungarian import assignment
from vitlens.saes.nearest import neighbors

from .conftest import make_sae

sizes = st.integers(1, 12)


def cosines_of(a, b):
    a, b = (each.double() / each.double().norm(dim=1, keepdim=True) for each in (a, b))
    return (a @ b.T).numpy()


def best_total(weights):
    """Of whatever one-to-one pairs, a pair that weighs less than nothing being left alone."""
    useful = np.maximum(weights, 0)
    return useful[linear_sum_assignment(useful, maximize=True)].sum()


def all_edges(weights):
    rows, columns = np.indices(weights.shape)
    return rows.ravel(), columns.ravel(), weights.ravel()


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), n_a=sizes, n_b=sizes, n_kinds=st.sampled_from([3, 10_000]))
def test_the_total_on_all_candidates_is_scipys(seed, n_a, n_b, n_kinds):
    weights = (
        np.random.default_rng(seed).integers(-n_kinds, n_kinds, (n_a, n_b)) / n_kinds
    )  # often equal, or 0
    rows, columns, flat = all_edges(weights)
    chosen = assignment(rows, columns, flat, n_a, n_b)
    assert len(set(rows[chosen])) == len(set(columns[chosen])) == len(chosen)
    assert (flat[chosen] > 0).all()
    assert flat[chosen].sum() == pytest.approx(best_total(weights))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), n_a=sizes, n_b=sizes, share=st.floats(0, 0.5))
def test_on_a_sparse_graph_the_total_is_that_of_the_matrix_without_the_missing_edges(seed, n_a, n_b, share):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(-0.2, 1, (n_a, n_b))
    kept = rng.random((n_a, n_b)) < share  # rows, columns and groups of them lack a full matching
    rows, columns, flat = (each[kept.ravel()] for each in all_edges(weights))
    chosen = assignment(rows, columns, flat, n_a, n_b)
    assert flat[chosen].sum() == pytest.approx(best_total(np.where(kept, weights, 0)))


def test_without_a_useful_edge_nothing_is_chosen():
    empty = np.empty(0, dtype=np.int64)
    assert len(assignment(empty, empty, np.empty(0), 3, 2)) == 0
    assert len(assignment(np.array([0]), np.array([1]), np.array([-0.5]), 3, 2)) == 0
    assert len(assignment(np.array([0]), np.array([1]), np.array([0.0]), 3, 2)) == 0


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    n_a=sizes,
    n_b=sizes,
    n_candidates=st.integers(1, 14),
    n_block=st.integers(1, 13),
)
def test_candidates_are_the_nearest_from_either_side(seed, n_a, n_b, n_candidates, n_block):
    matrix = torch.randn(n_a, n_b, generator=torch.Generator().manual_seed(seed)).tanh()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vitlens.saes.nearest.N_BLOCK_FEATURES", n_block)
        found = neighbors(matrix.__getitem__, n_a, n_b, n_candidates=n_candidates)
    to_b = np.argsort(-matrix.numpy(), axis=1)[:, :n_candidates]
    to_a = np.argsort(-matrix.numpy(), axis=0)[:n_candidates]
    expected = {(i, int(j)) for i in range(n_a) for j in to_b[i]}
    expected |= {(int(i), j) for j in range(n_b) for i in to_a[:, j]}
    edges = list(zip(found.rows.tolist(), found.columns.tolist(), strict=True))
    assert set(edges) == expected
    assert len(edges) == len(expected)
    assert found.similarities.tolist() == [matrix[edge].item() for edge in edges]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), n_a=sizes, n_b=sizes)
def test_a_hungarian_match_is_the_assignment_of_greatest_total_cosine(seed, n_a, n_b):
    generator = torch.Generator().manual_seed(seed)
    rows_a, rows_b = torch.randn(n_a, 4, generator=generator), torch.randn(n_b, 4, generator=generator)
    result = saes.match(make_sae(rows_a), make_sae(rows_b), method="hungarian")
    cosines = cosines_of(rows_a, rows_b)
    pairs = result.pairs
    assert pairs.decoder_cosine.sum() == pytest.approx(best_total(cosines), abs=1e-5)
    np.testing.assert_allclose(pairs.decoder_cosine, cosines[pairs.feature_a, pairs.feature_b], atol=1e-6)
    assert pairs.decoder_cosine.is_monotonic_decreasing
    assert set(pairs.feature_a) | set(result.unmatched_a) == set(range(n_a))
    assert set(pairs.feature_b) | set(result.unmatched_b) == set(range(n_b))
    assert result.best_a.decoder_cosine.tolist() == pytest.approx(cosines.max(axis=1).tolist(), abs=1e-6)


def test_more_candidates_never_lose_and_few_lose_little():
    generator = torch.Generator().manual_seed(0)
    rows_a, rows_b = torch.randn(2, 300, 24, generator=generator)
    full = best_total(cosines_of(rows_a, rows_b))
    totals = [
        saes.match(
            make_sae(rows_a), make_sae(rows_b), method="hungarian", n_candidates=n
        ).pairs.decoder_cosine.sum()
        for n in (1, 4, 32, 300)
    ]
    assert totals == sorted(totals)
    assert totals[2] > 0.999 * full
    assert totals[3] == pytest.approx(full, rel=1e-6)


def test_where_neighbors_are_contested_an_assignment_pairs_what_mutual_neighbors_leave_alone():
    # Both features of a are nearest to b's first.
    sae_a = make_sae(torch.tensor([[1.0, 0.0], [0.9, 0.1]]))
    sae_b = make_sae(torch.tensor([[1.0, 0.05], [0.0, 1.0]]))
    assert len(saes.match(sae_a, sae_b).pairs) == 1
    assert len(saes.match(sae_a, sae_b, method="hungarian").pairs) == 2
    assert (
        len(saes.match(sae_a, sae_b, method="hungarian", n_candidates=1).pairs) == 2
    )  # b's own neighbors count


def test_opposite_features_are_no_pair_of_an_assignment():
    sae, opposite = make_sae(torch.eye(2)), make_sae(-torch.eye(2))
    result = saes.match(sae, opposite, method="hungarian")
    assert len(result.pairs) == 0
    assert result.unmatched_a.tolist() == result.unmatched_b.tolist() == [0, 1]


def test_an_assignment_without_candidates_is_refused():
    sae = make_sae(torch.eye(2))
    with pytest.raises(SAEError, match=r"n_candidates is 0\. Expected: at least 1"):
        saes.match(sae, sae, method="hungarian", n_candidates=0)
