"""The figures of a run: loss and learning rate by step, and what the evaluations found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from ..report.charts.style import (
    AXIS_PX,
    DASHES,
    LEGEND_ROW_PX,
    PALETTE,
    SYMBOLS,
    Look,
    columns_px,
    escape,
    finish,
    n_columns,
    wrap,
)

KINDS = ("clean", "seen", "seen at another strength", "of a seen family", "unseen")
"""How a condition of the evaluation stands to what was trained on; each kind has a color."""

N_POINTS = 2000
"""Single steps that are drawn at most; a longer run shows every second, third, ... of them."""

_N_BANDS = 6
"""Conditions whose intervals are drawn as bands; those of more would hide each other."""

_PLOT_PX = 300
_LEFT_PX = 84
_GAP_PX = 6  # between an axis' title and the legend
_LEGEND_COLUMNS = 30
_LEGEND_WIDTH_PX = 480  # in a narrower page the legend takes some of the panel's height


def figures(steps: pd.DataFrame, evaluations: pd.DataFrame, kinds: Mapping[str, str]) -> dict[str, go.Figure]:
    """The figures for which there are rows.

    Args:
        steps: the log's rows of kind "step".
        evaluations: its rows of kind "evaluation".
        kinds: condition -> one of `KINDS`; empty where what was trained on is not known.

    Returns:
        Name -> figure.
    """
    drawn: dict[str, go.Figure] = {}
    if len(steps):
        drawn["loss"] = _loss(steps)
        drawn["learning_rate"] = _learning_rate(steps)
    if len(evaluations):
        drawn["top1_accuracy"] = _by_condition(
            evaluations,
            kinds,
            ("top1_accuracy", "top1_low", "top1_high"),
            title="Top-1 accuracy",
            caption="Share of images whose class the model gets right",
            interval="Wilson's 95 % interval",
            axis="accuracy (%)",
            percent=True,
        )
        drawn["correct_probability"] = _by_condition(
            evaluations,
            kinds,
            ("correct_probability", "correct_probability_low", "correct_probability_high"),
            title="Probability of the correct class",
            caption="Mean over images of the probability that the model gives an image's own class",
            interval="Student's 95 % interval",
            axis="probability",
            percent=False,
        )
    ends = [
        end for rows in (steps, evaluations) if len(rows) for end in (rows["step"].min(), rows["step"].max())
    ]
    for figure in drawn.values():
        # One axis for all, so that what happened at a step stands at one place in every figure.
        air = max(0.02 * (max(ends) - min(ends)), 0.5)
        figure.update_xaxes(range=[min(ends) - air, max(ends) + air])
    return drawn


def smoothed(values: Float[np.ndarray, " step"], window: int) -> Float[np.ndarray, " step"]:
    """Centered moving mean; at both ends over as much of the window as there is.

    Args:
        values: one for each step; NaN is left out.
        window: steps that are averaged, an odd number.

    Returns:
        As many values; NaN where a window holds none.

    Example:
        >>> smoothed(np.array([0.0, 3.0, 6.0, 3.0]), 3)
        array([1.5, 3. , 4. , 4.5])
    """
    half = window // 2
    at = np.arange(len(values))
    first, last = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    finite = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(finite, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(finite)])
    with np.errstate(invalid="ignore"):
        return np.asarray((sums[last] - sums[first]) / (counts[last] - counts[first]))


def window_of(n_steps: int) -> int:
    """Steps over which a run's loss is smoothed: a fortieth of the run, an odd number, at least 5."""
    return max(5, n_steps // 40 | 1)


def _loss(steps: pd.DataFrame) -> go.Figure:
    at, loss = steps["step"].to_numpy(), steps["loss"].to_numpy(dtype=np.float64)
    window, every = window_of(len(at)), -(-len(at) // N_POINTS)
    look = Look(PALETTE[0], SYMBOLS[0], DASHES[0])
    figure = go.Figure()
    figure.add_scatter(
        x=at[::every],
        y=loss[::every],
        mode="markers",
        name="single steps",
        marker={"color": look.shade(0.3), "size": 5},
        hovertemplate="step %{x}: loss %{y:.4g}<extra></extra>",
    )
    figure.add_scatter(
        x=at[::every],
        y=smoothed(loss, window)[::every],
        mode=_line_of(len(at)),
        name="moving mean",
        line={"color": look.color, "width": 2},
        hovertemplate="step %{x}: moving mean %{y:.4g}<extra></extra>",
    )
    figure.update_yaxes(title="loss", zeroline=False)
    thinned = "" if every == 1 else f"; one in {every} is drawn"
    return _finished(
        figure,
        title="Loss",
        subtitle=f"moving mean over {window} steps; {len(at):,} step{'s' * (len(at) > 1)}{thinned}",
        caption="The training loss of each step, the mean over its images, before the step's update.",
        legend=["single steps", "moving mean"],
    )


def _learning_rate(steps: pd.DataFrame) -> go.Figure:
    every = -(-len(steps) // N_POINTS)
    rate = steps["learning_rate"].to_numpy(dtype=np.float64)
    top = float(rate.max())
    figure = go.Figure()
    figure.add_scatter(
        x=steps["step"].to_numpy()[::every],
        y=rate[::every],
        mode=_line_of(len(rate)),
        line={"color": PALETTE[0], "width": 2},
        hovertemplate="step %{x}: learning rate %{y:.3g}<extra></extra>",
    )
    # Plotly would write small numbers with prefixes or with powers, too wide for their margin.
    ticks = [0, top / 2, top]
    figure.update_yaxes(
        title="learning rate",
        range=[-0.05 * top, 1.08 * top],
        tickvals=ticks,
        ticktext=[f"{tick:.3g}" for tick in ticks],
        zeroline=False,
    )
    return _finished(
        figure,
        title="Learning rate",
        subtitle="",
        caption="The rate of each step; with layer decay, that of the topmost layer.",
        legend=[],
        plot_px=_PLOT_PX / 2,
    )


def _line_of(n_points: int) -> str:
    """How a line is drawn; one point has none."""
    return "lines" if n_points > 1 else "markers"


def _by_condition(
    evaluations: pd.DataFrame,
    kinds: Mapping[str, str],
    columns: tuple[str, str, str],
    *,
    title: str,
    caption: str,
    interval: str,
    axis: str,
    percent: bool,
) -> go.Figure:
    """A line with its band for each condition: its kind's color, its own dash and marker."""
    figure = go.Figure()
    scale, unit, digits = (100, " %", 1) if percent else (1, "", 3)
    looks = _looks(list(dict.fromkeys(evaluations["condition"])), kinds)
    entries = []
    for condition, look in looks.items():
        rows = evaluations[evaluations["condition"] == condition]
        at = rows["step"].to_numpy()
        value, low, high = (scale * rows[column].to_numpy(dtype=np.float64) for column in columns)
        known = np.isfinite(low) & np.isfinite(high)
        shared = {"legendgroup": condition, "x": at}
        if known.sum() > 1 and len(looks) <= _N_BANDS:
            figure.add_scatter(
                **{**shared, "x": np.concatenate([at[known], at[known][::-1]])},
                y=np.concatenate([low[known], high[known][::-1]]),
                mode="lines",
                line={"width": 0},
                fill="toself",
                fillcolor=look.shade(0.13),
                showlegend=False,
                hoverinfo="skip",
            )
        kind = f" ({kinds[condition]})" if kinds.get(condition, condition) != condition else ""
        entries.append(wrap(condition + kind, _LEGEND_COLUMNS))
        figure.add_scatter(
            **shared,
            y=value,
            mode="lines+markers",
            name=entries[-1],
            line={"color": look.color, "dash": look.dash, "width": 2},
            marker={"color": look.color, "symbol": look.symbol, "size": 7},
            # A band needs two places to span.
            error_y={"array": high - value, "arrayminus": value - low, "thickness": 1.5}
            if known.sum() == 1
            else None,
            hovertext=[
                f"<b>{escape(condition)}</b>{kind}<br>after {step:,} steps: {value[i]:.{digits}f}{unit}"
                + (f" [{low[i]:.{digits}f}, {high[i]:.{digits}f}]" if known[i] else "")
                + f"<br>{n:,} images"
                for i, (step, n) in enumerate(zip(at, rows["n_images"], strict=True))
            ],
            hoverinfo="text",
        )
    if percent:
        figure.update_yaxes(range=[-2, 102], dtick=25, tick0=0)
    else:
        figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title=axis, zeroline=False)
    n_images = sorted(set(evaluations["n_images"]))
    return _finished(
        figure,
        title=title,
        subtitle=f"{' or '.join(f'{n:,}' for n in n_images)} images per condition"
        + ("; bands: 95 % intervals" if len(looks) <= _N_BANDS else ""),
        caption=f"{caption}, with {interval} for each step by itself"
        + ("" if len(looks) <= _N_BANDS else ", which shows under the pointer")
        + ". The images are the same at "
        "every step, so a difference between steps is known better than two bands tell: see vitlens.compare.",
        legend=entries,
    )


def _looks(conditions: Sequence[str], kinds: Mapping[str, str]) -> dict[str, Look]:
    """A kind's conditions share its color; where kinds are not known, each condition has its own."""
    if not kinds:
        return {
            name: Look(PALETTE[i % len(PALETTE)], SYMBOLS[i % len(SYMBOLS)], DASHES[i % len(DASHES)])
            for i, name in enumerate(conditions)
        }
    found = {}
    for color, kind in zip(PALETTE, KINDS, strict=False):
        for i, name in enumerate(name for name in conditions if kinds[name] == kind):
            found[name] = Look(color, SYMBOLS[i % len(SYMBOLS)], DASHES[i % len(DASHES)])
    return found


def _finished(
    figure: go.Figure,
    *,
    title: str,
    subtitle: str,
    caption: str,
    legend: Sequence[str],
    plot_px: float = _PLOT_PX,
) -> go.Figure:
    figure.update_xaxes(title="steps made", zeroline=False, exponentformat="none", separatethousands=True)
    legend_px = LEGEND_ROW_PX * _n_lines(legend, _LEGEND_WIDTH_PX)
    finish(
        figure,
        title=title,
        subtitle=subtitle,
        caption=caption,
        plot_px=plot_px,
        left_px=_LEFT_PX,
        bottom_px=AXIS_PX + _GAP_PX + legend_px,
    )
    # Below, since how many rows it takes depends on the page's width: above, what it leaves free would gape.
    below = {"y": -(AXIS_PX + _GAP_PX) / plot_px, "yanchor": "top"}
    return figure.update_layout(showlegend=bool(legend), legend=below)


def _n_lines(entries: Sequence[str], width_px: float) -> int:
    """Lines that a horizontal legend takes, each entry as wide as its own text."""
    rows: list[int] = []
    used = math.inf
    for entry in entries:
        lines = entry.split("<br>")
        entry_px = 50 + columns_px(max(n_columns(line) for line in lines))
        if used + entry_px > width_px:
            rows.append(0)
            used = 0.0
        rows[-1] = max(rows[-1], len(lines))
        used += entry_px
    return sum(rows)
