"""Figures of what the checkpoints predict: accuracy, and the probability of the correct class."""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

from .behind import grid_rows, keep
from .intervals import mean_and_t, wilson
from .reading import has, n_images, names
from .rows import PANEL_PX, Panel, Rows, dots, hover_head
from .style import columns_px, finish, looks, wrap

TOP_K = (1, 5, 10)
N_BINS = 20
_QUANTILES = (("quarter", 0.25), ("median", 0.5), ("three_quarters", 0.75))


def accuracy(data: xr.Dataset, n_classes: int | None) -> go.Figure | None:
    """Top-1, top-5 and top-10 accuracy of each checkpoint under each condition.

    Args:
        data: holds `rank` (checkpoint, condition, image), 0 for the top.
        n_classes: classes that the model tells apart; a top-k of all classes is left out. With None every k
            is shown.

    Returns:
        The figure; None without `rank`.
    """
    if not has(data, "rank"):
        return None
    conditions, checkpoints = names(data, "condition"), names(data, "checkpoint")
    rank = data["rank"].transpose("condition", "checkpoint", "image").values.astype(np.float64)
    n = np.isfinite(rank).sum(-1).astype(np.float64)
    panels = []
    for k in (k for k in TOP_K if n_classes is None or k < n_classes or k == 1):
        hits = (rank < k).sum(-1).astype(np.float64)
        low, high = wilson(hits, n)
        with np.errstate(invalid="ignore"):
            share = hits / n
        hover = [
            [
                f"{hover_head(name, condition)}<br>top-{k} accuracy {share[i, j]:.1%}"
                f" [{low[i, j]:.1%}, {high[i, j]:.1%}]<br>{hits[i, j]:.0f} of {n[i, j]:.0f} images"
                for j, name in enumerate(checkpoints)
            ]
            for i, condition in enumerate(conditions)
        ]
        panels.append(
            Panel(f"Top-{k}", "accuracy (%)", 100 * share, 100 * low, 100 * high, hover, limits=(0, 100))
        )
    rows = Rows(conditions, looks(checkpoints))
    several = " Top-k counts an image whose class is among the k most probable." if len(panels) > 1 else ""
    return finish(
        dots(rows, panels),
        title="Accuracy",
        subtitle=f"{n_images(data)} per condition; bars: 95 % Wilson intervals",
        caption="Share of images whose class the checkpoint gets right, with a 95 % Wilson interval for each "
        f"checkpoint by itself; the paired differences stand in the table.{several}",
        plot_px=rows.plot_px,
        left_px=rows.label_px,
        panel_title_lines=1,
        legend=[wrap(name, 40) for name in checkpoints],
        min_width_px=rows.label_px + PANEL_PX * len(panels) + 16,
    )


def correct_probability(data: xr.Dataset) -> go.Figure | None:
    """Distribution over images of the probability that a checkpoint gives the correct class.

    Drawn from a histogram, so that nothing is smoothed beyond 0 and 1 and the figure's size does not grow
    with the number of images.

    Args:
        data: holds `correct_probability` (checkpoint, condition, image).

    Returns:
        The figure; None without the variable.
    """
    if not has(data, "correct_probability"):
        return None
    conditions, checkpoints = names(data, "condition"), names(data, "checkpoint")
    values = (
        data["correct_probability"].transpose("condition", "checkpoint", "image").values.astype(np.float64)
    )
    mean, low, high, n = mean_and_t(values)
    rows = Rows(conditions, looks(checkpoints), lane_px=20)
    figure = rows.figure([""], ["probability of the correct class"])
    edges = np.linspace(0, 1, N_BINS + 1)
    for k, (name, look) in enumerate(rows.looks.items()):
        outline_x: list[float | None] = []
        outline_y: list[float | None] = []
        hover = []
        for i, condition in enumerate(conditions):
            kept = values[i, k][np.isfinite(values[i, k])]
            if not len(kept):
                hover.append("")
                continue
            counts, _ = np.histogram(np.clip(kept, 0, 1), bins=edges)
            half = 0.92 * rows.half_lane * counts / counts.max()
            middle = rows.place(i, k)
            steps = np.repeat(edges, 2)[1:-1]
            outline_x += [*steps, *steps[::-1], None]
            outline_y += [*(middle - np.repeat(half, 2)), *(middle + np.repeat(half, 2))[::-1], None]
            quarter, median, three = (_quantile(kept, q) for _, q in _QUANTILES)
            hover.append(
                f"{hover_head(name, condition)}<br>mean {mean[i, k]:.3f} [{low[i, k]:.3f}, {high[i, k]:.3f}]"
                f"<br>median {median:.3f}, quartiles {quarter:.3f} and {three:.3f}<br>{n[i, k]} images"
            )
        figure.add_scatter(
            x=outline_x,
            y=outline_y,
            mode="lines",
            line={"color": look.color, "width": 0.75, "simplify": False},
            fill="toself",
            fillcolor=look.shade(0.35),
            legendgroup=str(k),
            showlegend=False,
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=mean[:, k],
            y=rows.places(k),
            mode="markers",
            name=wrap(name, 40),
            legendgroup=str(k),
            marker={
                "color": look.color,
                "symbol": look.symbol,
                "size": 9,
                "line": {"color": "#FFFFFF", "width": 1},
            },
            hovertext=hover,
            hoverinfo="text",
        )
    axes = {"condition": conditions, "checkpoint": checkpoints}
    quantiles = {
        word: np.array([[_quantile(images, q) for images in of_condition] for of_condition in values])
        for word, q in _QUANTILES
    }
    keep(figure, grid_rows(axes, {"value": mean, "ci_low": low, "ci_high": high, **quantiles, "n": n}))
    figure.update_xaxes(range=[-0.01, 1.01])
    return finish(
        figure,
        title="Probability of the correct class",
        subtitle=f"{n_images(data)} per condition; markers: means",
        caption="How the probability that a checkpoint gives an image's own class is distributed "
        "over images: "
        f"histograms of {N_BINS} bins, each as high as its lane, with the mean as a marker.",
        plot_px=rows.plot_px,
        left_px=rows.label_px,
        legend=[wrap(name, 40) for name in checkpoints],
        min_width_px=max(320, rows.label_px + columns_px(24)),
    )


def _quantile(values: Float[np.ndarray, " image"], q: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, q)) if len(known) else math.nan
