"""Heat maps side by side, one panel for each checkpoint, with a menu for the condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Bool, Float

from .behind import array_rows, keep
from .panels import Grid
from .reading import clean_first
from .style import DIVERGING, SEQUENTIAL, escape, lines, tick_step, wrap

MARKS = {(True, True): "▲", (True, False): "△", (False, True): "▼", (False, False): "▽"}
"""By whether a value is above 0, and whether it is marked: colors alone lose the sign in print."""
_NAMED_PX = 36.0  # a column whose name is a word
_WIDEST_PX = 940.0
_MENU_NAMES = {"query_kind": "Queries", "token_kind": "Tokens"}


@dataclass(frozen=True)
class Axes:
    """Which dims a sheet of heat maps has.

    Attributes:
        choice: the dim that the left menu chooses from; of one label there is no menu.
        row: the dim that runs upward.
        column: the dim that runs to the right.
        choice_words: a label of `choice` as the menu says it.
    """

    choice: str
    row: str
    column: str
    choice_words: Callable[[str], str] = str

    @property
    def dims(self) -> tuple[str, ...]:
        """All dims, in the order in which values are held."""
        return (self.choice, "condition", "checkpoint", self.row, self.column)


def heatmaps(
    means: xr.DataArray,
    axes: Axes,
    *,
    title: str,
    subtitle: str,
    caption: str,
    unit: str,
    symmetric: bool,
    marks: xr.DataArray | None = None,
    interval: tuple[xr.DataArray, xr.DataArray] | None = None,
    empty: str = "",
) -> go.Figure:
    """One panel for each checkpoint; menus choose among `axes.choice` and among the conditions.

    Each menu changes what the other leaves alone: the choice which traces are seen, the condition their
    values. A choice has one scale of colors for every panel and condition. Differences carry a triangle up
    or down, filled where they are marked.

    Args:
        means: with the dims of `axes`; NaN leaves a cell empty.
        axes: which dims stand where.
        title: of the figure, escaped.
        subtitle: what is averaged over.
        caption: what is shown.
        unit: of the values.
        symmetric: differences, in diverging colors around 0.
        marks: Booleans with the same dims: the differences whose triangles are filled.
        interval: lower and upper ends, with the same dims, for the pointer.
        empty: what a panel without any value says.

    Returns:
        The figure.
    """
    conditions = clean_first([str(name) for name in means["condition"].values])
    choices = [
        str(name) for name in means[axes.choice].values if means.sel({axes.choice: name}).notnull().any()
    ]
    at = {"condition": conditions, axes.choice: choices}
    means = means.sel(at).transpose(*axes.dims)
    checkpoints = [str(name) for name in means["checkpoint"].values]
    z: Float[np.ndarray, "choice condition checkpoint row column"] = means.values
    ends = None
    if interval is not None:
        ends = np.stack([end.sel(at).transpose(*axes.dims).values for end in interval], axis=-1)
    text = None
    if symmetric:
        is_marked = np.zeros(z.shape, bool) if marks is None else marks.sel(at).transpose(*axes.dims).values
        text = _triangles(z, is_marked)

    n_rows, n_columns = z.shape[-2:]
    is_named = not np.issubdtype(means[axes.column].dtype, np.number)
    width = max(118.0, (_NAMED_PX if is_named else 16.0) * n_columns)
    grid = Grid(
        checkpoints,
        n_columns=min(max(1, int(_WIDEST_PX / width)), 4, len(checkpoints)),
        panel_px=(width, float(np.clip(22 * n_rows, 130, 420))),
    )
    figure = grid.figure()
    traces = [(choice, panel) for choice in range(len(choices)) for panel in range(len(checkpoints))]
    for choice, panel in traces:
        figure.add_heatmap(
            z=z[choice, 0, panel],
            x=means[axes.column].values,
            y=means[axes.row].values,
            text=None if text is None else text[choice, 0, panel],
            texttemplate=None if text is None else "%{text}",
            name=escape(checkpoints[panel]),
            customdata=None if ends is None else rounded(ends[choice, 0, panel]),
            hovertemplate=f"{axes.row} %{{y}}, {axes.column} %{{x}}<br>%{{z:.4g}}"
            + ("" if ends is None else " [%{customdata[0]}, %{customdata[1]}]")
            + f" {escape(unit)}",
            coloraxis="coloraxis",
            visible=choice == 0,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            **grid.place(panel),
        )
    is_empty = np.isnan(z).all((-2, -1))
    noted = traces if empty and is_empty.any() else []
    notes = np.where(is_empty, wrap(empty, grid.title_columns), "")[..., None].tolist()
    for choice, panel in noted:
        figure.add_scatter(
            x=[means[axes.column].values[n_columns // 2]],
            y=[means[axes.row].values[n_rows // 2]],
            text=notes[choice][0][panel],
            mode="text",
            hoverinfo="skip",
            showlegend=False,
            visible=choice == 0,
            **grid.place(panel),
        )
    spans = [_span(z[choice], symmetric) for choice in range(len(choices))]
    figure.update_layout(
        coloraxis={
            **({"colorscale": [list(stop) for stop in DIVERGING], "cmid": 0} if symmetric else {}),
            **({} if symmetric else {"colorscale": SEQUENTIAL}),
            "cmin": spans[0][0],
            "cmax": spans[0][1],
            "colorbar": {
                "title": {"text": escape(lines(unit, 18, 1)[0]), "side": "right"},
                "thickness": 12,
                "outlinewidth": 0,
                "x": 1.02,
                "xpad": 0,
            },
        }
    )
    menus: list[dict[str, object]] = []
    if len(choices) > 1:
        buttons = [
            {
                "label": escape(axes.choice_words(name)),
                "method": "update",
                "args": [
                    {"visible": [choice == i for choice, _ in (*traces, *noted)]},
                    {"coloraxis.cmin": spans[i][0], "coloraxis.cmax": spans[i][1]},
                ],
            }
            for i, name in enumerate(choices)
        ]
        menus.append({"name": _MENU_NAMES.get(axes.choice, axes.choice.capitalize()), "buttons": buttons})
    if len(conditions) > 1:
        buttons = [
            {
                "label": escape(lines(name, 40, 1)[0]),
                "method": "restyle",
                "args": [
                    {
                        key: [short(values[choice, i, panel]) for choice, panel in traces]
                        + [notes[choice][i][panel] if key == "text" else None for choice, panel in noted]
                        for key, values, short in (
                            ("z", z, rounded),
                            ("text", text, np.ndarray.tolist),
                            ("customdata", ends, rounded),
                        )
                        if values is not None
                    }
                ],
            }
            for i, name in enumerate(conditions)
        ]
        menus.append({"name": "Condition", "buttons": buttons})
    beside: dict[str, xr.DataArray] = {}
    if ends is not None:
        beside |= {"ci_low": means.copy(data=ends[..., 0]), "ci_high": means.copy(data=ends[..., 1])}
    if marks is not None:
        beside["marked"] = marks.sel(at)
    shown = array_rows({"value": means, **beside})
    keep(figure, shown if len(choices) > 1 else shown.drop(columns=axes.choice))
    plain: dict[str, Any] = {"showgrid": False, "zeroline": False, "ticks": ""}
    figure.update_xaxes(**_ticks(means[axes.column].values, 8), **plain)
    figure.update_yaxes(**_ticks(means[axes.row].values, 13), **plain)
    grid.label(figure, x=axes.column, y=axes.row)
    return grid.finish(
        figure,
        title=title,
        subtitle=subtitle,
        caption=caption,
        right_px=84,
        menus=menus,
        least_width_px=560 if len(menus) > 1 else 320,
    )


def rounded(values: Float[np.ndarray, "*axes"]) -> list[Any]:
    """Values for a menu as nested lists, four digits each, short in a file; NaN as nothing."""
    short = [float(f"{value:.4g}") if np.isfinite(value) else None for value in values.ravel()]
    nested: list[Any] = np.array(short, dtype=object).reshape(values.shape).tolist()
    return nested


def _triangles(z: Float[np.ndarray, "*axes"], is_marked: Bool[np.ndarray, "*axes"]) -> np.ndarray:
    """A triangle for each difference but 0, up or down, filled where it is marked."""
    text = np.full(z.shape, "", dtype="<U1")
    for (is_above, is_filled), mark in MARKS.items():
        text[(z > 0 if is_above else z < 0) & (is_marked == is_filled)] = mark
    return text


def _ticks(labels: np.ndarray, most: int) -> dict[str, Any]:
    """Whole numbers as many as there is room for, names all of them; an empty panel has the same range."""
    if np.issubdtype(labels.dtype, np.number):
        ends = [float(labels.min()) - 0.5, float(labels.max()) + 0.5]
        return {"dtick": tick_step(len(labels), most), "tick0": 0, "range": ends}
    names = {"categoryorder": "array", "categoryarray": labels.tolist()}
    return {"type": "category", "tickangle": 0, **names, "range": [-0.5, len(labels) - 0.5]}


def _span(z: Float[np.ndarray, "*axes"], symmetric: bool) -> tuple[float, float]:
    """The range of colors: all values of one choice, around zero if they are differences."""
    finite = z[np.isfinite(z)]
    if not len(finite):
        return (-1.0, 1.0) if symmetric else (0.0, 1.0)
    if symmetric:
        widest = float(np.abs(finite).max()) or 1.0
        return -widest, widest
    return float(finite.min()), float(finite.max())
