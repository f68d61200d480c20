"""The threshold at which a JumpReLU SAE has a given mean L0."""

from __future__ import annotations

import torch

from ..errors import SAEError
from ._sae_lens import SAE, JumpReLUSAE
from .checks import check_batch_size, check_inference_form
from .passes import batches
from .tokens import Activations, as_tokens


@torch.no_grad()
def set_threshold(
    sae: SAE,
    activations: Activations,
    k_per_token: int,
    *,
    batch_size: int = 4096,
    progress: bool = True,
) -> float:
    """Give `sae` the one threshold at which mean L0 on `activations` is `k_per_token`.

    It is an order statistic: with n tokens, it lies between the k·n-th and the next largest of all
    pre-activations, halfway, so that rounding in another batch size does not move a feature across it.
    Pre-activations that tie there stay inactive together; where fewer than k·n are positive, the threshold is
    0 and all of them are active.

    Args:
        sae: changed in place; every feature gets the same threshold.
        activations: [token d_in], or a store's hook, best of tokens that the SAE was not trained on.
        k_per_token: the mean L0 that is wanted.
        batch_size: tokens encoded at a time.
        progress: show a bar if it takes more than a second.

    Returns:
        The threshold, in the units of the codes.

    Raises:
        SAEError: the SAE is no JumpReLU, the activations do not fit it, or `k_per_token` is outside 1 to
            its `d_sae`.

    Source: Bussmann et al. (2024), "BatchTopK sparse autoencoders" (arXiv 2412.06410), whose mean of batch
    minima this replaces.

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = vl.saes.train(x, d_sae=16, k_per_token=2, batch_size=64, n_tokens=2560, progress=False)
        >>> _ = vl.saes.set_threshold(sae, x, 3)
        >>> vl.saes.figures(sae, x)["l0"]
        3.0
    """
    if not isinstance(sae, JumpReLUSAE):
        raise SAEError(
            f"The SAE is a {type(sae).__name__}, which has no threshold.",
            expected="a JumpReLUSAE",
            remedy='Train with kind="batch_topk".',
        )
    check_inference_form(sae, "The SAE")
    check_batch_size(batch_size)
    tokens = as_tokens(activations, "The activations", d_in=sae.cfg.d_in)
    check_k(k_per_token, sae.cfg.d_sae)
    n_wanted = k_per_token * tokens.n_tokens
    sae.threshold.zero_()
    # The largest n_wanted + 1 seen so far; what is not above the floor can no longer be among them.
    largest = torch.empty(0, dtype=sae.dtype, device=sae.device)
    floor = torch.zeros((), dtype=sae.dtype, device=sae.device)
    for batch in batches(tokens, batch_size, "Setting threshold", progress):
        codes = sae.encode(batch.to(sae.device))
        largest = torch.cat([largest, codes[codes > floor]])
        if len(largest) > n_wanted:
            largest = largest.topk(n_wanted + 1, sorted=False).values
            floor = largest.min()
    if len(largest) > n_wanted:
        below, lowest_active = largest.topk(2, largest=False).values
        halfway = below + (lowest_active - below) / 2
        sae.threshold.fill_(torch.where(halfway < lowest_active, halfway, below))
    return float(sae.threshold[0])


def check_k(k_per_token: int, d_sae: int) -> None:
    """Refuse a number of active features that an SAE cannot have.

    Raises:
        SAEError: `k_per_token` is outside 1 to `d_sae`.
    """
    if not 1 <= k_per_token <= d_sae:
        raise SAEError(
            f"k_per_token is {k_per_token} and d_sae {d_sae}.",
            expected="1 <= k_per_token <= d_sae",
            remedy="Lower k_per_token; it counts the features that are active on one token.",
        )
