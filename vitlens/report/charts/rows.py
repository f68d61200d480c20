"""Figures with one row for each condition and, within it, one lane for each checkpoint.

Conditions stand on the vertical axis, where long names can be read without turning the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from .behind import add, grid_rows
from .style import FONT_PX, LINE_PX, Look, columns_px, escape, lines, n_columns, wrap

LABEL_COLUMNS = 20
PANEL_PX = 150


@dataclass(frozen=True)
class Panel:
    """One column of a row figure.

    Attributes:
        title: above the panel; may be empty.
        axis: title of the horizontal axis, with its unit.
        value: [condition checkpoint] where the points stand; NaN draws none.
        low: [condition checkpoint] lower ends of the intervals.
        high: [condition checkpoint] upper ends.
        hover: for each condition and checkpoint, what the pointer is told; already escaped.
        limits: what the axis may not pass.
    """

    title: str
    axis: str
    value: Float[np.ndarray, "condition checkpoint"]
    low: Float[np.ndarray, "condition checkpoint"]
    high: Float[np.ndarray, "condition checkpoint"]
    hover: Sequence[Sequence[str]]
    limits: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True)
class Rows:
    """The geometry: where each condition and each checkpoint has its place on the vertical axis.

    Attributes:
        conditions: names, from top to bottom.
        looks: look of each checkpoint, from the top lane to the bottom lane.
        lane_px: height of a lane.
        row_name: what a row is.
    """

    conditions: Sequence[str]
    looks: dict[str, Look] = field(repr=False)
    lane_px: float = 15
    row_name: str = "condition"

    @property
    def row_px(self) -> float:
        """Height of a row: its lanes, or its label if that is higher."""
        tallest = max(len(lines(name, LABEL_COLUMNS)) for name in self.conditions)
        return max(self.lane_px * len(self.looks) + 10, LINE_PX * tallest + 10)

    @property
    def plot_px(self) -> float:
        """Height of all rows together."""
        return self.row_px * len(self.conditions)

    @property
    def label_px(self) -> float:
        """Width of the widest label, with a little air."""
        widest = max(n_columns(line) for name in self.conditions for line in lines(name, LABEL_COLUMNS))
        return columns_px(widest) + 18

    @property
    def half_lane(self) -> float:
        """Half a lane's height, in rows."""
        return self.lane_px / self.row_px / 2

    def place(self, condition: int, checkpoint: int) -> float:
        """Middle of a lane on the vertical axis, where row `i` reaches from `i - 0.5` to `i + 0.5`."""
        return condition + (checkpoint - (len(self.looks) - 1) / 2) * 2 * self.half_lane

    def places(self, checkpoint: int) -> list[float]:
        """Middles of one checkpoint's lanes, for every condition."""
        return [self.place(row, checkpoint) for row in range(len(self.conditions))]

    def figure(self, titles: Sequence[str], axes: Sequence[str]) -> go.Figure:
        """Empty panels side by side, with the conditions' names at the left and a line between rows."""
        figure = make_subplots(
            rows=1,
            cols=len(titles),
            shared_yaxes=True,
            horizontal_spacing=0.06 if len(titles) > 1 else 0.0,
            subplot_titles=[wrap(title, 30) for title in titles],
        )
        figure.update_annotations(font_size=FONT_PX + 1)
        n = len(self.conditions)
        figure.update_yaxes(range=[n - 0.5, -0.5], showgrid=False, zeroline=False, fixedrange=True)
        figure.update_yaxes(
            tickmode="array",
            tickvals=list(range(n)),
            ticktext=[wrap(name, LABEL_COLUMNS) for name in self.conditions],
            ticks="",
            col=1,
        )
        for column, axis in enumerate(axes, start=1):
            figure.update_xaxes(title={"text": axis, "standoff": 8}, zeroline=False, nticks=6, col=column)
        figure.update_layout(
            shapes=[
                {
                    "type": "line",
                    "xref": f"x{column} domain" if column > 1 else "x domain",
                    "yref": f"y{column}" if column > 1 else "y",
                    **{"x0": 0, "x1": 1, "y0": boundary - 0.5, "y1": boundary - 0.5},
                    "line": {"color": "rgba(128,128,128,0.35)", "width": 1},
                }
                for column in range(1, len(axes) + 1)
                for boundary in range(n + 1)
            ]
        )
        return figure


def dots(rows: Rows, panels: Sequence[Panel]) -> go.Figure:
    """A point with its interval for every condition and checkpoint, in each panel.

    Args:
        rows: the geometry.
        panels: what to draw, from left to right.

    Returns:
        The figure, still without title and margins.
    """
    figure = rows.figure([panel.title for panel in panels], [panel.axis for panel in panels])
    for column, panel in enumerate(panels, start=1):
        for k, (name, look) in enumerate(rows.looks.items()):
            value = panel.value[:, k]
            figure.add_scatter(
                x=value,
                y=rows.places(k),
                mode="markers",
                name=wrap(name, 40),
                legendgroup=str(k),
                showlegend=column == 1,
                marker={"color": look.color, "symbol": look.symbol, "size": 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": panel.high[:, k] - value,
                    "arrayminus": value - panel.low[:, k],
                    "color": look.color,
                    "thickness": 1.5,
                    "width": 3,
                },
                hovertext=[row[k] for row in panel.hover],
                hoverinfo="text",
                row=1,
                col=column,
            )
        figure.update_xaxes(**span(panel), col=column)
        axes = {"panel": [panel.title]} if panel.title else {}
        values = {"value": panel.value, "ci_low": panel.low, "ci_high": panel.high}
        add(
            figure,
            grid_rows({**axes, rows.row_name: rows.conditions, "checkpoint": list(rows.looks)}, values),
        )
    return figure


def hover_head(checkpoint: str, condition: str) -> str:
    """The first line of what the pointer is told."""
    return f"<b>{escape(checkpoint)}</b> · {escape(condition)}"


def span(panel: Panel) -> dict[str, Any]:
    """A range that holds every interval with a little air, within the panel's limits."""
    ends = np.concatenate([panel.low.ravel(), panel.high.ravel(), panel.value.ravel()])
    ends = ends[np.isfinite(ends)]
    if not len(ends):
        return {}
    low, high = float(ends.min()), float(ends.max())
    air = 0.06 * (high - low) or 0.02 * max(abs(high), 1.0)
    lowest, highest = panel.limits
    # A marker on the limit itself would be cut in half, so a third of the air stays beyond it.
    low = low - air if lowest is None else max(low - air, lowest - air / 3)
    high = high + air if highest is None else min(high + air, highest + air / 3)
    return {"range": [low, high]}
