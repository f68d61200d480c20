"""The door to an SAE's evaluation on a model: what it codes, what it leaves out, what that costs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from ..images import ImageDataset, OnBadImage
from ..models import HookedViT, weights_sha256
from ..running import run
from ._sae_lens import SAE
from .codes import FeatureUse, SAECode, TokenMoments
from .estimates import CODE_FIGURES, SPLICE_FIGURES, listed, with_deviation
from .evaluation import decoder_coherence
from .intervals import ESTIMATES, Resamples
from .reading import place_of
from .splicing import Splice

_COLUMNS = (
    "metric",
    "condition",
    "token_kind",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "sae_checkpoint",
    "note",
)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """How good an SAE is on a model's images.

    Attributes:
        rows: per image, dims (condition, image, token_kind, intervention): the variables of `SAECode` and
            `Splice`, `n_tokens`, and `squared_deviation`, Σ‖x − mean‖² about the mean of all the
            condition's tokens of the kind.
        figures: over all images, dims (estimate, condition, token_kind), the estimate being `value`,
            `ci_low` or `ci_high`; NaN where a figure has no interval. `n_active_tokens` (condition,
            token_kind, d_sae) says how often each feature was active.
        sae_checkpoint: whether the SAE was trained on this very checkpoint: `same weights`, `other weights`,
            or `unknown` where its metadata has no hash.

    Example:
        See `evaluate`, which makes one.
    """

    rows: xr.Dataset
    figures: xr.Dataset
    sae_checkpoint: str

    def summary(self) -> pd.DataFrame:
        """All figures, a row each.

        Returns:
            Columns `metric`, `condition`, `token_kind` (both empty for what depends on the SAE alone),
            `value`, `ci_low`, `ci_high`, `n` (images), `sae_checkpoint`, `note` (why a value is NaN).
        """
        rows = [
            row
            for name, variable in self.figures.data_vars.items()
            if "estimate" in variable.dims
            for row in listed(variable, str(name))
        ]
        table = pd.DataFrame(rows).assign(n=self.rows.sizes["image"], sae_checkpoint=self.sae_checkpoint)
        return table[list(_COLUMNS)]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{size} {dim}s" for dim, size in self.rows.sizes.items() if dim != "intervention")
        return f"Evaluation({sizes}; SAE of {self.sae_checkpoint})"


def evaluate(
    sae: SAE,
    model: HookedViT,
    dataset: ImageDataset,
    *,
    conditions: Sequence[Any] = ("clean",),
    hook_name: str | None = None,
    tokens: str | None = None,
    splice: bool = True,
    batch_size: int = 32,
    seed: int = 0,
    n_resamples: int = 2000,
    output: str | os.PathLike[str] | None = None,
    on_bad_image: OnBadImage = "skip",
    progress: bool = True,
) -> Evaluation:
    """Evaluate an SAE on the activations of a model, its own or another checkpoint.

    For each condition and kind of token:

    * `l0`: active features per token; `n_dead`: features active on no token; `n_dense`: features active on
      more than half of the tokens;
    * `fvu`: Σ‖x − x̂‖² / Σ‖x − mean‖², in float64, against the mean of the same tokens;
    * of accuracy, probability of the correct class and cross-entropy (`accuracy`, `correct_probability`,
      `loss_nats`): the mean over images `_original`, with the reconstruction `_spliced` in at the tokens of
      the kind, and with them `_zeroed`; `_change_spliced` and `_change_zeroed`, those minus the original;
      and `_recovered`, (zeroed − spliced) / (zeroed − original).

    A share recovered is never clipped: above 1, the model does better on the reconstruction than on the
    activation. It is NaN where the interval of its denominator does not exclude 0: where zeroing the tokens
    costs nothing, there is nothing to recover. Of the decoder alone: `decoder_coherence_max` and
    `decoder_coherence_mean` (see `figures`).

    Intervals are 95 % bootstrap intervals that resample images, the same draws for all figures, so that
    original, spliced and zeroed are paired; in FVU's the mean activation is held fixed.

    Args:
        sae: in its inference form, on any device.
        model: the checkpoint whose activations are coded: the SAE's own, or another of the same width, such
            as its fine-tuned version; `sae_checkpoint` in the summary says which.
        dataset: items as in `vitlens.run`, read once.
        conditions: as in `vitlens.run`.
        hook_name: where to read and splice; by default what `sae.cfg.metadata` says. Another one gives a
            warning.
        tokens: `patch`, `cls`, `register`, `distillation` or `all`; by default as the metadata says. With
            `all`, each kind is also spliced by itself.
        splice: whether to splice; a model without a classifier can be evaluated without.
        batch_size: images in a forward pass.
        seed: of the corruptions and of the resampling.
        n_resamples: bootstrap resamples.
        output: a folder for the rows, as in `vitlens.run`.
        on_bad_image: as in `vitlens.run`; what was left out is in `rows.attrs`.
        progress: show a bar.

    Returns:
        Figures with intervals, and the rows that they were made from.

    Raises:
        SAEError: the SAE is in its training form or of another width than the hook, it is not known where it
            reads, or the model has no classifier to splice into.
        HookError: the model has no such hook.
        ArchitectureError: the model has no such tokens.
        ConditionError, DatasetError, LabelError, PixelError: as in `vitlens.run`.

    Source: the share of the loss recovered: Bricken et al. (2023), "Towards monosemanticity"; FVU as in
    `fvu`.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.9.hook_resid_post")
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> sae = vl.saes.train(source, **settings)
        >>> evaluation = evaluate(sae, model, images, progress=False)
        >>> evaluation.summary().columns.tolist()
        ['metric', 'condition', 'token_kind', 'value', 'ci_low', 'ci_high', 'n', 'sae_checkpoint', 'note']
    """
    resamples = Resamples(n_resamples, seed)
    place = place_of(sae, hook_name, tokens)
    kinds: list[type[SAECode | FeatureUse | Splice]] = [SAECode, FeatureUse, *([Splice] if splice else [])]
    # Where they read has been asked, and warned of, already.
    analyses = [kind(sae, place.hook_name, place.tokens, warns=False) for kind in kinds]
    data = run(
        model,
        dataset,
        [*analyses, TokenMoments(place)],
        conditions=conditions,
        batch_size=batch_size,
        seed=seed,
        output=output,
        on_bad_image=on_bad_image,
        progress=progress,
    )
    counts = data["sae_n_active_tokens"]
    rows = with_deviation(data.drop_vars(["sae_n_active_tokens", "d_sae"]))
    wanted = (*CODE_FIGURES, *(SPLICE_FIGURES if splice else ()))
    figures = {figure.name: figure.estimated(figure.parts(rows, "sae"), resamples) for figure in wanted}
    n_tokens = rows["n_tokens"].sum("image")
    figures["n_tokens"] = _exact(n_tokens, "Tokens", "tokens")
    figures["n_dead"] = _exact((counts == 0).sum("d_sae"), "Features active on no token")
    figures["n_dense"] = _exact(
        (2 * counts > n_tokens).sum("d_sae"), "Features active on over half of the tokens"
    )
    for name, value in zip(("max", "mean"), decoder_coherence(sae.W_dec), strict=True):
        figures[f"decoder_coherence_{name}"] = _exact(
            xr.DataArray(value), f"Decoder coherence, {name}", "cosine"
        )
    return Evaluation(rows, xr.Dataset({**figures, "n_active_tokens": counts}), _origin(sae, model))


def _exact(value: xr.DataArray, long_name: str, units: str = "features") -> xr.DataArray:
    """A figure without an interval."""
    estimates = [value.astype(np.float64), *[xr.full_like(value, np.nan, dtype=np.float64)] * 2]
    made = xr.concat(estimates, xr.Variable("estimate", list(ESTIMATES)))
    return made.assign_attrs(units=units, long_name=long_name)


def _origin(sae: SAE, model: HookedViT) -> str:
    trained_on = sae.cfg.metadata.model
    digest = trained_on.get("weights_sha256") if isinstance(trained_on, Mapping) else None
    if digest is None:
        return "unknown"
    return "same weights" if digest == weights_sha256(model) else "other weights"
