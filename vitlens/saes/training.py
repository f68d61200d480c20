"""Training of SAEs on the activations of images."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pandas as pd
import torch

from ..claims import claimed
from ..errors import SAEError
from ..models import HookedViT
from ._sae_lens import SAE
from .evaluation import FIGURES, figures
from .forms import fold_norms, inference_form, new_sae
from .kinds import KINDS
from .live import take
from .loop import HISTORY_COLUMNS, fit, new_trainer
from .recipe import Recipe
from .resume import TrainingFolder, check_folder, is_finished
from .survey import survey
from .threshold import set_threshold
from .tokens import Activations, as_tokens


def train(
    source: Activations | tuple[HookedViT, Any, str],
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
    options: Mapping[str, Any] | None = None,
    tokens: str = "patch",
    conditions: Sequence[Any] = ("clean",),
    n_images_per_pass: int = 32,
    device: torch.device | str | None = None,
    metadata: Mapping[str, Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    save_every_seconds: float = 60.0,
    progress: bool = True,
) -> SAE:
    """Train a sparse autoencoder and return it in its inference form.

    The activations are scaled by one factor, held-out tokens are set apart, and sae-lens's training classes
    and trainer take a step on each batch of shuffled epochs laid end to end. Learning rate (and the penalty's
    coefficient) warm up over the first twentieth of the steps; the learning rate falls to 0 over the last
    fifth. The decoder's bias starts at the mean of the activations, its rows in the directions of tokens
    drawn at random, each with a share of chance: from wholly random rows, features are missed and two seeds
    agree less. In the kinds with a k the bias stays there: where about as many features are active on every
    token, one vector added to all of them costs nearly nothing once the bias makes up for it. Features of
    these kinds that have not fired for `dead_window_tokens` are revived by sae-lens's auxiliary loss; the
    other kinds have no such loss.

    At the end the factor is folded into the weights, so that the SAE reads and writes raw activations and its
    codes are in their units, and decoder rows are scaled to norm 1 where that leaves the choice of active
    codes as it was. A `batch_topk` and a `matryoshka` become a JumpReLU whose threshold is set on the
    held-out tokens (`set_threshold`).

    With `output`, a training that was killed goes on from its last saved state when the same call is made
    again, and ends with the same weights, bit for bit; one that is done is read back. The SAE lies there too,
    in sae-lens's format: `load(output)` and `sae_lens.SAE.load_from_disk(output)` read it.

    The same source, arguments and device give the same weights, bit for bit. torch's global generators are
    left as they were.

    Args:
        source: activations [token d_in], finite; a hook of a store; or (model, dataset, hook_name), whose
            activations are then taken into memory.
        kind: `batch_topk` (the k largest codes per token, counted over the batch), `vanilla` (ReLU and an L1
            penalty weighted by decoder norms), `topk` (the k largest codes of each token), `jumprelu` (a
            threshold learned for each feature, under a penalty on L0) or `matryoshka` (a BatchTopK whose
            first features must reconstruct alone, too).
        d_sae: number of features.
        k_per_token: mean number of active features per token, in a `topk` the largest number; `batch_topk`,
            `topk` and `matryoshka` only.
        l1_coefficient: weight of the L1 penalty against the summed squared error of activations scaled to a
            mean norm of sqrt(d_in); `vanilla` only.
        n_tokens: tokens to train on, counted with repetition and rounded down to whole batches; by default
            ten epochs, or 1,000 steps if that is more. Never more than 100 epochs: beyond, an SAE would learn
            its tokens by heart.
        batch_size: tokens per step.
        learning_rate: Adam's, at its peak; by default 1.6e-3 · sqrt(16384 / d_sae), at most
            1e-2: eight times what Gao et al. used in runs of far more steps.
        activation_scale: the factor c; by default the c at which mean ‖c·x‖ over the source is sqrt(d_in).
            For a tuned checkpoint pass the base checkpoint's, `sae.cfg.metadata.activation_scale`.
        seed: of the initial weights, the choice of held-out tokens and the order of the others.
        n_holdout_tokens: tokens that are never trained on, at least so many; of whole images, chosen at
            random, where it is known which token is whose. By default a tenth, at most 32,768.
        dead_window_tokens: tokens without firing after which a feature counts as dead in training; by default
            one epoch, at most a million.
        options: further settings of the kind, by the names of sae-lens's configuration of it:
            `{"l0_coefficient": 2.0}` (jumprelu), `{"matryoshka_widths": [64, 256]}`,
            `{"aux_loss_coefficient": 0.1}`.
        tokens: which positions to take when the source is a model: `patch`, `cls`, `register` or `all`.
        conditions: what is done to the images first when the source is a model, as in `vitlens.run`; the
            tokens of all conditions are trained on together.
        n_images_per_pass: images in a forward pass when the source is a model.
        device: where to train; by default where the tensor or the model is.
        metadata: further JSON-able entries for the SAE's metadata, such as `hook_name` for a tensor.
        output: a folder for this training alone, made if need be; without it nothing is written and nothing
            can be resumed.
        save_every_seconds: the state is written to `output` at most so often, and after the last step.
        progress: show a progress bar.

    Returns:
        A sae-lens `StandardSAE` (vanilla), `TopKSAE` (topk) or `JumpReLUSAE` (all others) in eval mode,
        without gradients.
        `sae.cfg.metadata` has the arguments above as used, `hook_name` and `model` where known, the number of
        `n_holdout_tokens` and the figures on them (`l0`, `fvu`, `n_dead`, ...; see `figures`), and the
        history (see `history`).

    Raises:
        SAEError: a setting is out of range or unknown, the activations are not finite rows or do not vary,
            there are too few of them for a held-out set and a batch or for `n_tokens`, `output` holds another
            training or something else, or the loss stopped being finite.
        BusyError: another process is at work in `output`.
        CheckpointError: a file in `output` is damaged.

    Source: Bussmann et al. (2024), "BatchTopK sparse autoencoders" (arXiv 2412.06410); Bricken et al. (2023),
    "Towards monosemanticity"; Rajamanoharan et al. (2024), "Jumping ahead" (arXiv 2407.14435); Bussmann et
    al. (2025), "Learning multi-level features with matryoshka sparse autoencoders" (arXiv 2503.17547); the
    auxiliary loss and the scaling of the learning rate from Gao et al. (2024), "Scaling and evaluating sparse
    autoencoders" (arXiv 2406.04093).

    Example:
        >>> import torch, vitlens as vl
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = vl.saes.train(x, d_sae=16, k_per_token=2, batch_size=64, n_tokens=2560, progress=False)
        >>> sae.cfg.architecture(), sae.encode(x).shape, sae.cfg.metadata.l0
        ('jumprelu', torch.Size([400, 16]), 2.0)
    """
    recipe = planned(
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
        options=options,
    )
    extra = _checked_metadata(metadata or {})
    if output is not None:
        check_folder(output)
    # A finished training is read back, by as many at a time as like.
    with claimed(None if output is None or is_finished(output) else output):
        if isinstance(source, tuple):
            model, dataset, hook_name = source
            given: Activations = take(
                model, dataset, hook_name, tokens=tokens, conditions=conditions,
                n_images_per_pass=n_images_per_pass, seed=seed, progress=progress,
            )  # fmt: skip
            device = device or model.device
        else:
            given = source
        taken = as_tokens(given, "The source's activations")
        n_holdout = recipe.n_holdout(taken.n_tokens)
        surveyed = survey(taken, checksum=output is not None)
        scale = activation_scale or surveyed.fitted_scale()
        used, holdout = taken.split(n_holdout, seed=seed)
        recipe.n_steps(used.n_tokens)
        device = torch.device(device or taken.device)

        folder = None
        if output is not None:
            read = {"n_tokens": taken.n_tokens, "d_in": taken.d_in, "sha256": surveyed.sha256}
            run = {
                "arguments": {**recipe.described(), "metadata": extra, "device": str(device)},
                "source": {**read, "origin": dict(taken.origin)},
            }
            folder = TrainingFolder(output, run, save_every_seconds)
            finished = folder.finished(device)
            if finished is not None:
                return finished

        with _drawing_from(seed):
            trainer = new_trainer(recipe, used, surveyed.mean, scale, device)
        rows = fit(trainer, used, seed, folder, progress)
        with _drawing_from(seed):
            sae = inference_form(trainer.sae, scale)
        if KINDS[kind].sets_threshold:
            set_threshold(sae, holdout, k_per_token, batch_size=batch_size, progress=progress)
        fold_norms(sae, trainer.sae)

        measured = figures(sae, holdout, batch_size=batch_size, progress=progress)
        measured["n_holdout_tokens"] = measured.pop("n_tokens")
        settings = recipe.described() | {
            "n_tokens": trainer.n_training_samples,
            "learning_rate": trainer.cfg.lr,
            "activation_scale": scale,
            "dead_window_tokens": trainer.dead_window_tokens,
        }
        columns = {name: [row[name] for row in rows] for name in HISTORY_COLUMNS}
        for name, value in {**taken.origin, **extra, **settings, **measured, "history": columns}.items():
            sae.cfg.metadata[name] = value
        if folder is not None:
            folder.finish(sae)
        return sae


def planned(*, d_sae: int, **settings: Any) -> Recipe:
    """The recipe that `train` follows, before there is anything to train on.

    Args:
        d_sae: as for `train`.
        **settings: arguments of `train` that are fields of `Recipe`; those left out have its defaults.

    Raises:
        SAEError: a setting is out of range or unknown.

    Example:
        >>> planned(d_sae=64, kind="vanilla").batch_size
        4096
    """
    names = [field.name for field in fields(Recipe) if field.name != "d_sae"]
    arguments = inspect.signature(train).parameters
    given = {name: arguments[name].default for name in names} | settings
    recipe = Recipe(**given | {"d_sae": d_sae, "options": given["options"] or {}})
    with _drawing_from(recipe.seed):
        new_sae(recipe, 1, 0)  # sae-lens refuses some settings only when an SAE is made
    return recipe


@contextmanager
def _drawing_from(seed: int) -> Iterator[None]:
    """Torch's global CPU generator at `seed`; afterwards as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


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
        >>> sae = vl.saes.train(x, d_sae=16, k_per_token=2, batch_size=64, n_tokens=2560, progress=False)
        >>> vl.saes.history(sae).columns.tolist()
        ['n_tokens', 'loss', 'l0', 'fvu', 'n_dead', 'learning_rate']
    """
    if not isinstance(sae, SAE):
        raise SAEError(
            f"The SAE is a {type(sae).__name__}.",
            expected="an SAE that vitlens.saes.train made",
            remedy="Load a folder with vitlens.saes.load first.",
        )
    columns = sae.cfg.metadata.history
    if columns is None:
        raise SAEError(
            "The SAE's metadata has no history.",
            expected="an SAE that vitlens.saes.train made",
            remedy="Train one; other libraries keep their history elsewhere.",
        )
    return pd.DataFrame(columns, columns=HISTORY_COLUMNS)


def _checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's entries as JSON will give them back."""
    own = {field.name for field in fields(Recipe)} | {*FIGURES, "history"}
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
