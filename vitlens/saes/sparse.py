"""sae-lens's BatchTopK with a training step that is sparse after the encoder's product."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from ._sae_lens import BatchTopKTrainingSAE, TrainStepInput, TrainStepOutput
from .centering import centered_input, has_plain_input
from .selection import Entries, largest_in_each_row, largest_positive

SPARSE_DEVICES = ("cpu",)
"""Types of device on which the step is sparse.

Elsewhere it is sae-lens's own: dense products are cheap on a GPU, and the sparse step was not measured there.
"""


class SparseBatchTopKTrainingSAE(BatchTopKTrainingSAE):  # type: ignore[misc]  # untyped there
    """sae-lens's `BatchTopKTrainingSAE`: same configuration, parameters, losses, threshold and saved file.

    Of its training step only the encoder's product is dense. Codes enter a reconstruction divided by the
    decoder norms that `rescale_acts_by_decoder_norm` multiplied them with: the norms decide which codes are
    active, and have no gradient. In the step's output `feature_acts` is a sparse COO tensor of the active
    codes, without gradient; `hidden_pre`, which would be dense, is that same tensor.

    The step is sae-lens's dense one on a device not among `SPARSE_DEVICES`, under autocast, where tokens are
    normalized one by one, and while a hook is attached to one of its hook points.

    Source: Bussmann et al. (2024), "BatchTopK sparse autoencoders" (arXiv 2412.06410); the auxiliary loss
    from Gao et al. (2024), "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093).

    Example:
        >>> from vitlens.saes._sae_lens import BatchTopKTrainingSAEConfig, TrainStepInput
        >>> sae = SparseBatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=4, d_sae=8, k=2))
        >>> x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
        >>> output = sae.training_forward_pass(TrainStepInput(x, {}, None, 0, False))
        >>> output.feature_acts.values().shape, output.sae_out.shape
        (torch.Size([32]), torch.Size([16, 4]))
    """

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """Codes, reconstruction and losses of one batch."""
        if self.W_enc.device.type not in SPARSE_DEVICES or not has_plain_input(self):
            return super().training_forward_pass(step_input)
        sae_in = step_input.sae_in
        centered, b_enc = centered_input(self, sae_in)
        with torch.no_grad():
            rescales = self.cfg.rescale_acts_by_decoder_norm
            norms = self.W_dec.norm(dim=1) if rescales else torch.ones_like(self.b_enc)
            codes = torch.addmm(b_enc * norms, centered, self.W_enc * norms)  # cheaper than scaling codes
        active = largest_positive(codes, int(self.cfg.k * len(codes)))
        revived = self._revived(codes, step_input.dead_neuron_mask)
        del codes  # the one large matrix is gone before gradients come

        def decoded(entries: Entries) -> Float[Tensor, "batch d_in"]:
            weights = entries.values / norms[entries.columns]
            sums: Tensor = _WeightedRows.apply(
                centered, self.W_enc, b_enc, self.W_dec, entries.rows, entries.columns, weights
            )
            return sums

        sae_out = decoded(active) + self.b_dec
        mse_loss = self.mse_loss_fn(sae_out, sae_in).sum(dim=-1).mean()
        auxiliary_loss = sae_out.new_tensor(0.0)
        if revived is not None:
            entries, scale = revived
            errors = decoded(entries) - (sae_in - sae_out).detach()
            auxiliary_loss = self.cfg.aux_loss_coefficient * scale * errors.pow(2).sum(dim=-1).mean()
        self.update_topk_threshold(active.values)
        feature_acts = torch.sparse_coo_tensor(
            torch.stack([active.rows, active.columns]),
            active.values,
            (len(sae_in), self.cfg.d_sae),
            is_coalesced=True,
            check_invariants=False,
        )
        return TrainStepOutput(
            sae_in=sae_in,
            sae_out=sae_out,
            feature_acts=feature_acts,
            hidden_pre=feature_acts,
            loss=mse_loss + auxiliary_loss,
            losses={"mse_loss": mse_loss, "auxiliary_reconstruction_loss": auxiliary_loss},
            metrics={"topk_threshold": self.topk_threshold},
        )

    def _revived(
        self, codes: Float[Tensor, "batch d_sae"], is_dead: Bool[Tensor, " d_sae"] | None
    ) -> tuple[Entries, float] | None:
        """The largest codes of dead latents, d_in / 2 per token, and the share of as many that there are."""
        if is_dead is None or not is_dead.any():
            return None
        dead = is_dead.nonzero().squeeze(1)
        n_most = self.cfg.d_in // 2
        entries = largest_in_each_row(codes[:, dead], min(n_most, len(dead)))
        return entries._replace(columns=dead[entries.columns].int()), min(len(dead) / n_most, 1.0)


class _WeightedRows(torch.autograd.Function):
    """For each token the sum of decoder rows, weighted with pre-activations at the chosen places.

    Forward takes the pre-activations as they are; backward differentiates them as `centered @ W_enc + b_enc`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        centered: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        W_dec: Tensor,
        tokens: Tensor,
        latents: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """[batch d_in]."""
        bounds = _bounds(tokens, len(centered))
        ctx.save_for_backward(centered, W_dec, tokens, latents, weights, bounds)
        return _bags(W_dec, latents, bounds, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Of `W_enc`, `b_enc` and `W_dec`."""
        centered, W_dec, tokens, latents, weights, bounds = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            places = torch.sparse_csr_tensor(
                bounds,
                latents,
                torch.zeros_like(weights),
                (len(centered), len(W_dec)),
                check_invariants=False,
            )
        d_weights = torch.sparse.sampled_addmm(places, gradient, W_dec.t()).values()
        by_latent = latents.argsort(stable=True)
        latent_tokens, latent_bounds = tokens[by_latent], _bounds(latents, len(W_dec))
        d_W_enc = _bags(centered, latent_tokens, latent_bounds, d_weights[by_latent]).t()
        d_b_enc = torch.zeros_like(W_dec[:, 0]).index_add_(0, latents, d_weights)
        d_W_dec = _bags(gradient, latent_tokens, latent_bounds, weights[by_latent])
        return None, d_W_enc, d_b_enc, d_W_dec, None, None, None


def _bounds(groups: Int[Tensor, " entry"], n_groups: int) -> Int[Tensor, " bound"]:
    """Where each group of the entries sorted by group begins, and where the last ends."""
    bounds = torch.zeros(n_groups + 1, dtype=torch.int32, device=groups.device)
    return bounds.index_add_(0, groups + 1, torch.ones_like(groups)).cumsum_(0)


def _bags(
    rows: Float[Tensor, "row d_in"],
    indices: Int[Tensor, " entry"],
    bounds: Int[Tensor, " bound"],
    weights: Float[Tensor, " entry"],
) -> Float[Tensor, "group d_in"]:
    """For each group the weighted sum of its rows.

    A product with a sparse CSR matrix is the same, and takes 2.5 times as long on a CPU.
    """
    return embedding_bag(
        indices, rows, bounds, mode="sum", per_sample_weights=weights, include_last_offset=True
    )
