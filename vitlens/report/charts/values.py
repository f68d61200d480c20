"""Any single number an image: its mean for each condition and checkpoint, with its interval."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from ...comparison.words import kind_words
from .reading import names
from .rows import PANEL_PX, Panel, Rows, dots, hover_head
from .style import finish, looks, wrap
from .variables import KIND_DIMS, RUN_DIMS, Means, Quantity, quantity

AXIS_COLUMNS = PANEL_PX // 7


def values(data: xr.Dataset, name: str) -> go.Figure:
    """Mean over images for each condition and checkpoint; a statistic of the whole set as it is.

    Args:
        data: holds the variable (checkpoint, condition, image), perhaps without images, and perhaps with a
            kind of token, which makes a panel for each.
        name: of the variable.

    Returns:
        The figure.
    """
    shown = quantity(data, name)
    kind = next((dim for dim in KIND_DIMS if dim in shown.values.dims), None)
    means = shown.means(*((kind,) if kind else ()), *RUN_DIMS[::-1])
    kinds = [] if kind is None else [kind_words(label) for label in data[kind].values]
    parts = [Means(*(part[at] for part in means)) for at in range(len(kinds))] if kinds else [means]
    conditions, checkpoints = names(data, "condition"), names(data, "checkpoint")
    panels = [
        Panel(
            title,
            shown.axis(AXIS_COLUMNS),
            part.mean,
            part.low,
            part.high,
            [
                [
                    f"{hover_head(checkpoint, condition)}<br>{told(shown, part, (i, k))}"
                    for k, checkpoint in enumerate(checkpoints)
                ]
                for i, condition in enumerate(conditions)
            ],
            limits=(0, 100) if shown.is_proportion else (None, None),
        )
        for title, part in zip(kinds or [""], parts, strict=True)
    ]
    rows = Rows(conditions, looks(checkpoints))
    interval = shown.interval_words
    average = "Share of images" if shown.is_proportion else "Mean over images"
    caption = f"{average}, with a {interval} for each checkpoint by itself, not for differences."
    if not shown.is_per_image:
        caption = "One value for the whole set of images."
    return finish(
        dots(rows, panels),
        title=shown.title,
        subtitle=f"{shown.n_words(data)}; {f'bars: {interval}s' if interval else 'no interval is known'}",
        caption=caption,
        plot_px=rows.plot_px,
        left_px=rows.label_px,
        panel_title_lines=1 if kinds else 0,
        legend=[wrap(checkpoint, 40) for checkpoint in checkpoints],
        min_width_px=max(320, rows.label_px + PANEL_PX * len(panels) + 16),
    )


def told(shown: Quantity, means: Means, at: tuple[int, ...]) -> str:
    """One mean with its interval and number of images, as the pointer is told."""
    mean, low, high, n = (part[at] for part in means)
    said = shown.number(mean) if n or not shown.is_per_image else "no value"
    if low == low and high == high:
        said += f" [{shown.number(low)}, {shown.number(high)}]"
    return said + (f"<br>{n:,.0f} image{'' if n == 1 else 's'}" if n else "")
