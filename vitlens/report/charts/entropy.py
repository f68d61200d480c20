"""Heat maps of attention entropy by layer and head, and of its difference between checkpoints."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from .heads import head_axes, head_differences, only_kind
from .heatmaps import heatmaps
from .reading import has, image_mean, n_images

VARIABLE = "attention_entropy_nats"


def attention_entropy(data: xr.Dataset) -> go.Figure | None:
    """Mean attention entropy by layer and head, one panel for each checkpoint.

    Args:
        data: holds `attention_entropy_nats` (checkpoint, condition, image, layer, head, query_kind).

    Returns:
        The figure, with a menu for the kind of query and one for the condition; None without the variable.
    """
    if not has(data, VARIABLE):
        return None
    axes = head_axes(data[VARIABLE])
    return heatmaps(
        image_mean(data[VARIABLE]),
        axes,
        title="Attention entropy",
        subtitle=f"mean over {n_images(data)}, in nats{only_kind(data[VARIABLE], axes)}",
        caption="Shannon entropy of each query's attention, in nats, averaged over the queries of a kind and "
        "over images: low where a head looks at few tokens, high where it averages over many. A color means "
        "the same for every checkpoint and condition.",
        unit="nats",
        symmetric=False,
    )


def attention_entropy_difference(
    data: xr.Dataset, reference: str, summary: pd.DataFrame | None
) -> go.Figure | None:
    """Difference of attention entropy from the reference, by layer and head.

    Args:
        data: holds `attention_entropy_nats` (checkpoint, condition, image, layer, head, query_kind).
        reference: the checkpoint that is subtracted.
        summary: rows of metrics `attention_entropy_nats[kind]` mark the cells with an adjusted p below .05.

    Returns:
        The figure; None without the variable, or with the reference alone.
    """
    if not has(data, VARIABLE):
        return None
    return head_differences(
        data,
        VARIABLE,
        reference,
        summary,
        words="Attention entropy",
        meaning="red where attention has spread, blue where it has narrowed",
    )
