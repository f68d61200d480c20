"""A few named images under every checkpoint: their pixels, attention maps and predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import UInt8

from ..analyses import AttentionMap, Prediction
from ..images import Batch, batches, known, parse_conditions, readable, spread
from ..models import HookedViT
from ..running import Analysis, run
from ..running.showing import shown


def choose(dataset: Any, n: int, named: Sequence[str] = ()) -> list[Any]:
    """Items to show: those that are named, and `n` spread evenly over the data set, whatever they show.

    Args:
        dataset: as for `run`; of one that is read but once nothing can be shown.
        n: how many to spread.
        named: image ids; found where the data set knows its ids.

    Returns:
        Each item once, in the order of the data set; none that cannot be read any more.
    """
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        return []
    places = set(spread(dataset, n).indices)
    asked = {place for place, image_id in enumerate(known(dataset, "image_ids")) if image_id in named}
    return list(readable(dataset, sorted(places | asked)))


def show(
    models: Mapping[str, HookedViT],
    items: Sequence[Any],
    conditions: Sequence[Any],
    *,
    n_mapped: int,
    seed: int,
) -> xr.Dataset:
    """What the report's pictures are made of.

    Args:
        models: checkpoint name -> model.
        items: the images.
        conditions: what is done to them.
        n_mapped: under how many of the conditions, the first ones, attention maps are kept: they are many.
        seed: of the corruptions, the same as in the comparison.

    Returns:
        `attention_map` (checkpoint, condition, image, layer, head, patch_row, patch_column), `pixels`
        (condition, image, row, column, channel) as bytes, `label` (image), `predicted` and
        `correct_probability` (checkpoint, condition, image); and `condition_pixels` (shown_condition, image,
        row, column, channel), the pixels under every condition, clean ones first. Where each checkpoint sees
        pixels of its own, as under an attack, the pictures are the clean ones.
    """
    analyses: list[Analysis] = [AttentionMap(), Prediction()]
    asked = parse_conditions(conditions)
    mapped = asked[:n_mapped]
    data = run(models, items, analyses, conditions=mapped, seed=seed, progress=False)
    (clean,) = batches(items, len(items))
    first = next(iter(models))
    pictures = {"clean": _bytes(clean)}
    for condition in asked:
        seen = shown(condition, clean, models, seed=seed)[first] if condition.shares_pixels else clean
        pictures[condition.name] = _bytes(seen)
    axes = ("image", "row", "column", "channel")
    kept = data[["attention_map", "predicted", "correct_probability"]]
    return kept.assign(
        label=data["label"].isel(checkpoint=0, condition=0, drop=True),
        pixels=(("condition", *axes), np.stack([pictures[condition.name] for condition in mapped])),
        condition_pixels=(("shown_condition", *axes), np.stack(list(pictures.values()))),
    ).assign_coords(shown_condition=list(pictures))


def _bytes(batch: Batch) -> UInt8[np.ndarray, "image row column channel"]:
    """Pixels as pictures have them."""
    return (batch.pixels.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
