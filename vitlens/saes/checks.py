"""What is asked of an SAE before any work is done with it."""

from __future__ import annotations

import torch

from ..errors import SAEError
from ._sae_lens import SAE, TrainingSAE


def check_inference_form(sae: SAE, what: str) -> None:
    """Refuse what is no SAE in its inference form with finite weights.

    The codes of a BatchTopK in its training form depend on the other tokens of the batch.

    Args:
        sae: what was given.
        what: what to call it at the start of a message.

    Raises:
        SAEError: not an SAE of sae-lens, one in its training form, or one with NaN or infinite weights.
    """
    if not isinstance(sae, SAE) or isinstance(sae, TrainingSAE):
        raise SAEError(
            f"{what} is a {type(sae).__name__}.",
            expected="a sae-lens SAE in its inference form (StandardSAE, JumpReLUSAE, ...)",
            remedy="Take what vitlens.saes.train returns, or what sae_lens.SAE.load_from_disk reads.",
        )
    if not all(bool(torch.isfinite(parameter).all()) for parameter in sae.parameters()):
        raise SAEError(
            f"{what} has NaN or infinity among its weights.",
            expected="finite weights",
            remedy="Train it anew, with a lower learning_rate.",
        )


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch without tokens.

    Raises:
        SAEError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise SAEError(
            f"batch_size is {batch_size}.", expected="at least 1 token", remedy="Pass batch_size=4096."
        )
