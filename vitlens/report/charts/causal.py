"""Figures of transplants: the share of a gap that each part closes, and how well gradients tell it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from ...comparison import gap
from .behind import array_rows, keep
from .heatmaps import Axes, heatmaps
from .panels import Grid
from .reading import clean_first, image_mean, n_images, names
from .rows import hover_head
from .style import NEUTRAL, escape, looks, wrap
from .variables import further_dims, known_labels

MEASURES = {"transplant_correct": "accuracy", "transplant_log_probability": "log_probability"}
ESTIMATE = "attribution_patching"
EXACT = "transplant_log_probability"
RECIPIENT, DONOR = "none", "all"
WHOLE_WORDS = (
    "none is the reference as it is and all the checkpoint as it is; feature is the checkpoint's feature "
    "under the reference's classifier, and classifier the other way round. The reference put "
    "into itself changes nothing."
)

_IN_BLOCK = re.compile(r"(?P<layer>\d+)_(?P<part>\w+)|L(?P<of_head>\d+)H(?P<head>\d+)")


def is_in_block(component: object) -> bool:
    """Whether a component's label names a part of a block.

    Example:
        >>> is_in_block("3_mlp_out"), is_in_block("L3H0"), is_in_block("classifier")
        (True, True, False)
    """
    return _IN_BLOCK.fullmatch(str(component)) is not None


def components_of(data: xr.Dataset, name: str) -> list[str]:
    """The components of a variable that has a value an image and component; empty for any other."""
    further = further_dims(data[name]) if name in data else ()
    if len(further) != 1 or "image" not in data[name].dims:
        return []
    return [str(label) for label in known_labels(data[name], further[0])]


def gap_closed(data: xr.Dataset) -> go.Figure | None:
    """Share of the gap between two checkpoints that each transplanted part of a block closes, by layer.

    The recipient is the first checkpoint, as `Transplant` has it.

    Args:
        data: holds `transplant_correct` or `transplant_log_probability` (checkpoint, condition, image, and
            one dim of components, `none` and `all` among them).

    Returns:
        The figure, with menus for the measure and for the condition; None without transplants, or where no
        gap is told from 0.
    """
    if not _transplanted(data) or data.sizes["checkpoint"] < 2:
        return None
    table = gap.gap_closed(data)
    table = table[table["component"].map(is_in_block) & table["ci_low"].notna()]
    if not len(table):
        return None
    table = table.assign(**{axis: [_place(label)[axis] for label in table["component"]] for axis in _PLACE})
    order: dict[str, list[Any]] = {
        "measure": [measure for measure in MEASURES.values() if measure in {*table["metric"]}],
        "condition": names(data, "condition"),
        "checkpoint": names(data, "checkpoint")[1:],
        "layer": sorted(table["layer"].unique()),
        "part": list(dict.fromkeys(table["part"])),
    }
    rows = table.rename(columns={"metric": "measure"}).set_index(list(order))
    cells = pd.MultiIndex.from_product(list(order.values()), names=list(order))
    share, low, high = (
        100 * rows[column].reindex(cells).to_xarray().sel(order)
        for column in ("gap_closed", "ci_low", "ci_high")
    )
    recipient = names(data, "checkpoint")[0]
    return heatmaps(
        share,
        Axes("measure", "layer", "part", lambda measure: f"gap in {measure.replace('_', '-')}"),
        title="Share of the gap that a transplant closes",
        subtitle=f"ratio of means over {n_images(data)}, in percent; 95 % bootstrap interval at the pointer",
        caption=f"Each cell puts one part of the checkpoint into {recipient} and says how much of the "
        f"difference between the two this makes: at 0 % {recipient} stays as it is, at 100 % it becomes as "
        "good as the checkpoint, below 0 it moves away. resid is the whole stream after the block, attn and "
        "mlp what one branch adds, H0 one head. A triangle points up above 0 and down below. A panel is "
        "empty where the gap's own 95 % interval holds 0: a share of nothing means nothing.",
        unit="% of gap",
        symmetric=True,
        interval=(low, high),
        empty="The gap is not told from 0.",
    )


def patching_agreement(data: xr.Dataset) -> go.Figure | None:
    """The first-order estimate of each transplant's effect against the effect itself.

    Args:
        data: holds `attribution_patching` and `transplant_log_probability` (checkpoint, condition, image, and
            one dim of components each).

    Returns:
        The figure, one panel for each condition; None unless both are there with three components in common.
    """
    known = {*components_of(data, EXACT)} - {RECIPIENT, DONOR}
    labels = [label for label in components_of(data, ESTIMATE) if label in known]
    look = dict(list(looks(names(data, "checkpoint")).items())[1:])
    if EXACT not in _transplanted(data) or len(labels) < 3 or not look:
        return None
    agreement = gap.patching_agreement(data)
    agreement = agreement[agreement["kind"] == "all"].set_index(["condition", "checkpoint"])
    (exact_dim,), (estimate_dim,) = further_dims(data[EXACT]), further_dims(data[ESTIMATE])
    effects = data[EXACT].sel({exact_dim: labels}) - data[EXACT].sel({exact_dim: RECIPIENT}, drop=True)
    x, y = image_mean(effects), image_mean(data[ESTIMATE].sel({estimate_dim: labels}))
    conditions = clean_first(names(data, "condition"))
    titles = [
        f"r = {' / '.join(_r(agreement.loc[condition, name], len(look)) for name in look)}, {condition}"
        for condition in conditions
    ]
    grid = Grid(titles, n_columns=min(3, len(titles)), panel_px=(200, 200))
    figure = grid.figure()
    shown = np.concatenate([part.sel(checkpoint=list(look)).values.ravel() for part in (x, y)])
    shown = shown[np.isfinite(shown)]
    ends = np.array([shown.min(initial=0.0), shown.max(initial=0.0)])
    ends += np.array([-0.04, 0.04]) * ((ends[1] - ends[0]) or 1.0)
    for i, condition in enumerate(conditions):
        figure.add_scatter(
            x=ends,
            y=ends,
            mode="lines",
            line={"color": NEUTRAL, "width": 1, "dash": "dot"},
            showlegend=False,
            hoverinfo="skip",
            **grid.place(i),
        )
        for k, (name, one) in enumerate(look.items()):
            effect, estimate = (part.sel(condition=condition, checkpoint=name).values for part in (x, y))
            head = f"{hover_head(name, condition)}<br>r = {_r(agreement.loc[condition, name], 1)}"
            figure.add_scatter(
                x=effect,
                y=estimate,
                mode="markers",
                name=wrap(name, 40),
                legendgroup=str(k),
                showlegend=i == 0,
                marker={"color": one.color, "symbol": one.symbol, "size": 7, "opacity": 0.75},
                hovertext=[
                    f"{head}<br>{escape(label)}: effect {effect[at]:.4g}, estimate {estimate[at]:.4g} nats"
                    for at, label in enumerate(labels)
                ],
                hoverinfo="text",
                **grid.place(i),
            )
    dims = ("condition", "checkpoint", "component")
    of_effect, of_estimate = (
        part.rename({dim: "component"}).sel(condition=conditions, checkpoint=list(look)).transpose(*dims)
        for part, dim in ((x, exact_dim), (y, estimate_dim))
    )
    keep(figure, array_rows({"effect_nats": of_effect, "estimate_nats": of_estimate}))
    figure.update_xaxes(range=list(ends), nticks=5)
    figure.update_yaxes(range=list(ends), nticks=5)
    grid.label(figure, x="effect (nats)", y="estimate (nats)")
    several = (
        "r in the legend's order, its interval at the pointer" if len(look) > 1 else "r with its interval"
    )
    return grid.finish(
        figure,
        title="Attribution patching against the transplant itself",
        subtitle=f"a point for each of {len(labels)} components; means over {n_images(data)}; {several}",
        caption="Change of the correct class's log-probability when one component of the checkpoint is put "
        "into the reference: what a gradient says beforehand, against what happens. On the dotted line both "
        "agree. r is Pearson's correlation over components, with a 95 % bootstrap interval over images; it "
        "leans on the components that do most.",
        legend=[wrap(name, 40) for name in look],
    )


_PLACE = ("layer", "part")


def _place(label: str) -> dict[str, int | str]:
    """Layer and part of a component inside a block."""
    found = _IN_BLOCK.fullmatch(label)
    assert found is not None
    if found["head"]:
        return {"layer": int(found["of_head"]), "part": f"H{found['head']}"}
    part = found["part"].removesuffix("_post").removesuffix("_out")
    return {"layer": int(found["layer"]), "part": part}


def _transplanted(data: xr.Dataset) -> list[str]:
    """The variables that tell of transplants: of parts, beside the recipient and the donor."""
    found = {name: components_of(data, name) for name in MEASURES}
    return [name for name, labels in found.items() if {RECIPIENT, DONOR} < {*labels}]


def _r(row: Any, n_others: int) -> str:
    """A correlation, with its interval where there is room."""
    value, low, high = (
        f"{row[name]:.2f}".replace("-", "−") for name in ("pearson", "pearson_ci_low", "pearson_ci_high")
    )
    if not np.isfinite(row["pearson"]):
        return "–"
    return value if n_others > 1 or not np.isfinite(row["pearson_ci_low"]) else f"{value} [{low}, {high}]"
