"""How good an SAE is on given activations: L0, fraction of variance unexplained, dead and dense features."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import ShapeError
from ._sae_lens import SAE
from .checks import check_activations, check_batch_size, check_inference_form
from .passes import batches, mean_activation


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

    Source: Gao et al. (2024), "Scaling and evaluating sparse autoencoders", section 2.1 (normalized MSE).

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
    unexplained, total = _squares(x, x_hat, mean_activation(x))
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

    Example:
        >>> import torch, vitlens as vl
        >>> vl.saes.dead_features(torch.tensor([[0.0, 1.5, 2.0], [0.0, 0.0, 3.0]]))
        tensor([0])
    """
    return (codes == 0).flatten(end_dim=-2).all(dim=0).nonzero().flatten()


@torch.no_grad()
def figures(
    sae: SAE, activations: Float[Tensor, " ..."], *, batch_size: int = 4096, progress: bool = True
) -> dict[str, float | int]:
    """An SAE's quality on given activations, in batches.

    Args:
        sae: an SAE in its inference form.
        activations: [token d_in], from the hook that the SAE was trained on; on any device.
        batch_size: tokens encoded at a time.
        progress: show a bar if it takes more than a second.

    Returns:
        `l0` (mean active features per token), `fvu` (see `fvu`), `n_dead` (features active on none of the
        tokens), `n_dense` (features active on more than half of them), `n_tokens`.

    Raises:
        SAEError: the SAE is in its training form, or the activations do not fit it.

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = vl.saes.train(x, kind="vanilla", d_sae=16, batch_size=64, progress=False)
        >>> sorted(vl.saes.figures(sae, x))
        ['fvu', 'l0', 'n_dead', 'n_dense', 'n_tokens']
    """
    check_inference_form(sae, "The SAE")
    check_activations(activations, "The activations", d_in=sae.cfg.d_in)
    check_batch_size(batch_size)
    mean = mean_activation(activations).to(sae.device)
    squares = torch.zeros(2, dtype=torch.float64, device=sae.device)
    n_active = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.device)
    for batch in batches(activations, batch_size, "Evaluating SAE", progress):
        x = batch.to(sae.device)
        codes = sae.encode(x)
        squares += _squares(x, sae.decode(codes), mean)
        n_active += codes.count_nonzero(dim=0)
    return {
        "l0": int(n_active.sum()) / len(activations),
        "fvu": float(squares[0] / squares[1]),
        "n_dead": int((n_active == 0).sum()),
        "n_dense": int((2 * n_active > len(activations)).sum()),
        "n_tokens": len(activations),
    }
