"""The sparse BatchTopK step against sae-lens's dense one."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from vitlens.saes._sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TrainStepInput
from vitlens.saes.sparse import SparseBatchTopKTrainingSAE

D_IN, D_SAE, K, N = 24, 96, 5, 64

NONE_DEAD = torch.zeros(D_SAE, dtype=torch.bool)
FEW_DEAD = torch.arange(D_SAE) < D_IN // 4
HALF_DEAD = torch.arange(D_SAE) % 2 == 0


def pair(dtype: torch.dtype = torch.float32, **settings) -> tuple[BatchTopKTrainingSAE, BatchTopKTrainingSAE]:
    """sae-lens's SAE and the sparse one, with the same weights, none of them zero."""
    generator = torch.Generator().manual_seed(0)
    config = BatchTopKTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, **{"k": K} | settings)
    dense = BatchTopKTrainingSAE(config).to(dtype)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) / 3)
    sparse = SparseBatchTopKTrainingSAE(copy.deepcopy(config)).to(dtype)
    sparse.load_state_dict(dense.state_dict())
    return dense, sparse


def batch(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(N, D_IN, generator=torch.Generator().manual_seed(1), dtype=dtype)


def forward(sae, x, dead=NONE_DEAD):
    """The step up to the loss."""
    return sae.training_forward_pass(TrainStepInput(x, {}, dead, 0, False))


@pytest.mark.parametrize("dead", [None, NONE_DEAD, FEW_DEAD, HALF_DEAD, ~NONE_DEAD])
@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_losses_and_gradients_are_the_dense_ones(dead, rescale, subtract, dtype, tolerance):
    saes = pair(
        dtype,
        rescale_acts_by_decoder_norm=rescale,
        apply_b_dec_to_input=subtract,
        aux_loss_coefficient=0.7,
    )
    one, other = (forward(sae, batch(dtype), dead) for sae in saes)
    assert one.losses.keys() == other.losses.keys()
    for name, loss in one.losses.items():
        torch.testing.assert_close(other.losses[name], loss, rtol=tolerance, atol=0)
    torch.testing.assert_close(other.sae_out, one.sae_out, rtol=tolerance, atol=tolerance)
    for output in (one, other):
        output.loss.backward()
    for (name, dense), sparse in zip(saes[0].named_parameters(), saes[1].parameters(), strict=True):
        error = (sparse.grad - dense.grad).norm() / dense.grad.norm()
        assert error < tolerance, name


@pytest.mark.parametrize("rescale", [True, False])
def test_gradients_are_those_of_finite_differences(rescale):
    _, sae = pair(torch.float64, rescale_acts_by_decoder_norm=rescale)
    x, generator = batch(torch.float64), torch.Generator().manual_seed(2)
    forward(sae, x).loss.backward()
    for parameter in sae.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        losses = []
        for shift in (1e-7, -2e-7):
            with torch.no_grad():
                parameter.add_(direction, alpha=shift)
                losses.append(float(forward(sae, x).loss))
        with torch.no_grad():
            parameter.add_(direction, alpha=1e-7)
        slope = (losses[0] - losses[1]) / 2e-7
        assert slope == pytest.approx(float((parameter.grad * direction).sum()), rel=1e-5)


@pytest.mark.parametrize("rescale", [True, False])
def test_codes_and_running_threshold_are_the_dense_ones(rescale):
    dense, sparse = pair(rescale_acts_by_decoder_norm=rescale)
    for _ in range(3):
        one, other = forward(dense, batch()), forward(sparse, batch())
    torch.testing.assert_close(other.feature_acts.to_dense(), one.feature_acts.detach())
    assert other.feature_acts._nnz() == K * N
    torch.testing.assert_close(sparse.topk_threshold, dense.topk_threshold)
    assert float(dense.topk_threshold) > 0


def test_a_fractional_k_counts_over_the_batch():
    dense, sparse = pair(k=1.5)
    one, other = forward(dense, batch()), forward(sparse, batch())
    assert other.feature_acts._nnz() == int(one.feature_acts.count_nonzero()) == 1.5 * N


@pytest.mark.parametrize("bias", [-3.0, -100.0])
def test_fewer_positive_pre_activations_than_wanted_are_all_active(bias):
    saes = pair()
    for sae in saes:
        sae.b_enc.data.fill_(bias)
    one, other = (forward(sae, batch()) for sae in saes)
    assert other.feature_acts._nnz() == int(one.feature_acts.count_nonzero()) < K * N
    for output in (one, other):
        output.loss.backward()
    for dense, sparse in zip(*(sae.parameters() for sae in saes), strict=True):
        torch.testing.assert_close(sparse.grad, dense.grad, rtol=1e-5, atol=1e-5)


def test_the_saved_file_is_the_dense_ones(tmp_path):
    saes = pair()
    for sae, name in zip(saes, ("dense", "sparse"), strict=True):
        forward(sae, batch())
        sae.save_inference_model(tmp_path / name)
    one, other = (SAE.load_from_disk(tmp_path / name) for name in ("dense", "sparse"))
    assert type(one) is type(other)
    torch.testing.assert_close(one.state_dict(), other.state_dict())


def test_a_hook_on_the_codes_sees_them_and_its_value_counts():
    dense, sparse = pair()
    outputs = [
        sae.run_with_hooks(batch(), fwd_hooks=[("hook_sae_acts_post", lambda codes, hook: codes * 2)])
        for sae in (dense, sparse)
    ]
    torch.testing.assert_close(*outputs)
    with sparse.hooks(fwd_hooks=[("hook_sae_acts_post", lambda codes, hook: torch.zeros_like(codes))]):
        torch.testing.assert_close(forward(sparse, batch()).sae_out, sparse.b_dec.expand(N, D_IN))


def test_tokens_normalized_one_by_one_take_the_dense_step():
    dense, sparse = pair(normalize_activations="layer_norm")
    torch.testing.assert_close(forward(sparse, batch()).loss, forward(dense, batch()).loss)


def test_a_step_warns_of_nothing():
    _, sae = pair()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        forward(sae, batch(), HALF_DEAD).loss.backward()
