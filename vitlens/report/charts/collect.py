"""All figures of a comparison, in the order in which a report shows them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from ..measured import measured
from ..protocol import ComparisonLike, check_comparison
from .causal import (
    ESTIMATE,
    MEASURES,
    WHOLE_WORDS,
    components_of,
    gap_closed,
    is_in_block,
    patching_agreement,
)
from .components import components
from .entropy import VARIABLE as ENTROPY
from .entropy import attention_entropy, attention_entropy_difference
from .features import feature_similarity
from .heads import head_differences
from .lens import first_correct_layer, lens_accuracy
from .maps import attention_maps, maps
from .prediction import accuracy, correct_probability
from .profile import profile
from .reading import n_classes, names
from .sections import SECTIONS, section
from .spectra import corruption_spectra
from .style import looks
from .values import values
from .variables import IMAGE_DIMS, KIND_DIMS, MAP_DIMS, PLACE_DIMS, further_dims, is_drawable


def figures(comparison: ComparisonLike, summary: pd.DataFrame | None = None) -> dict[str, go.Figure]:
    """Draw every figure whose data are there.

    The study's own variables have figures of their own. Every other variable of numbers or Booleans gets one
    by its dims, under its own name, so an analysis of yours needs no code here:

    * (image): mean and interval for each condition and checkpoint;
    * (image, layer) or (image, resid_layer), or without image a statistic of the whole set: lines;
    * (image, layer, head): heat maps of the difference from the reference;
    * (image, and one dim of names, such as component): mean and interval of each;
    * (named_image, patch_row, patch_column), perhaps by layer and head: maps beside their pictures.

    The dims `query_kind` and `token_kind` may stand besides. The attributes `long_name` and `units` give
    title and axis, and `description` the definition that a page shows beside the figure. Class numbers
    (`label`, `predicted` and names that end so) have no mean and no figure.

    A checkpoint keeps its color, marker and dash in all of them. Each figure says in `layout.meta` its
    caption, its section, its variable, the rows that it was drawn from, and the width below which it should
    scroll rather than shrink.

    Args:
        comparison: labelled values; no model is needed.
        summary: the rows of `comparison.summary()`, if they are known already; they mark what is significant.

    Returns:
        Name to figure, section by section. Those with names of their own: `accuracy`, `correct_probability`,
        `first_correct_layer`, `lens_accuracy` (and those two of a tuned lens, with `tuned_` before),
        `attention_entropy`, `attention_entropy_difference`, `attention_maps`, `feature_similarity`,
        `transplant_gap`, `corruption_spectra`.

    Example:
        >>> import types
        >>> data = xr.Dataset(
        ...     {
        ...         "rank": (("checkpoint", "condition", "image"), [[[0, 3]], [[0, 0]]]),
        ...         "sparsity": (("checkpoint", "condition", "image", "layer"), np.ones((2, 1, 2, 3))),
        ...     },
        ...     coords={"checkpoint": ["base", "tuned"], "condition": ["clean"], "layer": [0, 1, 2]},
        ... )
        >>> comparison = types.SimpleNamespace(
        ...     data=data, reference="base", examples=None, features=None, class_names=None, provenance={},
        ...     summary=pd.DataFrame,
        ... )
        >>> {name: figure.layout.title.text for name, figure in figures(comparison).items()}
        {'accuracy': 'Accuracy', 'sparsity': 'Sparsity'}
    """
    check_comparison(comparison)
    data = comparison.data
    if summary is None and any({"layer", "head"} <= set(data[name].dims) for name in data):
        summary = comparison.summary()
    drawn: dict[str, list[tuple[str, go.Figure]]] = {heading: [] for heading in SECTIONS}
    done: set[str] = set()
    for name, variable, figure in _of_their_own(comparison, summary):
        if figure is not None:
            drawn[section(variable)].append((name, _of(variable, figure)))
            done.add(variable)
    for name in (str(name) for name in data if str(name) not in done):
        figure = _by_dims(data, name, comparison, summary)
        if figure is not None:
            drawn[section(name)].append((name, _of(name, figure)))
    for heading, found in drawn.items():
        for _, figure in found:
            figure.update_layout(meta={**figure.layout.meta, "section": heading})
    return {name: figure for found in drawn.values() for name, figure in found}


def _of(variable: str, figure: go.Figure) -> go.Figure:
    """The figure, saying which variable it shows."""
    return figure.update_layout(meta={**figure.layout.meta, "variable": variable})


def _of_their_own(
    comparison: ComparisonLike, summary: pd.DataFrame | None
) -> Iterator[tuple[str, str, go.Figure | None]]:
    """Figures made for one variable: name, the variable, the figure if its data are there."""
    data, reference = comparison.data, comparison.reference
    yield "accuracy", "rank", accuracy(data, n_classes(comparison))
    yield "correct_probability", "correct_probability", correct_probability(data)
    for before, lens in (("", "logit"), ("tuned_", "tuned")):
        first = f"{before}first_correct_layer"
        yield first, first, first_correct_layer(data, first, lens)
        yield f"{before}lens_accuracy", f"{before}lens_rank", lens_accuracy(data, f"{before}lens_rank", lens)
    yield "attention_entropy", ENTROPY, attention_entropy(data)
    yield "attention_entropy_difference", ENTROPY, attention_entropy_difference(data, reference, summary)
    yield "attention_maps", "attention_maps", attention_maps(comparison.examples, comparison.class_names)
    gap = gap_closed(data)
    if gap is not None:
        yield "transplant_gap", "transplant_gap", gap
        for name in (name for name in MEASURES if name in data):
            # The heat maps show what stands in a block; these show the rest.
            rest = [label for label in components_of(data, name) if not is_in_block(label)]
            yield name, name, components(data, name, only=rest, meaning=WHOLE_WORDS)
    yield ESTIMATE, ESTIMATE, patching_agreement(data)
    alike = feature_similarity(comparison.features, looks(names(data, "checkpoint")))
    yield "feature_similarity", "feature_similarity", alike
    yield "corruption_spectra", "corruption_spectra", corruption_spectra(measured(comparison.examples))


def _by_dims(
    data: xr.Dataset, name: str, comparison: ComparisonLike, summary: pd.DataFrame | None
) -> go.Figure | None:
    """The figure that fits a variable's dims; None where none does."""
    variable = data[name]
    is_error = name.endswith("_se") and name.removesuffix("_se") in data
    if is_error or not is_drawable(variable):
        return None
    further = set(further_dims(variable)) - set(KIND_DIMS)
    if set(MAP_DIMS) <= further:
        over = further - set(MAP_DIMS) - {"head"}
        is_map = len(over) <= 1 and over <= set(PLACE_DIMS) and set(variable.dims) & set(IMAGE_DIMS)
        return maps(data, name, comparison.examples, comparison.class_names) if is_map else None
    if "named_image" in variable.dims:
        return None
    if not further:
        return values(data, name)
    if further == {"layer", "head"}:
        return head_differences(data, name, comparison.reference, summary)
    if len(further) > 1:
        return None
    if further <= set(PLACE_DIMS):
        return profile(data, name)
    (dim,) = further
    is_named = dim in data.coords and not np.issubdtype(data[dim].dtype, np.number)
    has_kind = bool(set(KIND_DIMS) & set(variable.dims))
    return components(data, name) if is_named and not has_kind else None
