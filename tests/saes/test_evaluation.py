"""Figures of an SAE, against numpy and at their fixed points."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from vitlens import saes
from vitlens.errors import SAEError, ShapeError
from vitlens.saes import checks

from .conftest import make_sae

matrices = npst.arrays(
    np.float32,
    st.tuples(st.integers(2, 9), st.integers(1, 5)),
    elements=st.floats(-1000, 1000, width=32),
)


@settings(deadline=None, max_examples=50)
@given(x=matrices, seed=st.integers(0, 99))
def test_fvu_is_the_ratio_that_numpy_gives(x, seed):
    noise = np.random.default_rng(seed).standard_normal(x.shape).astype(np.float32)
    deviations = x.astype(np.float64) - x.astype(np.float64).mean(axis=0)
    measured = saes.fvu(torch.from_numpy(x), torch.from_numpy(x + noise))
    if (deviations**2).sum() == 0:
        assert measured == math.inf
    else:
        error = x.astype(np.float64) - (x + noise).astype(np.float64)
        assert measured == pytest.approx((error**2).sum() / (deviations**2).sum(), rel=1e-9)


@settings(deadline=None, max_examples=50)
@given(x=matrices)
def test_the_mean_predictor_has_an_fvu_of_exactly_one(x):
    x = torch.from_numpy(x).double()
    mean = x.mean(dim=0).expand_as(x)
    if not torch.equal(x, x[:1].expand_as(x)):
        assert saes.fvu(x, mean) == 1.0
        assert saes.fvu(x, x) == 0.0


def test_a_scalar_mean_would_flatter_where_dimensions_have_different_means():
    # Peers' R² with one mean for all dimensions calls the constant predictor nearly perfect.
    x = torch.tensor([[100.0, 0.0], [100.0, 1.0]])
    assert saes.fvu(x, torch.tensor([100.0, 0.5]).expand(2, 2)) == 1.0


def test_fvu_of_activations_far_from_zero_does_not_cancel():
    x = 1e4 + torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    expected = np.square(x.numpy().astype(np.float64) - x.numpy().astype(np.float64).mean(0)).sum()
    assert saes.fvu(x, x + 0.5) == pytest.approx(5000 * 3 * 0.25 / expected, rel=1e-6)


def test_fvu_without_variance_is_undefined_or_infinite():
    x = torch.ones(3, 2)
    assert math.isnan(saes.fvu(x, x))
    assert saes.fvu(x, x + 1) == math.inf


@pytest.mark.parametrize("shape", [(4, 2), (3, 1), (6,), (1, 3, 2)])
def test_fvu_refuses_to_broadcast(shape):
    with pytest.raises(ShapeError, match=r"x has shape \[3, 2\]"):
        saes.fvu(torch.zeros(3, 2), torch.zeros(shape))


def test_l0_and_dead_features_count_what_is_not_zero():
    codes = torch.tensor([[[0.0, 1e-30, 2.0, 0.0], [0.0, 0.0, 3.0, 0.0]]])
    assert saes.l0(codes) == 1.5
    assert saes.dead_features(codes).tolist() == [0, 3]
    assert saes.dead_features(torch.ones(2, 3)).tolist() == []


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), n_tokens=st.integers(2, 40), batch_size=st.integers(1, 50))
def test_figures_are_those_of_all_tokens_at_once_whatever_the_batch(seed, n_tokens, batch_size):
    generator = torch.Generator().manual_seed(seed)
    sae = make_sae(torch.randn(9, 4, generator=generator), threshold=1.5)
    x = torch.randn(n_tokens, 4, generator=generator) + 3
    codes = sae.encode(x)
    active = (codes > 0).numpy()
    measured = saes.figures(sae, x, batch_size=batch_size)
    assert measured["l0"] == pytest.approx(active.sum(axis=1).mean())
    assert measured["n_dead"] == (active.sum(axis=0) == 0).sum() == len(saes.dead_features(codes))
    assert measured["n_dense"] == (active.mean(axis=0) > 0.5).sum()
    assert measured["fvu"] == pytest.approx(saes.fvu(x, sae.decode(codes)), rel=1e-5)
    assert measured["n_tokens"] == n_tokens


def test_long_passes_go_block_by_block(monkeypatch):
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 5
    whole = saes.fvu(x, x + 1)
    monkeypatch.setattr("vitlens.saes.passes.N_BLOCK_TOKENS", 7)
    assert saes.fvu(x, x + 1) == pytest.approx(whole, rel=1e-12)
    x[41] = math.nan
    with pytest.raises(SAEError, match="in 1 of 50 tokens"):
        checks.check_activations(x, "They")


def test_figures_refuse_what_does_not_fit():
    sae = make_sae(torch.eye(3))
    with pytest.raises(SAEError, match=r"activations are 4 wide, the SAE's d_in is 3.*hook_name"):
        saes.figures(sae, torch.ones(2, 4))
    with pytest.raises(SAEError, match="NaN or infinity in 1 of 2"):
        saes.figures(sae, torch.tensor([[1.0, 2, 3], [math.nan, 0, 0]]))
    with pytest.raises(SAEError, match="batch_size is 0"):
        saes.figures(sae, torch.ones(2, 3), batch_size=0)


def test_the_training_form_and_broken_weights_are_refused():
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig

    in_training = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=3, d_sae=4, k=1))
    with pytest.raises(SAEError, match=r"The SAE is a BatchTopKTrainingSAE.*inference form"):
        saes.figures(in_training, torch.ones(2, 3))
    with pytest.raises(SAEError, match="NaN or infinity among its weights"):
        saes.figures(make_sae(torch.full((3, 3), math.nan)), torch.ones(2, 3))
