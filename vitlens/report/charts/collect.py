"""All figures of a comparison, in the order in which a report shows them."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ..protocol import ComparisonLike
from .entropy import attention_entropy, attention_entropy_difference
from .features import feature_similarity
from .lens import first_correct_layer, lens_accuracy
from .maps import attention_maps
from .prediction import accuracy, correct_probability
from .reading import names
from .style import looks


def figures(comparison: ComparisonLike, summary: pd.DataFrame | None = None) -> dict[str, go.Figure]:
    """Draw every figure whose data are there.

    A checkpoint keeps its color, marker and dash in all of them. Each figure says in `layout.meta` its
    caption and the width below which it should scroll rather than shrink.

    Args:
        comparison: labelled values; no model is needed.
        summary: the rows of `comparison.summary()`, if they are known already; they mark what is significant.

    Returns:
        Name to figure, among `accuracy`, `correct_probability`, `first_correct_layer`, `lens_accuracy`,
        `attention_entropy`, `attention_entropy_difference`, `attention_maps` and `feature_similarity`.

    Example:
        >>> import types
        >>> import xarray as xr
        >>> data = xr.Dataset(
        ...     {"rank": (("checkpoint", "condition", "image"), [[[0, 3]], [[0, 0]]])},
        ...     coords={"checkpoint": ["base", "tuned"], "condition": ["clean"]},
        ... )
        >>> comparison = types.SimpleNamespace(
        ...     data=data, reference="base", examples=None, features=None, class_names=None, provenance={},
        ...     summary=pd.DataFrame,
        ... )
        >>> figures(comparison)["accuracy"].layout.title.text
        'Accuracy'
    """
    data = comparison.data
    if summary is None and "attention_entropy_nats" in data:
        summary = comparison.summary()
    drawn = {
        "accuracy": accuracy(data, comparison.class_names),
        "correct_probability": correct_probability(data),
        "first_correct_layer": first_correct_layer(data),
        "lens_accuracy": lens_accuracy(data),
        "attention_entropy": attention_entropy(data),
        "attention_entropy_difference": attention_entropy_difference(data, comparison.reference, summary),
        "attention_maps": attention_maps(comparison.examples, comparison.class_names),
        "feature_similarity": feature_similarity(comparison.features, looks(names(data, "checkpoint"))),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}
