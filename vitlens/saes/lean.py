"""sae-lens's vanilla SAE with a training step of fewer products and passes."""

from __future__ import annotations

import torch

from ._sae_lens import StandardTrainingSAE, TrainStepInput, TrainStepOutput
from .centering import centered_input, has_plain_input


class LeanStandardTrainingSAE(StandardTrainingSAE):  # type: ignore[misc]  # untyped there
    """sae-lens's `StandardTrainingSAE`: the same configuration, parameters, losses and saved file.

    Five of the step's six dense products remain (see `centered_input`), and the L1 penalty is taken from each
    latent's sum of codes instead of from a matrix of weighted ones. In the step's output `hidden_pre` is
    `feature_acts`: the rectifier works in place.

    The step is sae-lens's own with another `lp_norm` than 1, under autocast, where tokens are normalized one
    by one, and while a hook is attached to one of its hook points.

    Example:
        >>> from vitlens.saes._sae_lens import StandardTrainingSAEConfig
        >>> sae = LeanStandardTrainingSAE(StandardTrainingSAEConfig(d_in=4, d_sae=8))
        >>> x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
        >>> output = sae.training_forward_pass(TrainStepInput(x, {"l1": 1.0}, None, 0, False))
        >>> sorted(output.losses)
        ['l1_loss', 'mse_loss']
    """

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Codes, reconstruction and losses of one batch."""
        if self.cfg.lp_norm != 1 or not has_plain_input(self):
            return super().training_forward_pass(step_input)
        sae_in = step_input.sae_in
        centered, b_enc = centered_input(self, sae_in)
        codes = torch.addmm(b_enc, centered, self.W_enc).relu_()
        sae_out = torch.addmm(self.b_dec, codes, self.W_dec)
        mse_loss = self.mse_loss_fn(sae_out, sae_in).sum(dim=-1).mean()
        penalty = codes.sum(dim=0) @ self.W_dec.norm(dim=1) / len(codes)
        l1_loss = step_input.coefficients["l1"] * penalty
        return TrainStepOutput(
            sae_in=sae_in,
            sae_out=sae_out,
            feature_acts=codes,
            hidden_pre=codes,
            loss=mse_loss + l1_loss,
            losses={"mse_loss": mse_loss, "l1_loss": l1_loss},
        )
