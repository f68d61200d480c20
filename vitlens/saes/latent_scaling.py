"""What a crosscoder's latents do on given tokens: how often they fire, and whose error they would explain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ._sae_lens import SAE
from .passes import batches, mean_activation
from .tokens import Tokens


@dataclass(frozen=True, eq=False)
class LatentScaling:
    """What one pass over tokens showed of a crosscoder.

    Attributes:
        n_active: tokens on which each latent is active.
        total_code: sum of each latent's codes.
        nu_error: how much of the other checkpoint's error each latent would explain, as a share of what it
            explains of its own; see `latent_scaling`. NaN where it is not active.
        nu_reconstruction: the same of the reconstructions.
        fvu: of each checkpoint.
    """

    n_active: Int[Tensor, " d_sae"]
    total_code: Float[Tensor, " d_sae"]
    nu_error: Float[Tensor, " d_sae"]
    nu_reconstruction: Float[Tensor, " d_sae"]
    fvu: tuple[float, ...]


@torch.no_grad()
def latent_scaling(sae: SAE, tokens: Tokens, batch_size: int, progress: bool) -> LatentScaling:
    """Tell latents of one checkpoint from latents that only look so.

    A latent's own checkpoint is the one in which its decoder row d is longer. For either checkpoint c, the
    factor β by which f·d, f its codes, best fits a target y is that of least squares,
    Σ f⟨d, y⟩ / (‖d‖² Σ f²). The targets are the reconstruction less the decoder's bias, and the error with
    the latent's own part put back, x − x̂ + f·d_c. ν = β(other) / β(own): near 0 if the latent has nothing to
    explain in the other checkpoint, near 1 if it has as much as in its own. A high ν of the error says that
    the other checkpoint has the feature and its decoder row was shrunk; a high ν of the reconstruction that
    other latents write it there.

    Args:
        sae: an SAE in its inference form of two checkpoints' activations side by side.
        tokens: [token 2·d_in], as the SAE reads them.
        batch_size: tokens encoded at a time.
        progress: show a bar if it takes more than a second.

    Source: Minder, Dumas et al. (2025), "Overcoming sparsity artifacts in crosscoders to interpret
    chat-tuning" (arXiv 2504.02922): latent scaling. The bias is left out of the reconstruction here, since
    codes are never negative and any would correlate with a constant.
    """
    decoder = halves(sae.W_dec)
    own = decoder.norm(dim=-1).argmax(dim=0)
    each = torch.arange(sae.cfg.d_sae, device=sae.device)
    rows = decoder[own, each]
    mean = mean_activation(tokens).to(sae.device)
    squares = torch.zeros(2, 2, dtype=torch.float64, device=sae.device)
    explained = torch.zeros(2, 2, sae.cfg.d_sae, dtype=torch.float64, device=sae.device)
    n_active = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.device)
    total_code, total_square = torch.zeros(2, sae.cfg.d_sae, dtype=torch.float64, device=sae.device)
    for batch in batches(tokens, batch_size, "Scaling latents", progress):
        x = batch.to(sae.device)
        codes = sae.encode(x)
        written = sae.decode(codes) - sae.b_dec
        error = x - sae.b_dec - written
        deviation = x.double() - mean
        squares += torch.stack(
            [halves(rest.double()).square().sum(dim=(1, 2)) for rest in (error, deviation)]
        )
        n_active += codes.count_nonzero(dim=0)
        total_code += codes.sum(dim=0, dtype=torch.float64)
        total_square += codes.double().square().sum(dim=0)
        for target, values in enumerate((error, written)):
            for checkpoint, half in enumerate(halves(values)):
                explained[target, checkpoint] += (codes * (half @ rows.T)).sum(dim=0, dtype=torch.float64)
    betas = explained / (rows.double().square().sum(dim=1) * total_square)
    betas[0] += (decoder * rows).sum(dim=-1) / rows.square().sum(dim=-1)
    of_own, of_other = betas[:, own, each], betas[:, 1 - own, each]
    nu = torch.where(of_own > 0, of_other / of_own, torch.nan)
    fvu = (squares[0] / squares[1]).tolist()
    return LatentScaling(n_active, total_code, nu[0], nu[1], tuple(fvu))


def halves(rows: Float[Tensor, "row both"]) -> Float[Tensor, "checkpoint row d_in"]:
    """Rows of two checkpoints side by side, taken apart."""
    return torch.stack(rows.chunk(2, dim=-1))
