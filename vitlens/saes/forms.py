"""An SAE on its way: untrained, turned toward its data, and in the form that is used."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from ._sae_lens import SAE, TopKSAE, TrainingSAE
from .kinds import KINDS
from .recipe import Recipe

RANDOM_SHARE = 0.1
"""How much of a decoder row's first direction is random, against 1 of a token's."""


def new_sae(recipe: Recipe, d_in: int, n_warm_up_steps: int) -> TrainingSAE[Any]:
    """An untrained SAE on the CPU; its weights are drawn from torch's global generator.

    Args:
        recipe: how to train.
        d_in: width of the activations.
        n_warm_up_steps: steps over which its penalty warms up, unless an option says otherwise.

    Raises:
        SAEError: sae-lens refuses the configuration.
    """
    chosen = KINDS[recipe.kind]
    own = {field: getattr(recipe, argument) for field, argument in chosen.settings.items()}
    if chosen.warm_up is not None:
        own[chosen.warm_up] = n_warm_up_steps
    own |= recipe.options
    if recipe.kind == "matryoshka":
        own["matryoshka_widths"] = _nested_widths(recipe.d_sae, recipe.options.get("matryoshka_widths"))
    try:
        return chosen.sae(chosen.config(d_in=d_in, d_sae=recipe.d_sae, **own))
    except ValueError as error:
        raise SAEError(
            f"sae-lens refuses the options {dict(recipe.options)} ({error}).",
            expected=f"a configuration that its {chosen.config.__name__} allows",
            remedy="Change or leave out the options that the message names.",
        ) from error


@torch.no_grad()
def start_from_data(
    sae: TrainingSAE[Any],
    mean: Float[Tensor, " d_in"],
    scale: float,
    tokens: Float[Tensor, "d_sae d_in"],
    *,
    holds_bias: bool,
) -> None:
    """Put the decoder's bias at the mean and turn its rows toward tokens; the encoder follows, norms stay.

    A random direction in many dimensions is nearly orthogonal to all that is there to be explained: which
    rows then come first to be used is chance, and some never are. Each row keeps a share of its own random
    direction, so that rows of equal tokens differ.

    Args:
        sae: untrained.
        mean: of the activations, in float64.
        scale: what activations are multiplied by in training.
        tokens: a token for each feature.
        holds_bias: training leaves the bias there. Where about as many features are active on every token,
            one vector can be added to all of them and taken from the bias at nearly no cost in the loss, and
            a training that goes this way ends with features of little use.
    """
    sae.b_dec.copy_(mean * scale)
    deviations = tokens.double().cpu() - mean.cpu()
    norms = sae.W_dec.norm(dim=1, keepdim=True)
    toward = deviations / deviations.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    rows = toward + RANDOM_SHARE * sae.W_dec / norms
    sae.W_dec.copy_(rows / rows.norm(dim=1, keepdim=True) * norms)
    sae.W_enc.copy_(sae.W_dec.T)
    if holds_bias:
        sae.b_dec.register_hook(torch.zeros_like)


def inference_form(trained: TrainingSAE[Any], scale: float) -> SAE[Any]:
    """The SAE for raw activations; changes `trained`.

    Args:
        trained: trained on activations times `scale`.
        scale: folded into the weights.

    Returns:
        An SAE of sae-lens's inference class in eval mode, without gradients, on the device of `trained`. Its
        decoder rows have norm 1 if it was trained as if they had (`rescale_acts_by_decoder_norm`).
    """
    trained.fold_activation_norm_scaling_factor(scale)
    state: dict[str, Any] = trained.state_dict()
    trained.process_state_dict_for_saving_inference(state)
    # Made on the CPU: its initial weights, soon overwritten, shall not draw from the device's generator.
    sae: SAE[Any] = SAE.from_dict(trained.cfg.get_inference_sae_cfg_dict() | {"device": "cpu"})
    sae.load_state_dict(state)
    return sae.to(trained.device).eval().requires_grad_(False)


def fold_norms(sae: SAE[Any], trained: TrainingSAE[Any]) -> None:
    """Bring the decoder rows of an inference form to norm 1, and its codes and thresholds to match.

    Nothing is done where they have it, and where other codes would then be active: a TopK trained without
    `rescale_acts_by_decoder_norm` keeps its norms.
    """
    rescales = getattr(trained.cfg, "rescale_acts_by_decoder_norm", None)
    if not rescales and not isinstance(sae, TopKSAE):
        sae.fold_W_dec_norm()


def _nested_widths(d_sae: int, asked: list[int] | None) -> list[int]:
    """The widths of a matryoshka, ending with `d_sae`; an eighth, a quarter, a half and all by default."""
    if asked is None:
        asked = sorted({d_sae // 8, d_sae // 4, d_sae // 2} - {0})
    widths = [*asked, *([] if asked and asked[-1] == d_sae else [d_sae])]
    if len(widths) < 2 or widths[0] < 1 or any(a >= b for a, b in pairwise(widths)):
        raise SAEError(
            f"matryoshka_widths are {asked} and d_sae {d_sae}.",
            expected="at least one width below d_sae, each larger than the one before",
            remedy='Pass options={"matryoshka_widths": [...]} that rise to d_sae, or leave them out.',
        )
    return widths
