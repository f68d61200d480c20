"""The look that all figures share: colors, names that are safe to draw, and room for every label.

Heights and margins are counted in pixels, so that a label has its place whatever the width. A figure says in
`layout.meta` what a page needs besides: its caption, the width below which it should scroll rather than
shrink, the pixels that its title and its menus take, and the rows behind it.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

FONT_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
FONT_PX = 12
LINE_PX = 16
CHARACTER_PX = 6.9  # mean advance of a 12 px sans-serif, rounded up
TITLE_PX = 66
MENU_PX = 44
LEGEND_ROW_PX = 24
AXIS_PX = 52  # tick labels and the title of a horizontal axis

# Okabe and Ito's hues, kept between luminance 0.13 and 0.30 so that each has a contrast of 3 to 1 on white
# and on the dark background alike; yellow and sky blue cannot, and are replaced.
PALETTE = ("#0072B2", "#D55E00", "#008F68", "#B65FA0", "#A6761D", "#6F66C4", "#737373", "#B2405A")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
NEUTRAL = "#808080"

SEQUENTIAL = "Viridis"
DIVERGING = ((0.0, "#2166AC"), (0.25, "#92C5DE"), (0.5, "#F7F7F7"), (0.75, "#F4A582"), (1.0, "#B2182B"))


@dataclass(frozen=True)
class Look:
    """How one checkpoint is drawn, in every figure."""

    color: str
    symbol: str
    dash: str

    def shade(self, opacity: float) -> str:
        """The color with an opacity, as CSS."""
        red, green, blue = (int(self.color[i : i + 2], 16) for i in (1, 3, 5))
        return f"rgba({red},{green},{blue},{opacity:g})"


def looks(checkpoints: Sequence[str]) -> dict[str, Look]:
    """Color, marker and dash of each checkpoint, by its place in the comparison.

    The three cycles have different lengths, so that a ninth checkpoint shares its color with the first and
    nothing else.
    """
    return {
        name: Look(PALETTE[i % len(PALETTE)], SYMBOLS[i % len(SYMBOLS)], DASHES[i % len(DASHES)])
        for i, name in enumerate(checkpoints)
    }


def escape(text: object) -> str:
    """Text as plotly draws it letter by letter: no tags, no entities, no template.

    Plotly reads `<b>` and `&lt;` in any label, and `%{...}` in some.

    Example:
        >>> escape("<script> %{x}")
        '&lt;script&gt; &#37;{x}'
    """
    return html.escape(str(text), quote=False).replace("%{", "&#37;{")


def n_columns(text: str) -> int:
    """Width of `text` in character columns; East Asian wide letters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def lines(text: object, width: int, n_lines: int = 3) -> list[str]:
    """Break a name into lines of at most `width` columns, after spaces and punctuation where there are any.

    Args:
        text: any name; runs of white space count as one space.
        width: columns of a line.
        n_lines: at most so many lines; the last ends in an ellipsis if the name goes on.

    Returns:
        The lines, not escaped.

    Example:
        >>> lines("pgd:eps=4/255,steps=10", 14)
        ['pgd:eps=4/255,', 'steps=10']
    """
    broken = [""]
    for piece in re.findall(r"[^\s,:;/@_+-]*[\s,:;/@_+-]?", " ".join(str(text).split())):
        if n_columns(broken[-1]) + n_columns(piece.rstrip()) > width and broken[-1]:
            broken.append("")
        for letter in piece:
            if n_columns(broken[-1]) + n_columns(letter) > width and letter != " ":
                broken.append("")
            broken[-1] += letter
    broken = [line.strip() for line in broken if line.strip()] or [""]
    if len(broken) > n_lines:
        last = broken[n_lines - 1]
        while n_columns(last) > width - 1:
            last = last[:-1]
        broken = [*broken[: n_lines - 1], last + "…"]
    return broken


def wrap(text: object, width: int, n_lines: int = 3) -> str:
    """A name in lines of at most `width` columns, escaped for plotly."""
    return "<br>".join(escape(line) for line in lines(text, width, n_lines))


def columns_px(columns: float) -> float:
    """Room that so many character columns take, in pixels."""
    return columns * CHARACTER_PX


def tick_step(n: int, most: int = 13) -> int:
    """Step between whole-numbered ticks, so that no more than `most` are drawn."""
    return max(1, math.ceil(n / most))


