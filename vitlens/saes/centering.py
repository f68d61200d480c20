"""The encoder's view of a batch, with a cheap gradient for the decoder's bias that is subtracted from it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ._sae_lens import BatchTopKTrainingSAE, StandardTrainingSAE


def centered_input(
    sae: BatchTopKTrainingSAE | StandardTrainingSAE, sae_in: Float[Tensor, "batch d_in"]
) -> tuple[Float[Tensor, "batch d_in"], Float[Tensor, " d_sae"]]:
    """What the encoder multiplies, and the bias to add to the product.

    sae-lens differentiates `(x - b_dec) @ W_enc + b_enc` by way of the input: one more dense product, whose
    rows are then summed. Here the input has no gradient, and `b_dec` enters the bias as a zero: its gradient
    is minus `W_enc` times the bias's.

    Args:
        sae: in training.
        sae_in: a batch, as sae-lens's training step takes it.

    Returns:
        The batch, processed and centered, without gradient; and `b_enc`, with `b_dec` in its graph if the
        configuration subtracts that from the input.
    """
    with torch.no_grad():
        centered = sae.process_sae_in(sae_in)
    if not sae.cfg.apply_b_dec_to_input:
        return centered, sae.b_enc
    return centered, sae.b_enc - (sae.b_dec - sae.b_dec.detach()) @ sae.W_enc.detach()


def has_plain_input(sae: BatchTopKTrainingSAE | StandardTrainingSAE) -> bool:
    """Whether a batch enters and leaves as it is: no hook sees it or changes it, no token's scale either."""
    return (
        not torch.is_autocast_enabled(sae.W_enc.device.type)
        and sae.cfg.normalize_activations not in ("constant_norm_rescale", "layer_norm")
        and not any(hook.fwd_hooks or hook.bwd_hooks for hook in sae.hook_dict.values())
    )
