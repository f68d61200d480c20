"""Any variable over named components: a row for each, with the mean and interval of every checkpoint."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .behind import grid_rows, keep
from .heatmaps import rounded
from .reading import clean_first, names
from .rows import Panel, Rows, dots, hover_head, span
from .style import escape, finish, lines, looks, wrap
from .values import AXIS_COLUMNS, told
from .variables import further_dims, known_labels, quantity

N_MOST = 20
"""Rows of a figure; of more components the largest are shown."""


def components(
    data: xr.Dataset, name: str, only: Collection[str] | None = None, meaning: str = ""
) -> go.Figure | None:
    """Mean over images of each component, with its interval; a menu for the condition.

    Args:
        data: holds the variable (checkpoint, condition, image, and one dim of names).
        name: of the variable.
        only: the components to show; by default those whose mean is largest in absolute value under any
            condition in any checkpoint, at most `N_MOST`.
        meaning: of the components, for the caption.

    Returns:
        The figure; None if no component is left.
    """
    shown = quantity(data, name)
    (dim,) = further_dims(shown.values)
    known = [label for label in known_labels(shown.values, dim) if only is None or str(label) in only]
    if not known:
        return None
    conditions, checkpoints = clean_first(names(data, "condition")), names(data, "checkpoint")
    here = shown.part({dim: known, "condition": conditions})
    means = here.means("condition", dim, "checkpoint")
    chosen = _largest(np.abs(means.mean))
    labels = [str(known[at]) for at in chosen]
    value, low, high = (part[:, chosen] for part in means[:3])
    hover = [
        [
            [
                f"{hover_head(checkpoint, condition)}<br>{escape(label)}: "
                f"{told(here, means, (i, chosen[j], k))}"
                for k, checkpoint in enumerate(checkpoints)
            ]
            for j, label in enumerate(labels)
        ]
        for i, condition in enumerate(conditions)
    ]
    rows = Rows(labels, looks(checkpoints), lane_px=11 if len(labels) > 6 else 15, row_name=dim)
    limits = (0.0, 100.0) if shown.is_proportion else (None, None)
    axis = shown.axis(AXIS_COLUMNS)
    figure = dots(rows, [Panel("", axis, value[0], low[0], high[0], hover[0], limits)])
    # The range holds every condition, so that the menu moves points and not the scale.
    whole_value, whole_low, whole_high = (part.reshape(-1, len(checkpoints)) for part in (value, low, high))
    figure.update_xaxes(
        **span(Panel("", axis, whole_value, whole_low, whole_high, hover[0], limits)), zeroline=True
    )
    axes = {"condition": conditions, dim: labels, "checkpoint": checkpoints}
    keep(figure, grid_rows(axes, {"value": value, "ci_low": low, "ci_high": high}))
    menu: dict[str, object] = {
        "name": "Condition",
        "buttons": [
            {
                "label": escape(lines(condition, 24, 1)[0]),
                "method": "restyle",
                "args": [
                    {
                        "x": [rounded(value[i, :, k]) for k in range(len(checkpoints))],
                        "error_x.array": [rounded((high - value)[i, :, k]) for k in range(len(checkpoints))],
                        "error_x.arrayminus": [
                            rounded((value - low)[i, :, k]) for k in range(len(checkpoints))
                        ],
                        "hovertext": [[row[k] for row in hover[i]] for k in range(len(checkpoints))],
                    }
                ],
            }
            for i, condition in enumerate(conditions)
        ],
    }
    interval = shown.interval_words
    left_out = len(known) - len(labels)
    caption = (
        f"{'Share of images' if shown.is_proportion else 'Mean over images'} for each component, with a "
        f"{interval} for each checkpoint by itself, not for differences."
        if shown.is_per_image
        else "One value for each component, of the whole set of images."
    )
    if left_out:
        caption += (
            f" Of {len(known)} components these are the {len(labels)} whose mean is largest in absolute "
            "value under any condition, in the model's order."
        )
    return finish(
        figure,
        title=shown.title,
        subtitle=f"{shown.n_words(data)}; {f'bars: {interval}s' if interval else 'no interval is known'}",
        caption=caption + (f" {meaning}" if meaning else ""),
        plot_px=rows.plot_px,
        left_px=rows.label_px,
        legend=[wrap(checkpoint, 40) for checkpoint in checkpoints],
        menus=[menu] if len(conditions) > 1 else [],
        min_width_px=max(320, rows.label_px + 240),
    )


def _largest(size: np.ndarray) -> list[int]:
    """Places of the components that are largest anywhere, at most `N_MOST`, in their own order."""
    largest = np.nan_to_num(size, nan=-1.0).max((0, 2))
    return sorted(int(at) for at in np.argsort(-largest, kind="stable")[:N_MOST])
