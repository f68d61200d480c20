"""Figures of the logit lens: where a prediction becomes right, and how right each layer is."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .intervals import mean_and_t, wilson
from .lines import PERCENT, draw_lines, line_grid
from .reading import has, n_images, names
from .rows import PANEL_PX, Panel, Rows, dots, hover_head
from .style import escape, finish, looks, tick_step, wrap
from .variables import Means


def first_correct_layer(
    data: xr.Dataset, name: str = "first_correct_layer", lens: str = "logit"
) -> go.Figure | None:
    """Mean first correct layer of each checkpoint, beside the share of images that are never correct.

    An image that no layer gets right counts as one place beyond the last, as it does in the summary: left
    out, a checkpoint that loses its hardest images would seem to decide earlier.

    Args:
        data: holds the variable (checkpoint, condition, image), NaN where never, and an axis `resid_layer` or
            `layer`.
        name: of the variable.
        lens: which lens it is: logit, tuned.

    Returns:
        The figure; None without the variable.
    """
    if name not in data or not {"layer", "resid_layer"} & set(data.sizes):
        return None
    conditions, checkpoints = names(data, "condition"), names(data, "checkpoint")
    first = data[name].transpose("condition", "checkpoint", "image").values.astype(np.float64)
    beyond = _beyond(data)
    never = np.isnan(first)
    said = data.get(name.replace("first_correct_layer", "lens_rank"))
    if said is not None and {"image", "resid_layer"} <= {*said.dims}:
        # Where the lens said nothing, as after an overflow, it was not wrong either.
        silent = said.isnull().any("resid_layer").transpose("condition", "checkpoint", "image").values
        never &= ~silent
    mean, low, high, n = mean_and_t(np.where(never, beyond, first))
    among = mean_and_t(first)[0]
    n_never = never.sum(-1).astype(np.float64)
    with np.errstate(invalid="ignore"):  # where no image is known
        share = n_never / n
    share_low, share_high = wilson(n_never, n.astype(np.float64))
    hover = [
        [
            f"{hover_head(checkpoint, condition)}<br>mean first correct layer {mean[i, j]:.2f}"
            f" [{low[i, j]:.2f}, {high[i, j]:.2f}]<br>{among[i, j]:.2f} among images ever correct"
            f"<br>never correct: {n_never[i, j]:.0f} of {n[i, j]} images ({share[i, j]:.1%})"
            for j, checkpoint in enumerate(checkpoints)
        ]
        for i, condition in enumerate(conditions)
    ]
    rows = Rows(conditions, looks(checkpoints))
    panels = [
        Panel("Mean first correct layer", "resid_layer", mean, low, high, hover, limits=(0, beyond)),
        Panel(
            "Never correct",
            "share of images (%)",
            100 * share,
            100 * share_low,
            100 * share_high,
            hover,
            limits=(0, 100),
        ),
    ]
    return finish(
        dots(rows, panels),
        title="First correct layer" + ("" if lens == "logit" else f" of the {escape(lens)} lens"),
        subtitle=f"{n_images(data)} per condition; bars: 95 % intervals",
        caption="First place on the residual stream (resid_layer: 0 enters the first block, "
        f"{beyond - 1} leaves the last) at which the {lens} lens ranks the correct class first. "
        f"Images that are never correct count as {beyond}; their share stands beside the mean.",
        plot_px=rows.plot_px,
        left_px=rows.label_px,
        panel_title_lines=1,
        legend=[wrap(checkpoint, 40) for checkpoint in checkpoints],
        min_width_px=rows.label_px + 1.15 * PANEL_PX * len(panels) + 16,
    )


def lens_accuracy(data: xr.Dataset, name: str = "lens_rank", lens: str = "logit") -> go.Figure | None:
    """Accuracy of a lens at each place on the residual stream; one panel for each condition.

    Args:
        data: holds the variable (checkpoint, condition, image, resid_layer), 0 for the top.
        name: of the variable.
        lens: which lens it is: logit, tuned.

    Returns:
        The figure; None without the variable.
    """
    if not has(data, name):
        return None
    checkpoints = names(data, "checkpoint")
    places = data["resid_layer"].values
    rank = data[name].transpose("condition", "checkpoint", "resid_layer", "image").values
    n = np.isfinite(rank).sum(-1).astype(np.float64)
    hits = (rank == 0).sum(-1).astype(np.float64)
    low, high = wilson(hits, n)
    with np.errstate(invalid="ignore"):
        share = hits / n
    grid = line_grid(names(data, "condition"))
    figure = grid.figure()
    draw_lines(
        figure,
        grid,
        Means(100 * share, 100 * low, 100 * high, n),
        looks=looks(checkpoints),
        place="resid_layer",
        places=places,
        number=lambda percent: f"{percent:.1f} %",
    )
    figure.update_xaxes(dtick=tick_step(len(places), 7), tick0=0, zeroline=False)
    figure.update_yaxes(zeroline=False, **PERCENT)
    grid.label(figure, x="resid_layer", y="lens accuracy (%)")
    reads = "" if lens == "logit" else ", through the lens's own translation of that layer"
    return grid.finish(
        figure,
        title=f"{escape(lens.capitalize())}-lens accuracy by layer",
        subtitle=f"{n_images(data)} per condition; bands: 95 % Wilson intervals",
        caption="Share of images whose correct class comes first when the model's own final norm, pooling "
        f"and head read the residual stream at each resid_layer{reads}; the last place is the model's own "
        "accuracy.",
        legend=[wrap(checkpoint, 40) for checkpoint in checkpoints],
    )


def _beyond(data: xr.Dataset) -> int:
    """One place after the last on the residual stream, by whichever axis of layers the table has."""
    return data.sizes["resid_layer"] if "resid_layer" in data.sizes else data.sizes["layer"] + 1
