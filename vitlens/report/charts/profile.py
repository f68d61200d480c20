"""Any variable over layers: a line for each checkpoint with its interval, a panel for each condition."""

from __future__ import annotations

import plotly.graph_objects as go
import xarray as xr

from ...comparison.words import kind_words
from .lines import AXIS_COLUMNS, PERCENT, draw_lines, line_grid
from .reading import names
from .style import escape, looks, tick_step, wrap
from .variables import KIND_DIMS, PLACE_DIMS, PLACE_WORDS, RUN_DIMS, Means, quantity


def profile(data: xr.Dataset, name: str) -> go.Figure:
    """Mean over images at each layer, with its interval; a statistic of the whole set as it is.

    Args:
        data: holds the variable (checkpoint, condition, image, layer or resid_layer), perhaps without images,
            and perhaps with a kind of token.
        name: of the variable.

    Returns:
        The figure, with a menu for the kind of token if there are several.
    """
    shown = quantity(data, name)
    place = next(dim for dim in PLACE_DIMS if dim in shown.values.dims)
    kind = next((dim for dim in KIND_DIMS if dim in shown.values.dims), None)
    kinds = [] if kind is None else [str(label) for label in data[kind].values]
    means = shown.means(*((kind,) if kind else ()), *RUN_DIMS[::-1], place)
    checkpoints = names(data, "checkpoint")
    grid = line_grid(names(data, "condition"))
    figure = grid.figure()
    n_traces = [0]
    for at in range(len(kinds) or 1):
        part = Means(*(values[at] for values in means)) if kinds else means
        draw_lines(
            figure,
            grid,
            part,
            looks=looks(checkpoints),
            place=place,
            places=data[place].values,
            number=shown.number,
            visible=at == 0,
            kind=str(kinds[at]) if kinds else "",
        )
        n_traces.append(len(figure.data))
    figure.update_xaxes(dtick=tick_step(data.sizes[place], 7), tick0=0, zeroline=False)
    # All panels have one range, and it follows what is seen.
    free = {"matches": "y", "nticks": 6, "rangemode": "normal" if (means.mean < 0).any() else "nonnegative"}
    figure.update_yaxes(zeroline=False, **(PERCENT if shown.is_proportion else free))
    figure.layout.yaxis.matches = None  # the first axis is the one that the others match
    grid.label(figure, x=place, y=shown.axis(AXIS_COLUMNS))
    menu: dict[str, object] = {
        "name": "Tokens",
        "buttons": [
            {
                "label": f"tokens: {escape(kind_words(label))}",
                "method": "update",
                "args": [
                    {"visible": [n_traces[at] <= i < n_traces[at + 1] for i in range(len(figure.data))]}
                ],
            }
            for at, label in enumerate(kinds)
        ],
    }
    interval = shown.interval_words
    where = PLACE_WORDS[place].format(last=data[place].values[-1])
    if shown.is_per_image:
        average = "Share of images" if shown.is_proportion else "Mean over images"
        caption = (
            f"{average} at {where}, with a {interval} for each checkpoint by itself, not for differences."
        )
    else:
        source = f", with a {interval} from its standard error" if interval else ""
        caption = f"One value for the whole set of images at {where}{source}."
    return grid.finish(
        figure,
        title=shown.title,
        subtitle=f"{shown.n_words(data)}; {f'bands: {interval}s' if interval else 'no interval is known'}"
        + (f"; tokens: {escape(kind_words(kinds[0]))}" if len(kinds) == 1 else ""),
        caption=caption,
        legend=[wrap(checkpoint, 40) for checkpoint in checkpoints],
        menus=[menu] if len(kinds) > 1 else [],
    )
