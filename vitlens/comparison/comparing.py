"""Comparing: several checkpoints measured on the same images, kept as it comes."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..analyses import AttentionEntropy, LogitLens, Prediction
from ..errors import ComparisonError
from ..files import as_path, clear_parts, differences
from ..images import BAD_IMAGES, ImageDataset, OnBadImage, as_far_as_known, without
from ..images.bad_images import check_on_bad_image, refuse_kept, warn_of
from ..models import HookedViT
from ..running import AnyAnalysis, run, same_architecture
from ..running.checkpoints import as_models
from ..running.ranks import ranks
from . import storing
from .comparison import Comparison
from .examples import choose, show
from .features import compare_features
from .provenance import provenance, settings
from .sae_groups import sae_groups

_N_MAPPED = 2
"""Under how many conditions the examples' attention maps are kept."""

_ROWS = "rows"
"""The folder, in that of `output`, to which rows are written as they come."""


def compare(
    models: Mapping[str, HookedViT],
    dataset: ImageDataset,
    *,
    analyses: Sequence[AnyAnalysis] | None = None,
    conditions: Sequence[Any] = ("clean",),
    saes: Mapping[str, Sequence[Any]] | None = None,
    unrelated_model: HookedViT | None = None,
    class_names: Sequence[str] | None = None,
    n_examples: int = 4,
    n_gallery_features: int = 4,
    batch_size: int = 32,
    precision: str | None = None,
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
    num_workers: int = 0,
    on_bad_image: OnBadImage = "skip",
    progress: bool = True,
) -> Comparison:
    """Measure several checkpoints of one architecture on the same images under the same conditions.

    Args:
        models: checkpoint name -> model; the first is the reference.
        dataset: items as `vitlens.run` takes them.
        analyses: what to measure; by default `Prediction`, `LogitLens` and `AttentionEntropy`.
        conditions: under which, as in `vitlens.run`. All checkpoints see the same pixels, but under an attack
            that names none (`pgd:on=base` does).
        saes: checkpoint name -> its SAEs, to be matched on the clean images; `"unrelated"` may be there
            besides. A data set that can be read only once has been read when SAEs are matched: they are
            compared by their decoders alone, with a warning, and none of their features is shown.
        unrelated_model: the random-weight model behind `saes["unrelated"]`; without it those are compared
            by their decoders alone.
        class_names: names of the classes, by index, for the figures.
        n_examples: images shown with their attention maps, spread evenly over the data set, besides those
            that an analysis names; 0 for none at all.
        n_gallery_features: where there are SAEs, features shown with their images: so many matched pairs,
            lost features and new ones, for the first pair of SAEs of each kind, hook and checkpoint. They
            are drawn from all over their order by decoder cosine. Each of the three reads the data set
            once; 0 for none.
        batch_size: images in a forward pass.
        precision: of the matrix products, as in `vitlens.run`.
        seed: of the corruptions, of the resampling and of what is shown of features.
        output: a folder to keep the comparison in: its rows as they come, and at the end all of it, for
            `Comparison.load`. A comparison that was killed goes on where it stopped when it is made again;
            one that is complete is read back.
        num_workers: processes that load images.
        on_bad_image: as in `vitlens.run`. What was left out is in `data.attrs["bad_images"]`, in the
            provenance and at the head of the report; it is left out of examples and features as well.
        progress: show bars.

    Returns:
        The comparison.

    Raises:
        ComparisonError: there are fewer than two checkpoints, no SAEs that can be matched, or `output` holds
            another comparison.
        BusyError: another process is at work in `output`.
        ArchitectureError: the architectures of the checkpoints, or of the random-weight model, differ.
        AnalysisError, CheckpointError, ConditionError, DatasetError, LabelError, PixelError: as
            `vitlens.run`.
        SAEError, HookError: SAEs fit neither each other nor the models.

    Example:
        >>> import timm, vitlens as vl
        >>> base, tuned = (
        ...     vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        ...     for _ in range(2)
        ... )
        >>> images = [vl.images.digits("test")[i] for i in range(8)]
        >>> comparison = compare({"base": base, "tuned": tuned}, images, progress=False)
        >>> comparison.data["rank"].dims
        ('checkpoint', 'condition', 'image')
    """
    _check_models(models)
    _check_count("n_examples", n_examples, 4)
    _check_count("n_gallery_features", n_gallery_features, 4)
    _check_count("seed", seed, 0)
    check_on_bad_image(on_bad_image)
    if saes is not None:
        sae_groups(models, saes, unrelated_model)
        if isinstance(dataset, Iterator):
            warnings.warn(
                f"The data set is a {type(dataset).__name__}, which is used up after one pass: SAEs are "
                "compared by their decoders alone, and no feature is shown. A list or a torch Dataset can be "
                "read again.",
                UserWarning,
                stacklevel=2,
            )
    reference, model = next(iter(models.items()))
    if analyses is None:
        classified: list[AnyAnalysis] = [Prediction(), LogitLens()] if model.cfg.has_classifier else []
        analyses = [*classified, AttentionEntropy()]
    settled = settings(
        models,
        dataset,
        analyses=analyses,
        conditions=conditions,
        saes=saes,
        unrelated_model=unrelated_model,
        class_names=class_names,
        n_examples=int(n_examples),
        n_gallery_features=int(n_gallery_features),
        batch_size=batch_size,
        precision=precision,
        seed=seed,
    )
    folder = None if output is None else as_path(output, "output", ComparisonError)
    if folder is not None and (made := _read_back(folder, settled, on_bad_image)) is not None:
        return made
    with contextlib.ExitStack() as held:
        if folder is not None:
            shared = held.enter_context(ranks())
            held.enter_context(shared.claiming(folder))
            # Another process may have finished it just now.
            if (made := _read_back(folder, settled, on_bad_image)) is not None:
                return made
            if (folder / _ROWS / "manifest.json").exists():
                clear_parts(folder)
        data = run(
            models,
            dataset,
            analyses,
            conditions=conditions,
            batch_size=batch_size,
            seed=seed,
            precision=precision,
            output=None if folder is None else folder / _ROWS,
            num_workers=num_workers,
            on_bad_image=on_bad_image,
            progress=progress,
        )
        measured = without(dataset, data.attrs.get(BAD_IMAGES, {}))
        named = {image for analysis in analyses for image in getattr(analysis, "image_ids", None) or ()}
        items = choose(measured, n_examples, sorted(named)) if n_examples and model.cfg.has_classifier else []
        features = similarity = galleries = None
        if saes is not None:
            features, similarity, galleries = compare_features(
                models,
                saes,
                measured,
                unrelated_model=unrelated_model,
                class_names=class_names,
                n_gallery_features=int(n_gallery_features),
                batch_size=batch_size,
                seed=seed,
                on_bad_image=on_bad_image,
                progress=progress,
            )
        comparison = Comparison(
            data=data,
            reference=reference,
            n_classes=model.cfg.n_classes,
            examples=show(models, items, conditions, n_mapped=_N_MAPPED, seed=seed) if items else None,
            features=features,
            similarity=similarity,
            galleries=galleries or None,
            class_names=class_names,
            provenance=provenance(models, dataset, data, settled),
            seed=seed,
        )
        # Of several processes each has the whole, and one writes; the others wait for it at the block's end.
        if folder is not None and shared.rank == 0:
            comparison.save(folder / storing.FILE_NAME)
        return comparison