def template(dark: bool = False) -> go.layout.Template:
    """Everything neutral in color: fonts, grids, backgrounds."""
    ink, soft, grid = ("#E6E6E6", "#B4B8BD", "#3A3F45") if dark else ("#1F2328", "#59636E", "#E1E4E8")
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zerolinecolor": grid,
        "zerolinewidth": 1,
        "tickcolor": grid,
        "title": {"font": {"size": FONT_PX + 1}},
    }
    # A menu's hover color is fixed by plotly and light; so is a menu here, under either background.
    menu = {"bgcolor": "#FFFFFF", "bordercolor": "#8C959F", "font": {"color": "#1F2328", "size": FONT_PX}}
    return go.layout.Template(
        layout={
            "font": {"family": FONT_FAMILY, "size": FONT_PX, "color": ink},
            "title": {
                "font": {"size": 18},
                "subtitle": {"font": {"size": 13, "color": soft}},
                "x": 0,
                "xref": "container",
                "xanchor": "left",
                "y": 1,
                "yref": "container",
                "yanchor": "top",
                "pad": {"t": 12, "l": 12},
            },
            "paper_bgcolor": "rgba(0,0,0,0)" if dark else "#FFFFFF",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "hoverlabel": {
                "font": {"family": FONT_FAMILY, "size": FONT_PX},
                "align": "left",
                "namelength": -1,
            },
            "xaxis": axis,
            "yaxis": axis,
            "updatemenudefaults": menu,
            "dragmode": False,
        }
    )


def legend_rows(names: Sequence[str], width_px: float) -> int:
    """Lines of text that a horizontal legend needs at a width; plotly gives every entry the widest's room."""
    widest = max(max(n_columns(line) for line in name.split("<br>")) for name in names)
    n_per_row = max(1, int(width_px // (50 + columns_px(widest))))
    rows = [names[start : start + n_per_row] for start in range(0, len(names), n_per_row)]
    return sum(max(name.count("<br>") + 1 for name in row) for row in rows)


def finish(
    figure: go.Figure,
    *,
    title: str,
    subtitle: str,
    caption: str,
    plot_px: float,
    left_px: float,
    right_px: float = 16,
    bottom_px: float = AXIS_PX,
    panel_title_lines: int = 0,
    legend: Sequence[str] = (),
    menus: Sequence[dict[str, object]] = (),
    min_width_px: float = 320,
) -> go.Figure:
    """Give a drawn figure its title, legend, menus and margins; from top to bottom, each in its own band.

    Args:
        figure: the figure, its axes and traces in place.
        title: a few words.
        subtitle: what is averaged over, and what bars and bands are.
        caption: one or two sentences of definition, for whoever shows the figure.
        plot_px: height of the panels together, in pixels.
        left_px: left margin, in pixels.
        right_px: right margin, in pixels.
        bottom_px: bottom margin, in pixels.
        panel_title_lines: lines that the tallest title above a first-row panel takes.
        legend: names that the legend shows, already escaped.
        menus: plotly menus, without their place; the first stands left, the second right. A menu's `name`
            says what it chooses.
        min_width_px: width below which a page should scroll rather than shrink the figure.

    Returns:
        The same figure.
    """
    panel_title_px = panel_title_lines * LINE_PX + 8
    rows = legend_rows(legend, min_width_px - left_px - right_px) if legend else 0
    legend_px = rows * LEGEND_ROW_PX
    menu_px = MENU_PX if menus else 0
    top_px = TITLE_PX + menu_px + legend_px + panel_title_px
    figure.update_layout(
        template=template(),
        title={"text": title, "subtitle": {"text": subtitle}},
        height=round(top_px + plot_px + bottom_px),
        margin={"l": left_px, "r": right_px, "t": top_px, "b": bottom_px},
        showlegend=bool(legend),
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1 + panel_title_px / plot_px,
            "yanchor": "bottom",
            "font": {"size": FONT_PX + 1},
            "tracegroupgap": 4,  # between rows; with plotly's own 10 they would not fit their band
        },
        updatemenus=[
            {
                **menu,
                "type": "dropdown",
                "direction": "down",
                "showactive": True,
                "x": side,
                "xanchor": "left" if side == 0 else "right",
                "y": 1 + (panel_title_px + legend_px) / plot_px,
                "yanchor": "bottom",
                "pad": {"b": 6, "t": 0, "l": 0, "r": 0},
            }
            for side, menu in zip((0, 1), menus, strict=False)
        ],
        meta={
            **(figure.layout.meta or {}),
            "caption": caption,
            "min_width_px": math.ceil(min_width_px),
            "title_px": TITLE_PX,
            "menu_px": menu_px,
        },
    )
    return figure
