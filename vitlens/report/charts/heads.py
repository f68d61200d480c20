"""Any variable over layers and heads: how it differs from the reference, as heat maps."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from ...comparison.words import kind_words
from .heatmaps import MARKS, Axes, heatmaps
from .reading import image_mean, n_images, names
from .style import escape, lines
from .variables import KIND_DIMS, quantity

ALPHA = 0.05
_FILLED, _HOLLOW = (f"{MARKS[True, filled]} or {MARKS[False, filled]}" for filled in (True, False))
_NO_KIND = "kind"


def head_differences(
    data: xr.Dataset,
    name: str,
    reference: str,
    summary: pd.DataFrame | None,
    *,
    words: str | None = None,
    meaning: str = "red where it is larger than the reference's, blue where it is smaller",
) -> go.Figure | None:
    """Mean paired difference of a variable from the reference, by layer and head.

    Args:
        data: holds the variable (checkpoint, condition, image, layer, head), and perhaps a kind of token.
        name: of the variable.
        reference: the checkpoint that is subtracted.
        summary: rows of the metric, by layer and head, mark the cells with an adjusted p below .05.
        words: what the variable is; by default as its attributes say it.
        meaning: of the colors.

    Returns:
        The figure, one panel for each other checkpoint; None with the reference alone.
    """
    others = [other for other in names(data, "checkpoint") if other != reference]
    if not others:
        return None
    shown = quantity(data, name)
    axes = head_axes(shown.values)
    values = shown.values.astype(np.float32) if shown.is_proportion else shown.values
    base = values.sel(checkpoint=reference, drop=True)
    differences = shown.factor * xr.concat(
        [_mean(values.sel(checkpoint=other, drop=True) - base) for other in others],
        dim=pd.Index(others, name="checkpoint"),
    )
    if axes.choice not in differences.dims:
        differences = differences.expand_dims({axes.choice: [""]})
    marks = None if summary is None else _significant(differences, summary, name, axes)
    tested = marks is not None
    unit = shown.difference_unit
    over = f"mean over {n_images(data)}" if shown.is_per_image else "of the whole set of images"
    return heatmaps(
        differences,
        axes,
        title=f"{words or shown.title}: difference from {escape(lines(reference, 40, 1)[0])}",
        subtitle=over
        + (f", in {escape(unit)}" if unit else "")
        + only_kind(shown.values, axes)
        + (f"; {_FILLED} adjusted p < .05" if tested else ""),
        caption=("Mean over images of the paired difference" if shown.is_per_image else "Difference")
        + f", checkpoint minus reference{f', in {unit}' if unit else ''}: {meaning}."
        + " A triangle points up where it is above 0 and down where it is below"
        + (
            f": {_FILLED} where the head's change survives a max-T correction over all layers and heads of "
            f"the panel (p < .05), else {_HOLLOW}."
            if tested
            else ". Each cell is a mean by itself; nothing here is tested."
        ),
        unit=unit,
        symmetric=True,
        marks=marks,
    )


def head_axes(values: xr.DataArray) -> Axes:
    """The dims of a variable over layers and heads: its kind of token is the choice, if it has one."""
    choice = next((dim for dim in KIND_DIMS if dim in values.dims), _NO_KIND)
    what = "queries" if choice == "query_kind" else "tokens"
    return Axes(choice, "layer", "head", choice_words=lambda kind: f"{what}: {kind_words(kind)}")


def only_kind(values: xr.DataArray, axes: Axes) -> str:
    """The kind of token, where there is one alone and hence no menu that says it."""
    if axes.choice not in values.dims:
        return ""
    kinds = [kind for kind in values[axes.choice].values if values.sel({axes.choice: kind}).notnull().any()]
    return f", {escape(axes.choice_words(str(kinds[0])))}" if len(kinds) == 1 else ""


def _mean(values: xr.DataArray) -> xr.DataArray:
    return image_mean(values) if "image" in values.dims else values.astype(np.float64)


def _significant(
    differences: xr.DataArray, summary: pd.DataFrame, name: str, axes: Axes
) -> xr.DataArray | None:
    """Which cells the summary calls significant; None if it has no rows for them."""
    marks = xr.zeros_like(differences, dtype=bool).transpose(*axes.dims)
    metrics = {f"{name}[{kind}]" if kind else name: kind for kind in marks[axes.choice].values}
    rows = summary[summary["metric"].isin(list(metrics)) & summary["head"].notna()]
    if not len(rows):
        return None
    rows = rows[rows["p_adjusted"] < ALPHA]
    labels = [rows["metric"].map(metrics), *(rows[dim] for dim in axes.dims[1:])]
    places = np.stack(
        [
            marks.get_index(dim).get_indexer(pd.Index(column))
            for dim, column in zip(axes.dims, labels, strict=True)
        ]
    )
    marks.values[tuple(places[:, (places >= 0).all(0)])] = True
    return marks
