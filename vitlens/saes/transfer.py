"""Each checkpoint's SAE on every checkpoint: how well one's dictionary does on another's activations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
import xarray as xr

from ..errors import SAEError
from ..images import ImageDataset
from ..models import HookedViT
from ..names import nearest
from ..running import run
from ._sae_lens import SAE
from .codes import SAECode, TokenMoments
from .estimates import CODE_FIGURES, SPLICE_FIGURES, Figure, listed, with_deviation
from .intervals import Resamples
from .reading import one_place
from .splicing import Splice

_SPLICED = ("loss_nats_change_spliced", "loss_nats_recovered")

_COLUMNS = (
    "metric",
    "condition",
    "token_kind",
    "sae",
    "checkpoint",
    "reference_sae",
    "reference_checkpoint",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "note",
)


def transfer(
    models: Mapping[str, HookedViT],
    saes: Mapping[str, SAE],
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
    progress: bool = True,
) -> pd.DataFrame:
    """Evaluate each checkpoint's SAE on every checkpoint's activations of the same images.

    If fine-tuning left the dictionary as it was, the base's SAE codes the tuned checkpoint's activations as
    well as the tuned's own does. Metrics are `l0`, `fvu`, `loss_nats_change_spliced` and
    `loss_nats_recovered`, as in `evaluate`; all checkpoints are run in step, and intervals are paired over
    images.

    Args:
        models: checkpoint name -> model, of one architecture.
        saes: checkpoint name -> the SAE that was trained on it; all read the same place.
        dataset: items as in `vitlens.run`, read once.
        conditions: as in `vitlens.run`.
        hook_name: as in `evaluate`.
        tokens: as in `evaluate`.
        splice: whether to splice; models without a classifier can be compared without.
        batch_size: images in a forward pass.
        seed: of the corruptions and of the resampling.
        n_resamples: bootstrap resamples.
        output: a folder for the rows, as in `vitlens.run`.
        progress: show a bar.

    Returns:
        Columns `metric`, `condition`, `token_kind`, `sae`, `checkpoint`, `reference_sae`,
        `reference_checkpoint`, `value`, `ci_low`, `ci_high`, `n` (images), `note`. Without a reference, the
        value is the metric of that SAE on that checkpoint. With one, it is its difference, less that of the
        reference: the same SAE on its own checkpoint, or the checkpoint's own SAE.

    Raises:
        SAEError: as in `evaluate`; an SAE is of none of the checkpoints, or two read different places.
        ArchitectureError: the checkpoints are of different architectures.

    Example:
        >>> import timm, vitlens as vl
        >>> base, tuned = (
        ...     vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        ...     for _ in range(2)
        ... )
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> models = {"base": base, "tuned": tuned}
        >>> saes = {
        ...     name: vl.saes.train((model, images, "blocks.9.hook_resid_post"), **settings)
        ...     for name, model in models.items()
        ... }
        >>> table = transfer(models, saes, images, progress=False)
        >>> table.query("metric == 'fvu' and reference_sae == ''")[["sae", "checkpoint"]].values.tolist()
        [['base', 'base'], ['base', 'tuned'], ['tuned', 'base'], ['tuned', 'tuned']]
    """
    place = one_place(saes, hook_name, tokens)
    strangers = [name for name in saes if name not in models]
    if strangers:
        raise SAEError(
            f"There is an SAE of '{strangers[0]}', which is none of the checkpoints.",
            expected=f"one of them (nearest: {nearest(strangers[0], models)})",
            remedy="Name each SAE after the checkpoint that it was trained on.",
        )
    resamples = Resamples(n_resamples, seed)
    kinds: list[type[SAECode | Splice]] = [SAECode, *([Splice] if splice else [])]
    # Where they read has been asked, and warned of, already.
    analyses = [
        kind(sae, place.hook_name, place.tokens, name, warns=False)
        for name, sae in saes.items()
        for kind in kinds
    ]
    data = run(
        models,
        dataset,
        [*analyses, TokenMoments(place)],
        conditions=conditions,
        batch_size=batch_size,
        seed=seed,
        output=output,
        progress=progress,
    )
    rows = with_deviation(data)
    wanted = [*CODE_FIGURES, *(figure for figure in SPLICE_FIGURES if splice and figure.name in _SPLICED)]
    found = [
        row
        for figure in wanted
        for row in _estimated(figure, {name: figure.parts(rows, name) for name in saes}, resamples)
    ]
    return pd.DataFrame(found).assign(n=rows.sizes["image"])[list(_COLUMNS)]


def _estimated(
    figure: Figure, parts: Mapping[str, xr.DataArray], resamples: Resamples
) -> Iterator[dict[str, Any]]:
    """A figure of each SAE on each checkpoint, then its differences."""
    cells = {
        (sae, str(checkpoint)): each.sel(checkpoint=checkpoint, drop=True)
        for sae, each in parts.items()
        for checkpoint in each["checkpoint"].values
    }
    pairs: list[tuple[tuple[str, str], tuple[str, str] | None]] = [(cell, None) for cell in cells]
    for sae, checkpoint in cells:
        if sae != checkpoint:
            own = [(sae, sae), *([(checkpoint, checkpoint)] if checkpoint in parts else [])]
            pairs += [((sae, checkpoint), reference) for reference in own]
    for cell, reference in pairs:
        estimates = figure.estimated(cells[cell], resamples, None if reference is None else cells[reference])
        named = dict(zip(("sae", "checkpoint"), cell, strict=True))
        named |= dict(zip(("reference_sae", "reference_checkpoint"), reference or ("", ""), strict=True))
        for row in listed(estimates, figure.name):
            yield row | named
