"""Heat maps of attention entropy by layer and head, and of its difference between checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

from .panels import Grid
from .reading import clean_first, has, image_mean, n_images, names
from .style import DIVERGING, SEQUENTIAL, escape, finish, lines, tick_step

VARIABLE = "attention_entropy_nats"
KIND_WORDS = {
    "cls": "class token",
    "patch": "patches",
    "register": "registers",
    "distillation": "distillation token",
}
ALPHA = 0.05
AXES = ("query_kind", "condition", "checkpoint", "layer", "head")
MARK = "●"


def attention_entropy(data: xr.Dataset) -> go.Figure | None:
    """Mean attention entropy by layer and head, one panel for each checkpoint.

    Args:
        data: holds `attention_entropy_nats` (checkpoint, condition, image, layer, head, query_kind).

    Returns:
        The figure, with a menu for the kind of query and one for the condition; None without the variable.
    """
    if not has(data, VARIABLE):
        return None
    means = image_mean(data[VARIABLE])
    return _heatmaps(
        means,
        title="Attention entropy",
        subtitle=f"mean over {n_images(data)}, in nats",
        colors={"colorscale": SEQUENTIAL},
        symmetric=False,
        caption="Shannon entropy of each query's attention, in nats, averaged over the queries of "
        "a kind and over "
        "images: low where a head looks at few tokens, high where it averages over many. A color "
        "means the same "
        "for every checkpoint and condition.",
    )


def attention_entropy_difference(
    data: xr.Dataset, reference: str, summary: pd.DataFrame | None
) -> go.Figure | None:
    """Difference of attention entropy from the reference, by layer and head.

    Args:
        data: holds `attention_entropy_nats` (checkpoint, condition, image, layer, head, query_kind).
        reference: the checkpoint that is subtracted.
        summary: rows of metrics `attention_entropy_nats[kind]` mark the cells with an adjusted p below .05.

    Returns:
        The figure; None without the variable, or with the reference alone.
    """
    if not has(data, VARIABLE) or data.sizes["checkpoint"] < 2:
        return None
    values = data[VARIABLE]
    others = [name for name in names(data, "checkpoint") if name != reference]
    base = values.sel(checkpoint=reference)
    differences = xr.concat(
        [
            image_mean(values.sel(checkpoint=name, drop=True) - base.drop_vars("checkpoint"))
            for name in others
        ],
        dim=pd.Index(others, name="checkpoint"),
    )
    marks = None if summary is None else _significant(differences, summary)
    tested = marks is not None
    return _heatmaps(
        differences,
        title=f"Attention entropy: difference from {escape(lines(reference, 40, 1)[0])}",
        subtitle=f"mean over {n_images(data)}, in nats" + (f"; {MARK} adjusted p < .05" if tested else ""),
        colors={"colorscale": [list(stop) for stop in DIVERGING], "cmid": 0},
        symmetric=True,
        marks=marks,
        caption="Mean over images of the paired difference, checkpoint minus reference, in nats: red where "
        "attention has spread, blue where it has narrowed."
        + (
            f" {MARK} marks heads whose change survives a max-T correction over all layers and "
            "heads of the panel "
            "(p < .05)."
            if tested
            else ""
        ),
    )


def _significant(differences: xr.DataArray, summary: pd.DataFrame) -> xr.DataArray | None:
    """Which cells the summary calls significant; None if it has no rows for them."""
    marks = xr.zeros_like(differences, dtype=bool).transpose(*AXES)
    kinds = {f"{VARIABLE}[{kind}]": kind for kind in marks["query_kind"].values}
    rows = summary[summary["metric"].isin(list(kinds)) & summary["layer"].notna()]
    if not len(rows):
        return None
    rows = rows[rows["p_adjusted"] < ALPHA]
    labels = [rows["metric"].map(kinds), *(rows[dim] for dim in AXES[1:])]
    places = np.stack(
        [marks.get_index(dim).get_indexer(pd.Index(column)) for dim, column in zip(AXES, labels, strict=True)]
    )
    marks.values[tuple(places[:, (places >= 0).all(0)])] = True
    return marks


def _heatmaps(
    means: xr.DataArray,
    *,
    title: str,
    subtitle: str,
    caption: str,
    colors: dict[str, Any],
    symmetric: bool,
    marks: xr.DataArray | None = None,
) -> go.Figure:
    """One panel for each checkpoint; menus choose the kind of query and the condition.

    Each menu changes what the other leaves alone: the kind which traces are seen, the condition their values.
    """
    conditions = clean_first([str(name) for name in means["condition"].values])
    kinds = [str(kind) for kind in means["query_kind"].values if means.sel(query_kind=kind).notnull().any()]
    means = means.sel(condition=conditions, query_kind=kinds).transpose(*AXES)
    checkpoints = [str(name) for name in means["checkpoint"].values]
    z: Float[np.ndarray, "kind condition checkpoint layer head"] = means.values
    text = None
    if marks is not None:
        shown = marks.sel(condition=conditions, query_kind=kinds).transpose(*AXES).values
        text = np.where(shown, MARK, "")

    n_layers, n_heads = z.shape[-2:]
    grid = Grid(
        checkpoints,
        n_columns=min(4, len(checkpoints)),
        panel_px=(max(118.0, 16.0 * n_heads), float(np.clip(22 * n_layers, 130, 420))),
    )
    figure = grid.figure()
    traces = [(kind, panel) for kind in range(len(kinds)) for panel in range(len(checkpoints))]
    for kind, panel in traces:
        figure.add_heatmap(
            z=z[kind, 0, panel],
            x=means["head"].values,
            y=means["layer"].values,
            text=None if text is None else text[kind, 0, panel],
            texttemplate=None if text is None else "%{text}",
            name=escape(checkpoints[panel]),
            hovertemplate="layer %{y}, head %{x}<br>%{z:.3f} nats",
            coloraxis="coloraxis",
            visible=kind == 0,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            **grid.place(panel),
        )
    spans = [_span(z[kind], symmetric) for kind in range(len(kinds))]
    figure.update_layout(
        coloraxis={
            **colors,
            "cmin": spans[0][0],
            "cmax": spans[0][1],
            "colorbar": {"title": {"text": "nats"}, "thickness": 12, "outlinewidth": 0, "x": 1.02, "xpad": 0},
        }
    )
    menus: list[dict[str, object]] = []
    if len(kinds) > 1:
        buttons = [
            {
                "label": f"queries: {escape(KIND_WORDS.get(name, name))}",
                "method": "update",
                "args": [
                    {"visible": [kind == i for kind, _ in traces]},
                    {"coloraxis.cmin": spans[i][0], "coloraxis.cmax": spans[i][1]},
                ],
            }
            for i, name in enumerate(kinds)
        ]
        menus.append({"buttons": buttons})
    if len(conditions) > 1:
        buttons = [
            {
                "label": escape(lines(name, 40, 1)[0]),
                "method": "restyle",
                "args": [
                    {"z": [_rounded(z[kind, i, panel]) for kind, panel in traces]}
                    | (
                        {}
                        if text is None
                        else {"text": [text[kind, i, panel].tolist() for kind, panel in traces]}
                    )
                ],
            }
            for i, name in enumerate(conditions)
        ]
        menus.append({"buttons": buttons})
    figure.update_xaxes(dtick=tick_step(n_heads, 8), tick0=0, showgrid=False, zeroline=False, ticks="")
    figure.update_yaxes(dtick=tick_step(n_layers), tick0=0, showgrid=False, zeroline=False, ticks="")
    grid.label(figure, x="head", y="layer")
    only = f", {escape(KIND_WORDS.get(kinds[0], kinds[0]))} queries" if len(kinds) == 1 else ""
    return finish(
        figure,
        title=title,
        subtitle=subtitle + only,
        caption=caption,
        plot_px=grid.plot_px,
        left_px=grid.left_px,
        right_px=84,
        panel_title_lines=grid.title_lines,
        menus=menus,
        min_width_px=max(grid.min_width_px + 68, 560 if len(menus) > 1 else 320),
    )


def _span(z: Float[np.ndarray, "*axes"], symmetric: bool) -> tuple[float, float]:
    """The range of colors: all values of one kind, around zero if they are differences."""
    if symmetric:
        widest = float(np.nanmax(np.abs(z))) or 1.0
        return -widest, widest
    return float(np.nanmin(z)), float(np.nanmax(z))


def _rounded(z: Float[np.ndarray, "layer head"]) -> list[list[float | None]]:
    """Values for a menu, short in a file; NaN as nothing."""
    return [[None if np.isnan(value) else round(float(value), 4) for value in row] for row in z]
