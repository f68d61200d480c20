"""How good a model in training is: rows for each image on disk, and a summary row for each condition."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..analyses import Prediction
from ..errors import CheckpointError, TrainingError
from ..files import as_path, read_json
from ..images import BAD_IMAGES
from ..models import HookedViT, weights_sha256
from ..report.charts.intervals import mean_and_t, wilson
from ..running import run
from ..running.ranks import ranks
from ..running.rows import joined
from ..running.store import Store

FOLDER = "evaluations"
"""Where a run keeps the rows of its evaluations, in its output folder."""


def evaluate(
    model: HookedViT,
    dataset: Any,
    conditions: Sequence[Any],
    *,
    step: int,
    folder: Path | None,
    batch_size: int,
    seed: int,
    precision: str | None = None,
    num_workers: int = 0,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Accuracy and the correct class's probability under each condition, with intervals over images.

    Under several processes all call, each measures its share of the images, each image once, and all get the
    same rows. The model's mode and torch's generators are left as they were.

    Args:
        model: the model, in whichever mode.
        dataset: as `vitlens.run` takes it; it is read at each evaluation, so no one-time iterable.
        conditions: as `vitlens.run` takes them.
        step: how many steps have been made; it names the folder of the rows.
        folder: the run's output folder. What an evaluation of this step has measured there is kept, if it was
            of the same weights, and replaced if not. None writes nothing.
        batch_size: images in a forward pass of one process.
        seed: of the corruptions; they do not depend on the step, so that all steps see the same pixels.
        precision: as in `vitlens.run`.
        num_workers: processes that load images.
        progress: show a bar.

    Returns:
        For each condition a row as `Log.write` takes it: `kind` ("evaluation"), `step`, `condition`,
        `top1_accuracy` with Wilson's 95 % interval in `top1_low` and `top1_high`, `correct_probability`
        (mean over images) with Student's in `correct_probability_low` and `..._high`, cut at 0 and 1, and
        `n_images`. An image whose output is no number counts as wrong, and makes the probability NaN.

    Raises:
        AnalysisError: the model has no classifier, or a process of the run is gone.
        ConditionError, DatasetError, LabelError, PixelError: what is asked for or given cannot be used.
        SpaceError: the disk is full.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", for the
    interval of a proportion.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> rows = evaluate(model, images, ["clean"], step=0, folder=None, batch_size=4, seed=0)
        >>> [(row["condition"], row["n_images"]) for row in rows]
        [('clean', 4)]
    """
    output = None if folder is None else folder / FOLDER / _name(step)
    if output is not None:
        _clear_of_other_weights(output, model)
    data = run(
        model,
        dataset,
        [Prediction()],
        conditions=conditions,
        batch_size=batch_size,
        seed=seed,
        precision=precision,
        output=output,
        num_workers=num_workers,
        progress=progress,
    ).transpose("condition", "image")
    probability = data["correct_probability"].values.astype(np.float64)
    hits = (data["rank"].values == 0).sum(-1).astype(np.float64)
    n = data.sizes["image"]
    accuracy_low, accuracy_high = wilson(hits, np.full_like(hits, n))
    mean, low, high, n_finite = mean_and_t(probability)
    for values in (mean, low, high):
        values[n_finite < n] = np.nan
    return [
        {
            "kind": "evaluation",
            "step": step,
            "condition": str(condition),
            "top1_accuracy": float(hits[at] / n),
            "top1_low": float(accuracy_low[at]),
            "top1_high": float(accuracy_high[at]),
            "correct_probability": float(mean[at]),
            "correct_probability_low": float(np.clip(low[at], 0, 1)),
            "correct_probability_high": float(np.clip(high[at], 0, 1)),
            "n_images": n,
        }
        for at, condition in enumerate(data["condition"].values)
    ]


def read_evaluations(folder: str | os.PathLike[str]) -> xr.Dataset:
    """The rows of all evaluations of a run, so that each image can be followed through the training.

    An evaluation that was not finished, as of a run that is under way or was killed, is left out.

    Args:
        folder: the run's output folder.

    Returns:
        `Prediction`'s variables, with dims (step, condition, image): `label`, `predicted`, `rank`,
        `correct_probability`, `predicted_probability`, `entropy_nats`. `step` counts the steps made.

    Raises:
        TrainingError: there is no evaluation, or two are of different images or conditions.
        CheckpointError: a file is damaged.

    Example:
        >>> import tempfile, timm, vitlens as vl
        >>> folder = Path(tempfile.mkdtemp())
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> for step in (0, 100):
        ...     _ = evaluate(model, images, ["clean"], step=step, folder=folder, batch_size=4, seed=0)
        >>> dict(read_evaluations(folder).sizes)
        {'step': 2, 'condition': 1, 'image': 4}
    """
    found = {}
    for path in as_path(folder, "folder", TrainingError).glob(f"{FOLDER}/step-*/manifest.json"):
        manifest, step = read_json(path), path.parent.name.removeprefix("step-")
        try:
            asked = manifest["images"]["n_images"]
            number = int(step)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} is no manifest of an evaluation ({type(error).__name__}: {error}).",
                expected="a manifest as vitlens writes it, in a folder such as step-000100",
                remedy="Restore it from a copy, or delete its folder: the other evaluations are still read.",
            ) from error
        if not (tables := list(Store(path.parent, manifest).rows())):
            continue
        rows = joined(tables)
        if asked in (None, rows.sizes["image"] + len(rows.attrs.get(BAD_IMAGES, {}))):
            found[number] = rows.isel(checkpoint=0, drop=True)
    if not found:
        raise TrainingError(
            f"{os.fspath(folder)} holds no finished evaluation.",
            expected="the output folder of a fine-tuning run with evaluate_on=",
            remedy="Name that folder, or fine-tune with evaluate_on= and evaluate_every_steps=.",
        )
    steps = sorted(found)
    try:
        return xr.concat(
            [found[step] for step in steps],
            xr.Variable("step", steps),
            data_vars="all",
            coords="minimal",
            compat="override",
            join="exact",
        )
    except ValueError as error:
        raise TrainingError(
            f"The evaluations in {os.fspath(folder)} do not fit each other: {str(error).splitlines()[0]}",
            expected="the same images in the same order, under the same conditions, at every step",
            remedy=f"Delete those folders of {FOLDER} that belong to another data set.",
        ) from error


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _clear_of_other_weights(output: Path, model: HookedViT) -> None:
    """Remove what was measured of other weights: of this step, but before the run went back and went on.

    A run that goes on where it was killed has the same weights again, and keeps the rows, on the same machine
    alone; elsewhere they differ in their last bits.
    """
    with ranks() as shared, shared.together("preparing an evaluation"):
        manifest = output / "manifest.json"
        if shared.rank == 0 and manifest.exists():
            there = read_json(manifest).get("checkpoints")
            if there != {"model": weights_sha256(model)}:
                shutil.rmtree(output)
