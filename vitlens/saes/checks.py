"""What is asked of an SAE and of activations before any work is done with them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SAEError
from ._sae_lens import SAE, TrainingSAE
from .passes import blocks


def check_activations(activations: Tensor, what: str, d_in: int | None = None) -> None:
    """Refuse activations that are not finite rows of `d_in` numbers.

    Args:
        activations: what was given; [token d_in] is what is wanted.
        what: what to call them at the start of a message.
        d_in: the width they must have; None for any.

    Raises:
        SAEError: another number of axes, no tokens, another dtype or width, NaN or infinity.

    Example:
        >>> check_activations(torch.zeros(5, 8), "The activations", d_in=4)
        Traceback (most recent call last):
        vitlens.errors.SAEError: The activations are 8 wide, the SAE's d_in is 4. Expected: ...
    """
    if activations.ndim != 2 or 0 in activations.shape or not activations.is_floating_point():
        raise SAEError(
            f"{what} have shape {list(activations.shape)} and dtype {activations.dtype}.",
            expected="floating-point activations [token d_in] with at least one token",
            remedy="Flatten images and positions into one axis of tokens.",
        )
    if d_in is not None and activations.shape[1] != d_in:
        raise SAEError(
            f"{what} are {activations.shape[1]} wide, the SAE's d_in is {d_in}.",
            expected="activations from the hook that the SAE was trained on",
            remedy="Take them at the hook that sae.cfg.metadata.hook_name names.",
        )
    n_bad = sum(int((~block.isfinite()).any(dim=1).count_nonzero()) for block in blocks(activations))
    if n_bad:
        raise SAEError(
            f"{what} hold NaN or infinity in {n_bad} of {len(activations)} tokens.",
            expected="finite numbers",
            remedy="Look for overflow in the model (half precision?) or for damaged images.",
        )


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
