"""The engine: one forward pass per batch and condition serves all analyses; rows are kept per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from ..errors import AnalysisError
from ..images import Batch, ImageDataset, batches, check, n_images, parse_conditions
from ..models import HookedViT
from .analysis import Analysis
from .passes import check_hooks, forward, measuring


def run(
    model: HookedViT,
    dataset: ImageDataset,
    analyses: Sequence[Analysis],
    *,
    conditions: Sequence[Any] = ("clean",),
    batch_size: int = 32,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Measure a model on images under conditions.

    Args:
        model: the model; it is run in evaluation mode and left as it was.
        dataset: items `{"pixels": [3 height width] in [0, 1], "label": int, "image_id": str}`: a torch
            Dataset, a sequence or an iterable, read once.
        analyses: what to measure.
        conditions: `"clean"`, `"gaussian_blur@3"`, or one's own `{"name": callable on a batch}`.
        batch_size: images in a forward pass; no value depends on it but by rounding.
        seed: of the corruptions; they depend on (seed, image id, corruption, severity) alone.
        num_workers: processes that load images.
        progress: show a bar.

    Returns:
        Every analysis's variables, with dims (condition, image, ...).

    Raises:
        AnalysisError: two analyses give a variable of one name, or one breaks the protocol.
        ConditionError, DatasetError, LabelError, PixelError: what is asked for or given cannot be used.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> conditions = ["clean", "contrast@3"]
        >>> data = vl.run(model, images, [vl.Prediction()], conditions=conditions, progress=False)
        >>> dict(data.sizes)
        {'condition': 2, 'image': 4}
    """
    data = measure(
        {"model": model},
        dataset,
        analyses,
        conditions=conditions,
        batch_size=batch_size,
        seed=seed,
        num_workers=num_workers,
        progress=progress,
    )
    return data.isel(checkpoint=0, drop=True)


def measure(
    models: Mapping[str, HookedViT],
    dataset: ImageDataset,
    analyses: Sequence[Analysis],
    *,
    conditions: Sequence[Any] = ("clean",),
    batch_size: int = 32,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """`run` for several checkpoints in step: each image is read once and corrupted once for all of them.

    Args:
        models: checkpoint name -> model.
        dataset: as in `run`.
        analyses: as in `run`; all are made on every checkpoint.
        conditions: as in `run`.
        batch_size: as in `run`.
        seed: as in `run`.
        num_workers: as in `run`.
        progress: as in `run`.

    Returns:
        Every analysis's variables, with dims (checkpoint, condition, image, ...).

    Raises:
        AnalysisError, ConditionError, DatasetError, LabelError, PixelError: as in `run`.
    """
    asked = parse_conditions(conditions)
    wanted = {name: _wanted(model, analyses) for name, model in models.items()}
    n_classes = min(model.cfg.n_classes for model in models.values()) or None
    size = next((model.cfg.required_image_size for model in models.values()), None)
    check(dataset, n_classes)
    total = n_images(dataset)
    rows = _Rows()
    bar = tqdm(
        total=None if total is None else total * len(asked),
        desc="measuring",
        unit="image",
        disable=not progress,
    )
    with bar, measuring(list(models.values())):
        for clean in batches(
            dataset, batch_size, n_classes=n_classes, image_size=size, num_workers=num_workers
        ):
            for condition in asked:
                pixels = condition.apply(clean.pixels, clean.image_ids, seed=seed)
                batch = Batch(pixels=pixels, labels=clean.labels, image_ids=clean.image_ids)
                for name, model in models.items():
                    rows.add(name, condition.name, _analyse(model, batch, analyses, wanted[name]))
                bar.set_postfix_str(condition.name, refresh=False)
                bar.update(len(batch))
    return rows.joined(list(models), [condition.name for condition in asked])


def _wanted(model: HookedViT, analyses: Sequence[Analysis]) -> list[Mapping[str, Any]]:
    wanted = []
    for analysis in analyses:
        reductions = analysis.hooks(model)
        check_hooks(model, reductions, analysis)
        wanted.append(reductions)
    return wanted


def _analyse(
    model: HookedViT, batch: Batch, analyses: Sequence[Analysis], wanted: Sequence[Mapping[str, Any]]
) -> xr.Dataset:
    """One batch through one model and all analyses."""
    on_device = Batch(batch.pixels.to(model.device), batch.labels.to(model.device), batch.image_ids)
    logits, views = forward(model, on_device.pixels, wanted)
    tables: list[xr.Dataset] = []
    owners: dict[str, str] = {}
    for analysis, view in zip(analyses, views, strict=True):
        who = type(analysis).__name__
        table = _checked(analysis(model, view, logits, on_device), who, len(batch))
        for variable in table.data_vars:
            if variable in owners:
                raise AnalysisError(
                    f"{who} and {owners[str(variable)]} both give the variable '{variable}'.",
                    expected="one owner for each variable",
                    remedy="Run them apart, or rename the variable in one of them.",
                )
            owners[str(variable)] = who
        tables.append(table)
    merged = xr.merge(tables, join="exact", compat="equals")
    return merged.assign_coords(image=list(batch.image_ids))


def _checked(table: object, who: str, n: int) -> xr.Dataset:
    if not isinstance(table, xr.Dataset):
        raise AnalysisError(
            f"{who} returned {type(table).__name__}.",
            expected="an xarray.Dataset",
            remedy="Build it with vitlens.table.",
        )
    for name, variable in table.data_vars.items():
        if not variable.dims or variable.dims[0] != "image" or variable.sizes["image"] != n:
            raise AnalysisError(
                f"{who} returned '{name}' with axes {dict(variable.sizes)} for a batch of {n} images.",
                expected=f"'image' first, with {n} rows",
                remedy="An analysis gives values per image; means over images come later, with an interval.",
            )
    return table


class _Rows:
    """Rows of all checkpoints and conditions, batch by batch."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], list[xr.Dataset]] = {}

    def add(self, checkpoint: str, condition: str, table: xr.Dataset) -> None:
        self._parts.setdefault((checkpoint, condition), []).append(table)

    def joined(self, checkpoints: list[str], conditions: list[str]) -> xr.Dataset:
        """One table; every join is exact."""
        columns = [
            xr.concat(
                [
                    xr.concat(self._parts.pop((checkpoint, condition)), "image", join="exact")
                    for condition in conditions
                ],
                xr.Variable("condition", conditions),
                join="exact",
            )
            for checkpoint in checkpoints
        ]
        return xr.concat(columns, xr.Variable("checkpoint", checkpoints), join="exact")
