"""How good an SAE is on given activations: L0, FVU, dead and dense features, coherence of its decoder."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ShapeError
from ._sae_lens import SAE
from .checks import check_batch_size, check_inference_form
from .passes import batches, mean_activation
from .tokens import Activations, InMemory, as_tokens

FIGURES = ("l0", "fvu", "n_dead", "n_dense", "decoder_coherence_max", "decoder_coherence_mean")
"""What `figures` says besides the number of tokens."""

N_BLOCK_FEATURES = 1024
"""Decoder rows that are compared with all others at a time."""


def fvu(x: Float[Tensor, " ..."], x_hat: Float[Tensor, " ..."]) -> float:
    """Fraction of the variance of `x` that `x_hat` leaves unexplained.

    One ratio over all tokens, in float64, against the mean of each dimension: a perfect reconstruction has 0,
    the mean of `x` exactly 1, anything worse more than 1.

    Args:
        x: activations, [token d_in].
        x_hat: their reconstruction, [token d_in].

    Returns:
        Σ‖x − x̂‖² / Σ‖x − mean‖². NaN where both sums are 0.

    Raises:
        ShapeError: the two differ in shape, or are not [token d_in].

    Source: Gao et al. (2024), "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093), as their
    normalized mean squared error.

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.tensor([[0.0, 2.0], [1.0, 4.0]])
        >>> vl.saes.fvu(x, x), vl.saes.fvu(x, x.mean(dim=0).expand_as(x))
        (0.0, 1.0)
    """
    if x.ndim != 2 or x.shape != x_hat.shape:
        raise ShapeError(
            f"x has shape {list(x.shape)}, x_hat {list(x_hat.shape)}.",
            expected="[token d_in], twice",
            remedy="Flatten images and positions into one axis of tokens.",
        )
    unexplained, total = _squares(x, x_hat, mean_activation(InMemory(x)))
    return float(unexplained / total)


def _squares(
    x: Float[Tensor, "token d_in"], x_hat: Float[Tensor, "token d_in"], mean: Float[Tensor, " d_in"]
) -> Float[Tensor, " 2"]:
    x = x.double()
    return torch.stack([(x - x_hat.double()).square().sum(), (x - mean).square().sum()])


def l0(codes: Float[Tensor, "... d_sae"]) -> float:
    """Mean number of active features per token.

    Args:
        codes: an SAE's codes; the last axis is that of the features.

    Returns:
        0 to the number of features.

    Example:
        >>> import torch, vitlens as vl
        >>> vl.saes.l0(torch.tensor([[0.0, 1.5, 2.0], [0.0, 0.0, 3.0]]))
        1.5
    """
    return float(codes.count_nonzero(dim=-1).double().mean())


def dead_features(codes: Float[Tensor, "... d_sae"]) -> Int[Tensor, " dead"]:
    """Indices of the features that are active on no token.

    Args:
        codes: an SAE's codes; the last axis is that of the features.

    Returns:
        Their numbers, ascending.

    Example:
        >>> import torch, vitlens as vl
        >>> vl.saes.dead_features(torch.tensor([[0.0, 1.5, 2.0], [0.0, 0.0, 3.0]]))
        tensor([0])
    """
    return (codes == 0).flatten(end_dim=-2).all(dim=0).nonzero().flatten()


@torch.no_grad()
def decoder_coherence(decoder: Float[Tensor, "d_sae d_in"]) -> tuple[float, float]:
    """How alike the directions are that an SAE's features write.

    Cosines are taken block by block, in float32; the whole matrix is never held. Rows that are 0 are left
    out: they write nothing.

    Args:
        decoder: `sae.W_dec`, a row a feature.

    Returns:
        The largest |cosine| between two rows, and the mean over rows of each row's largest with another. NaN
        where there are fewer than two rows.

    Source: the largest is the mutual coherence of a dictionary: Donoho and Huo (2001), "Uncertainty
    principles and ideal atomic decomposition".

    Example:
        >>> import torch, vitlens as vl
        >>> decoder_coherence(torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.0, 3.0]]))
        (1.0, 0.666...)
    """
    rows = decoder[decoder.any(dim=1)].double()  # a float32 that is not 0 may have a square that is
    directions = (rows / rows.norm(dim=1, keepdim=True)).float()
    if len(directions) < 2:
        return math.nan, math.nan
    largest = torch.zeros(len(directions), device=directions.device)
    for start in range(0, len(directions), N_BLOCK_FEATURES):
        # Each pair of blocks is met once; it tells both of its sides.
        block = directions[start : start + N_BLOCK_FEATURES]
        cosines = (block @ directions[start:].T).abs()
        cosines.diagonal().zero_()
        mine, others = largest[start : start + len(block)], largest[start:]
        torch.maximum(others, cosines.amax(dim=0), out=others)
        torch.maximum(mine, cosines.amax(dim=1), out=mine)
    largest.clamp_(max=1)
    return float(largest.max()), float(largest.double().mean())


@torch.no_grad()
def figures(
    sae: SAE, activations: Activations, *, batch_size: int = 4096, progress: bool = True
) -> dict[str, float | int]:
    """An SAE's quality on given activations, in batches.

    Args:
        sae: an SAE in its inference form.
        activations: [token d_in], or a store's hook, from the hook that the SAE was trained on; on any
            device.
        batch_size: tokens encoded at a time.
        progress: show a bar if it takes more than a second.

    Returns:
        `l0` (mean active features per token), `fvu` (see `fvu`), `n_dead` (features active on none of the
        tokens), `n_dense` (features active on more than half of them), `n_tokens`;
        `decoder_coherence_max` and `decoder_coherence_mean` (see `decoder_coherence`).

    Raises:
        SAEError: the SAE is in its training form, or the activations do not fit it.

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = vl.saes.train(x, kind="vanilla", d_sae=16, batch_size=64, n_tokens=640, progress=False)
        >>> list(vl.saes.figures(sae, x))
        ['l0', 'fvu', 'n_dead', 'n_dense', 'decoder_coherence_max', 'decoder_coherence_mean', 'n_tokens']
    """
    check_inference_form(sae, "The SAE")
    check_batch_size(batch_size)
    tokens = as_tokens(activations, "The activations", d_in=sae.cfg.d_in)
    mean = mean_activation(tokens).to(sae.device)
    squares = torch.zeros(2, dtype=torch.float64, device=sae.device)
    n_active = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.device)
    for batch in batches(tokens, batch_size, "Evaluating SAE", progress):
        x = batch.to(sae.device)
        codes = sae.encode(x)
        squares += _squares(x, sae.decode(codes), mean)
        n_active += codes.count_nonzero(dim=0)
    coherence_max, coherence_mean = decoder_coherence(sae.W_dec)
    return {
        "l0": int(n_active.sum()) / tokens.n_tokens,
        "fvu": float(squares[0] / squares[1]),
        "n_dead": int((n_active == 0).sum()),
        "n_dense": int((2 * n_active > tokens.n_tokens).sum()),
        "decoder_coherence_max": coherence_max,
        "decoder_coherence_mean": coherence_mean,
        "n_tokens": tokens.n_tokens,
    }
