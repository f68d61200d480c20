"""Figures of the logit lens: where a prediction becomes right, and how right each layer is."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .intervals import mean_and_t, wilson
from .panels import Grid
from .reading import has, n_images, names
from .rows import PANEL_PX, Panel, Rows, dots, hover_head
from .style import escape, finish, looks, tick_step, wrap


def first_correct_layer(data: xr.Dataset) -> go.Figure | None:
    """Mean first correct layer of each checkpoint, beside the share of images that are never correct.

    An image that no layer gets right counts as one place beyond the last, as it does in the summary: left
    out, a checkpoint that loses its hardest images would seem to decide earlier.

    Args:
        data: holds `first_correct_layer` (checkpoint, condition, image), NaN where never, and an axis
            `resid_layer` or `layer`.

    Returns:
        The figure; None without the variable.
    """
    if "first_correct_layer" not in data or not {"layer", "resid_layer"} & set(data.sizes):
        return None
    conditions, checkpoints = names(data, "condition"), names(data, "checkpoint")
    first = (
        data["first_correct_layer"].transpose("condition", "checkpoint", "image").values.astype(np.float64)
    )
    beyond = _beyond(data)
    never = np.isnan(first)
    mean, low, high, n = mean_and_t(np.where(never, beyond, first))
    among = mean_and_t(first)[0]
    n_never = never.sum(-1).astype(np.float64)
    share = n_never / n
    share_low, share_high = wilson(n_never, n.astype(np.float64))
    hover = [
        [
            f"{hover_head(name, condition)}<br>mean first correct layer {mean[i, j]:.2f}"
            f" [{low[i, j]:.2f}, {high[i, j]:.2f}]<br>{among[i, j]:.2f} among images ever correct"
            f"<br>never correct: {n_never[i, j]:.0f} of {n[i, j]} images ({share[i, j]:.1%})"
            for j, name in enumerate(checkpoints)
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
        title="First correct layer",
        subtitle=f"{n_images(data)} per condition; bars: 95 % intervals",
        caption="First place on the residual stream (resid_layer: 0 enters the first block, "
        f"{beyond - 1} leaves the last) at which the logit lens ranks the correct class first. "
        "Images that are "
        f"never correct count as {beyond}; their share stands beside the mean.",
        plot_px=rows.plot_px,
        left_px=rows.label_px,
        panel_title_lines=1,
        legend=[wrap(name, 40) for name in checkpoints],
        min_width_px=rows.label_px + 1.15 * PANEL_PX * len(panels) + 16,
    )


def lens_accuracy(data: xr.Dataset) -> go.Figure | None:
    """Accuracy of the logit lens at each place on the residual stream; one panel for each condition.

    Args:
        data: holds `lens_rank` (checkpoint, condition, image, resid_layer), 0 for the top.

    Returns:
        The figure; None without the variable.
    """
    if not has(data, "lens_rank"):
        return None
    conditions, checkpoints = names(data, "condition"), names(data, "checkpoint")
    places = data["resid_layer"].values
    rank = data["lens_rank"].transpose("condition", "checkpoint", "resid_layer", "image").values
    n = np.isfinite(rank).sum(-1).astype(np.float64)
    hits = (rank == 0).sum(-1).astype(np.float64)
    low, high = wilson(hits, n)
    with np.errstate(invalid="ignore"):
        share = hits / n
    grid = Grid(conditions, n_columns=min(3, len(conditions)), panel_px=(190, 190))
    figure = grid.figure()
    for i, condition in enumerate(conditions):
        for k, (name, look) in enumerate(looks(checkpoints).items()):
            shared = {"legendgroup": str(k), **grid.place(i)}
            known = np.isfinite(share[i, k])
            figure.add_scatter(
                x=np.concatenate([places[known], places[known][::-1]]),
                y=100 * np.concatenate([low[i, k][known], high[i, k][known][::-1]]),
                mode="lines",
                line={"width": 0},
                fill="toself",
                fillcolor=look.shade(0.15),
                showlegend=False,
                hoverinfo="skip",
                **shared,
            )
            figure.add_scatter(
                x=places,
                y=100 * share[i, k],
                mode="lines+markers",
                name=wrap(name, 40),
                showlegend=i == 0,
                line={"color": look.color, "dash": look.dash, "width": 2},
                marker={"color": look.color, "symbol": look.symbol, "size": 6},
                hovertext=[
                    f"{hover_head(name, condition)}<br>resid_layer {escape(place)}: "
                    f"{share[i, k, at]:.1%} [{low[i, k, at]:.1%}, {high[i, k, at]:.1%}] of "
                    f"{n[i, k, at]:.0f} images"
                    for at, place in enumerate(places)
                ],
                hoverinfo="text",
                **shared,
            )
    figure.update_xaxes(dtick=tick_step(len(places)), tick0=0, zeroline=False)
    figure.update_yaxes(range=[-2, 102], dtick=25, tick0=0, zeroline=False)
    grid.label(figure, x="resid_layer", y="lens accuracy (%)")
    return finish(
        figure,
        title="Logit-lens accuracy by layer",
        subtitle=f"{n_images(data)} per condition; bands: 95 % Wilson intervals",
        caption="Share of images whose correct class comes first when the model's own final norm, "
        "pooling and head "
        "read the residual stream at each resid_layer; the last place is the model's own accuracy.",
        plot_px=grid.plot_px,
        left_px=grid.left_px,
        panel_title_lines=grid.title_lines,
        legend=[wrap(name, 40) for name in checkpoints],
        min_width_px=grid.min_width_px,
    )


def _beyond(data: xr.Dataset) -> int:
    """One place after the last on the residual stream, by whichever axis of layers the table has."""
    return data.sizes["resid_layer"] if "resid_layer" in data.sizes else data.sizes["layer"] + 1