def _read_back(folder: Path, settled: Mapping[str, Any], on_bad_image: OnBadImage) -> Comparison | None:
    """The finished comparison of a folder; None where it is not finished.

    Raises:
        ComparisonError: it is another one.
        CheckpointError: it is damaged.
    """
    if folder.exists() and not folder.is_dir():
        raise ComparisonError(
            f"output is {folder}, which is a file.", expected="a folder", remedy="Name another."
        )
    if not (folder / storing.FILE_NAME).exists():
        return None
    asked = settled["images"]
    made = Comparison.load(folder)
    there = made.provenance.get("settings", {})
    if isinstance(there.get("images"), Mapping):
        settled = {**settled, "images": as_far_as_known(settled["images"], there["images"])}
    if different := differences(there, settled):
        raise ComparisonError(
            f"{folder} holds another comparison ({different}).",
            expected="the comparison that was made there, to read it back",
            remedy="Name another folder, or delete this one to measure anew.",
        )
    if not any(value for name, value in asked.items() if name != "n_images"):
        warnings.warn(
            f"{folder} holds a finished comparison, which is read back. Nothing is known of images before "
            "they are read; whether they are the same is for you to know. For others name a new folder.",
            stacklevel=3,
        )
    bad = made.data.attrs.get(BAD_IMAGES, {})
    if on_bad_image == "raise":
        refuse_kept(bad, folder)
    warn_of(bad, made.data.sizes["image"])
    return made


def _check_models(models: Mapping[str, HookedViT]) -> None:
    if not isinstance(models, Mapping):
        raise ComparisonError(
            f"models is a {type(models).__name__}.",
            expected="checkpoint name -> model",
            remedy='Pass {"base": ..., "tuned": ...}.',
        )
    if len(models) < 2:
        raise ComparisonError(
            f"There are {len(models)} checkpoints.",
            expected="two or more",
            remedy='Pass {"base": ..., "tuned": ...}; for one model use vitlens.run.',
        )
    same_architecture(as_models(models))


def _check_count(name: str, value: object, usual: int) -> None:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
        raise ComparisonError(
            f"{name} is {value!r}.",
            expected="a whole number, 0 or more",
            remedy=f"Leave it out for {usual}.",
        )
