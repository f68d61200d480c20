"""Lines over layers with bands: a panel for each condition, and in it a line for each checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Shaped

from .behind import add, grid_rows
from .panels import Grid
from .rows import hover_head
from .style import Look, escape, wrap
from .variables import Means

AXIS_COLUMNS = 26
PERCENT: dict[str, Any] = {"range": [-2, 102], "dtick": 25, "tick0": 0}


def line_grid(conditions: Sequence[str]) -> Grid:
    """The panels, three in a row."""
    return Grid(conditions, n_columns=min(3, len(conditions)), panel_px=(190, 190))


def draw_lines(
    figure: go.Figure,
    grid: Grid,
    means: Means,
    *,
    looks: dict[str, Look],
    place: str,
    places: Shaped[np.ndarray, " place"],
    number: Callable[[float], str],
    visible: bool = True,
    kind: str = "",
) -> None:
    """Add a line with its band for every condition and checkpoint.

    Args:
        figure: the empty panels.
        grid: where they stand, one for each condition.
        means: [condition checkpoint place]; where an end of an interval is NaN there is no band.
        looks: look of each checkpoint.
        place: the dim that runs to the right.
        places: its labels.
        number: writes a value with its unit, escaped.
        visible: whether the traces are seen.
        kind: what the rows behind the figure call these lines; empty where all lines are of one kind.
    """
    values = {"value": means.mean, "ci_low": means.low, "ci_high": means.high}
    values |= {"n": means.n} if means.n.any() else {}
    axes = {"condition": grid.titles, "checkpoint": list(looks), place: places.tolist()}
    add(figure, grid_rows({"kind": [kind], **axes} if kind else axes, values))
    for i, condition in enumerate(grid.titles):
        for k, (name, look) in enumerate(looks.items()):
            mean, low, high, n = (part[i, k] for part in (means.mean, means.low, means.high, means.n))
            shared = {"legendgroup": str(k), "visible": visible, **grid.place(i)}
            known = np.isfinite(low) & np.isfinite(high)
            if known.any():
                figure.add_scatter(
                    x=np.concatenate([places[known], places[known][::-1]]),
                    y=np.concatenate([low[known], high[known][::-1]]),
                    mode="lines",
                    line={"width": 0},
                    fill="toself",
                    fillcolor=look.shade(0.15),
                    showlegend=False,
                    hoverinfo="skip",
                    **shared,
                )
            hover = [
                f"{hover_head(name, condition)}<br>{place} {escape(label)}: {number(mean[at])}"
                + (f" [{number(low[at])}, {number(high[at])}]" if known[at] else "")
                + (f"<br>{n[at]:,.0f} images" if n[at] else "")
                for at, label in enumerate(places)
            ]
            figure.add_scatter(
                x=places,
                y=mean,
                mode="lines+markers",
                name=wrap(name, 40),
                showlegend=i == 0,
                line={"color": look.color, "dash": look.dash, "width": 2},
                marker={"color": look.color, "symbol": look.symbol, "size": 6},
                hovertext=hover,
                hoverinfo="text",
                **shared,
            )
