"""Training of SAEs on the activations of images: sae-lens's trainer in a loop of our own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from ..models import HookedViT
from ..running import activations as take_activations
from ._sae_lens import SAE
from .checks import check_activations
from .evaluation import figures
from .loop import HISTORY_COLUMNS, fit, inference_form, new_trainer
from .passes import blocks, mean_activation
from .recipe import Recipe
from .threshold import set_threshold


def train(
    source: Tensor | tuple[HookedViT, Any, str],
    *,
    kind: str = "batch_topk",
    d_sae: int,
    k_per_token: int = 32,
    l1_coefficient: float = 1.0,
    n_tokens: int | None = None,
    batch_size: int = 4096,
    learning_rate: float | None = None,
    activation_scale: float | None = None,
    seed: int = 0,
    n_holdout_tokens: int | None = None,
    dead_window_tokens: int | None = None,
    tokens: str = "patch",
    device: torch.device | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> SAE:
    """Train a sparse autoencoder and return it in its inference form.

    The activations are scaled by one factor, held-out tokens are set apart, and sae-lens's training classes
    and trainer take a step on each batch of shuffled epochs laid end to end. Learning rate (and the L1
    coefficient) warm up over the first twentieth of the steps; the learning rate falls to 0 over the last
    fifth. The decoder's bias starts at the mean of the activations. In a BatchTopK, features that have not
    fired for `dead_window_tokens` are revived by sae-lens's auxiliary loss; a vanilla SAE has no such loss.
    At the end the factor is folded into the weights and decoder rows are scaled to norm 1, so that the SAE
    reads and writes raw activations and its codes are in their units; a BatchTopK becomes a JumpReLU whose
    threshold is set on the held-out tokens (`set_threshold`).

    The same source, arguments and device give the same weights, bit for bit. torch's global generators are
    left as they were.

    Args:
        source: activations [token d_in], finite; or (model, dataset, hook_name), whose clean activations are
            then taken by one pass of the model.
        kind: `batch_topk` (the k largest codes per token, counted over the batch) or `vanilla` (ReLU and an
            L1 penalty weighted by decoder norms).
        d_sae: number of features.
        k_per_token: mean number of active features per token; `batch_topk` only.
        l1_coefficient: weight of the L1 penalty against the summed squared error of activations scaled to a
            mean norm of sqrt(d_in); `vanilla` only.
        n_tokens: tokens to train on, counted with repetition and rounded down to whole batches; by default
            ten epochs.
        batch_size: tokens per step.
        learning_rate: Adam's, at its peak; by default 8e-4 · sqrt(16384 / d_sae), four times
            what Gao et al. used in runs of far more steps.
        activation_scale: the factor c; by default the c at which mean ‖c·x‖ over the source is sqrt(d_in).
            For a tuned checkpoint pass the base checkpoint's, `sae.cfg.metadata.activation_scale`.
        seed: of the initial weights, the choice of held-out tokens and the order of the others.
        n_holdout_tokens: tokens, chosen at random, that are never trained on; by default a tenth, at most
            32,768.
        dead_window_tokens: tokens without firing after which a feature counts as dead in training; by default
            one epoch, at most a million.
        tokens: which positions to take when the source is a model: `patch`, `cls`, `register` or `all`.
        device: where to train; by default where the tensor or the model is.
        metadata: further JSON-able entries for the SAE's metadata, such as `hook_name` for a tensor.
        progress: show a progress bar.

    Returns:
        A sae-lens `JumpReLUSAE` (batch_topk) or `StandardSAE` (vanilla) in eval mode, without gradients.
        `sae.cfg.metadata` has the arguments above as used, `hook_name` and `model` where known, the number of
        `n_holdout_tokens` and the figures on them (`l0`, `fvu`, `n_dead`, `n_dense`; see `figures`), and the
        history (see `history`).

    Raises:
        SAEError: a setting is out of range, the activations are not finite rows or do not vary, there are too
            few of them for a held-out set and a batch, or the loss stopped being finite.

    Source: Bussmann et al. (2024), "BatchTopK sparse autoencoders" (arXiv 2412.06410); Bricken et al. (2023),
        "Towards monosemanticity"; the auxiliary loss and the scaling of the learning rate from Gao et al.
        (2024), "Scaling and evaluating sparse autoencoders" (arXiv 2406.04093).

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = vl.saes.train(x, d_sae=16, k_per_token=2, batch_size=64, progress=False)
        >>> sae.cfg.architecture(), sae.encode(x).shape, sae.cfg.metadata.l0
        ('jumprelu', torch.Size([400, 16]), 2.0)
    """
    recipe = Recipe(
        kind=kind,
        d_sae=d_sae,
        k_per_token=k_per_token,
        l1_coefficient=l1_coefficient,
        n_tokens=n_tokens,
        batch_size=batch_size,
        learning_rate=learning_rate,
        activation_scale=activation_scale,
        seed=seed,
        n_holdout_tokens=n_holdout_tokens,
        dead_window_tokens=dead_window_tokens,
    )
    extra = _checked_metadata(metadata or {})
    activations, natural_device, origin = _take(source, tokens, seed, progress)
    check_activations(activations, "The source's activations")
    n_holdout = recipe.n_holdout(len(activations))
    _check_variation(activations)
    scale = activation_scale or _fitted_scale(activations)

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(activations), generator=generator)
    holdout = activations[order[:n_holdout].to(activations.device)].float()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        trainer = new_trainer(
            recipe,
            mean_activation(activations),
            scale,
            len(activations) - n_holdout,
            device or natural_device,
        )
        rows = fit(trainer, activations, order[n_holdout:], generator, progress)
        sae = inference_form(trainer.sae, scale)
    if kind == "batch_topk":
        set_threshold(sae, holdout, k_per_token, batch_size=batch_size, progress=progress)

    measured = figures(sae, holdout, batch_size=batch_size, progress=progress)
    measured["n_holdout_tokens"] = measured.pop("n_tokens")
    unused = "l1_coefficient" if kind == "batch_topk" else "k_per_token"
    settings = {name: value for name, value in asdict(recipe).items() if name != unused}
    settings |= {
        "n_tokens": trainer.n_training_samples,
        "learning_rate": trainer.cfg.lr,
        "activation_scale": scale,
        "dead_window_tokens": trainer.cfg.dead_feature_window * batch_size,
    }
    columns = {name: [row[name] for row in rows] for name in HISTORY_COLUMNS}
    for name, value in {**origin, **extra, **settings, **measured, "history": columns}.items():
        sae.cfg.metadata[name] = value
    return sae


def history(sae: SAE) -> pd.DataFrame:
    """What was measured while an SAE was trained, about a hundred rows; it is saved with the SAE.

    Args:
        sae: what `train` or `load` returned.

    Returns:
        Columns `n_tokens` (trained on so far), `loss` (of activations scaled to a mean norm of sqrt(d_in),
        penalties included), `l0` and `fvu` (of the step's batch, in the training form), `n_dead` (features
        that have not fired for `dead_window_tokens`), `learning_rate`.

    Raises:
        SAEError: the SAE was not trained by vitlens.

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = vl.saes.train(x, d_sae=16, k_per_token=2, batch_size=64, progress=False)
        >>> vl.saes.history(sae).columns.tolist()
        ['n_tokens', 'loss', 'l0', 'fvu', 'n_dead', 'learning_rate']
    """
    columns = sae.cfg.metadata.history
    if columns is None:
        raise SAEError(
            "The SAE's metadata has no history.",
            expected="an SAE that vitlens.saes.train made",
            remedy="Train one; other libraries keep their history elsewhere.",
        )
    return pd.DataFrame(columns, columns=HISTORY_COLUMNS)


def _take(
    source: Tensor | tuple[HookedViT, Any, str], tokens: str, seed: int, progress: bool
) -> tuple[Tensor, torch.device, dict[str, Any]]:
    """The activations of a source, where to train on them, and what is known of where they come from."""
    if isinstance(source, Tensor):
        return source.detach(), source.device, {}
    model, dataset, hook_name = source
    origin = {
        "hook_name": hook_name,
        "tokens": tokens,
        "model": {"config": asdict(model.cfg), "provenance": model.provenance},
    }
    taken = take_activations(model, dataset, hook_name, tokens=tokens, seed=seed, progress=progress)
    return taken, model.device, origin


def _check_variation(activations: Float[Tensor, "token d_in"]) -> None:
    if torch.equal(activations.amin(dim=0), activations.amax(dim=0)):
        raise SAEError(
            f"All {len(activations)} tokens of the source have the same activation.",
            expected="activations that vary",
            remedy="Check that the hook depends on the image (a class token entering block 0 does not).",
        )


def _fitted_scale(activations: Float[Tensor, "token d_in"]) -> float:
    """The factor that brings the mean norm to sqrt(d_in)."""
    total = math.fsum(float(block.double().norm(dim=1).sum()) for block in blocks(activations))
    return math.sqrt(activations.shape[1]) * len(activations) / total


def _checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's entries as JSON will give them back."""
    own = {field.name for field in fields(Recipe)} | {"l0", "fvu", "n_dead", "n_dense", "history"}
    if taken := sorted(own & metadata.keys()):
        raise SAEError(
            f"metadata has the entries {', '.join(map(repr, taken))}.",
            expected="entries other than those that train writes itself",
            remedy="Rename them.",
        )
    try:
        entries: dict[str, Any] = json.loads(json.dumps(dict(metadata)))
    except (TypeError, ValueError) as error:
        raise SAEError(
            f"metadata cannot be written as JSON ({error}).",
            expected="names and values of JSON's types",
            remedy="Turn tensors into lists and paths into strings.",
        ) from error
    return entries
