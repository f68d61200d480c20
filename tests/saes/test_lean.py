"""The lean step of a vanilla SAE against sae-lens's."""

from __future__ import annotations

import copy

import pytest
import torch

from vitlens.saes._sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig, TrainStepInput
from vitlens.saes.lean import LeanStandardTrainingSAE

D_IN, D_SAE, N = 24, 96, 64


@pytest.mark.parametrize("settings", [{}, {"apply_b_dec_to_input": False}, {"lp_norm": 2.0}])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_losses_and_gradients_are_those_of_sae_lens(settings, dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    config = StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE, **settings)
    dense = StandardTrainingSAE(config).to(dtype)
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype) / 3)
    lean = LeanStandardTrainingSAE(copy.deepcopy(config)).to(dtype)
    lean.load_state_dict(dense.state_dict())
    x = torch.randn(N, D_IN, generator=generator, dtype=dtype)
    one, other = (
        sae.training_forward_pass(TrainStepInput(x, {"l1": 0.3}, None, 0, False)) for sae in (dense, lean)
    )
    assert one.losses.keys() == other.losses.keys()
    for name, loss in one.losses.items():
        torch.testing.assert_close(other.losses[name], loss, rtol=tolerance, atol=0)
    torch.testing.assert_close(other.feature_acts, one.feature_acts, rtol=tolerance, atol=tolerance)
    for output in (one, other):
        output.loss.backward()
    for (name, parameter), ours in zip(dense.named_parameters(), lean.parameters(), strict=True):
        error = (ours.grad - parameter.grad).norm() / parameter.grad.norm()
        assert error < tolerance, name


def test_a_hook_on_the_codes_changes_the_step():
    lean = LeanStandardTrainingSAE(StandardTrainingSAEConfig(d_in=D_IN, d_sae=D_SAE))
    with lean.hooks(fwd_hooks=[("hook_sae_acts_post", lambda codes, hook: torch.zeros_like(codes))]):
        output = lean.training_forward_pass(TrainStepInput(torch.ones(N, D_IN), {"l1": 1.0}, None, 0, False))
    assert output.losses["l1_loss"].item() == 0
