"""A grid of small panels that share what their axes mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .style import AXIS_PX, CHARACTER_PX, FONT_PX, LINE_PX, finish, lines, wrap


@dataclass(frozen=True)
class Grid:
    """Where each panel stands, and the pixels that the grid takes.

    Attributes:
        titles: one for each panel, row by row; not escaped.
        n_columns: panels in a row.
        panel_px: width below which a panel should not shrink, and its height.
        left_px: room for the vertical axis' labels and title.
    """

    titles: Sequence[str]
    n_columns: int
    panel_px: tuple[float, float]
    left_px: float = 62

    @property
    def n_rows(self) -> int:
        """Rows of panels."""
        return math.ceil(len(self.titles) / self.n_columns)

    @property
    def title_columns(self) -> int:
        """Character columns that a title may take above the narrowest panel."""
        return int(self.panel_px[0] / CHARACTER_PX / 1.1)  # titles are a point larger than labels

    @property
    def title_lines(self) -> int:
        """Lines of the tallest title."""
        return max(len(lines(title, self.title_columns)) for title in self.titles)

    @property
    def gap_px(self) -> float:
        """Between two rows: an axis and the titles of the next row."""
        return AXIS_PX - 8 + LINE_PX * self.title_lines + 12

    @property
    def plot_px(self) -> float:
        """Height of all rows and the gaps between them."""
        return self.n_rows * self.panel_px[1] + (self.n_rows - 1) * self.gap_px

    @property
    def min_width_px(self) -> float:
        """Width below which the grid should scroll."""
        return self.left_px + self.n_columns * (self.panel_px[0] + 14) + 16

    def figure(self) -> go.Figure:
        """The empty panels under their titles."""
        figure = make_subplots(
            rows=self.n_rows,
            cols=self.n_columns,
            vertical_spacing=self.gap_px / self.plot_px if self.n_rows > 1 else 0.0,
            horizontal_spacing=min(0.05, 0.5 / self.n_columns) if self.n_columns > 1 else 0.0,
            subplot_titles=[wrap(title, self.title_columns) for title in self.titles],
        )
        return figure.update_annotations(font_size=FONT_PX + 1)  # plotly's own size is too tall for its band

    def finish(
        self, figure: go.Figure, *, right_px: float = 16, least_width_px: float = 0, **words: Any
    ) -> go.Figure:
        """`style.finish` of these panels.

        Args:
            figure: the drawn panels.
            right_px: right margin; what it takes beyond the usual one is added to the width.
            least_width_px: width that the figure takes in any case.
            words: what else `style.finish` takes: title, subtitle, caption, legend, menus.
        """
        return finish(
            figure,
            plot_px=self.plot_px,
            left_px=self.left_px,
            right_px=right_px,
            panel_title_lines=self.title_lines,
            min_width_px=max(self.min_width_px + right_px - 16, least_width_px),
            **words,
        )

    def place(self, panel: int) -> dict[str, int]:
        """Row and column of a panel, as plotly counts them."""
        return {"row": panel // self.n_columns + 1, "col": panel % self.n_columns + 1}

    def label(self, figure: go.Figure, x: str, y: str) -> None:
        """Write the axes' titles where the grid ends: below the lowest panels and left of the first."""
        n = len(self.titles)
        titled = {f"xaxis{panel + 1}": x for panel in range(max(0, n - self.n_columns), n)}
        titled |= {f"yaxis{panel + 1}": y for panel in range(0, n, self.n_columns)}
        figure.update_layout(
            {axis: {"title": {"text": text, "standoff": 8}} for axis, text in titled.items()}
        )
