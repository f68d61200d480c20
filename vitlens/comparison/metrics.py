"""Per-image metrics: what a summary compares, derived from a comparison's data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from ..errors import ComparisonError

SAMPLE_DIMS = ("checkpoint", "condition", "image")
"""The dims that every metric has."""

_CELL_DIMS = ("layer", "head")
_NOT_METRICS = frozenset({"label", "predicted"})
"""Numbers that name classes: their mean says nothing."""

_STUDY = {
    "rank": ("share", "Share of images with the correct class among the {k} most probable."),
    "correct_probability": ("probability", "Probability that the model gives to the correct class."),
    "predicted_probability": ("probability", "Probability that the model gives to the class it predicts."),
    "entropy_nats": ("nats", "Entropy of the class probabilities: low where the model is certain."),
    "first_correct_layer": (
        "resid_layer",
        "First place on the residual stream at which the logit lens predicts the correct class; "
        "an image that it never gets right counts as one place after the last.",
    ),
    "last_change_layer": (
        "resid_layer",
        "Place on the residual stream from which on the logit lens's prediction no longer changes.",
    ),
    "attention_entropy_nats": (
        "nats",
        "Entropy of a head's attention: low where it looks at few tokens, high where it averages over many.",
    ),
}
"""The built-in analyses' variables in the order of a summary: unit, description."""


@dataclass(frozen=True, eq=False)
class Metric:
    """One number for each checkpoint, condition and image, or a map of them over layers and heads.

    Args:
        name: as it stands in the summary.
        unit: of the values; `"share"` for a proportion.
        description: one sentence, for reports.
        is_proportion: whether every value is 0, 1 or NaN.
        values: dims checkpoint, condition, image, then those of `layer` and `head` that it has.
        bound: the most by which one image's value can change; None where nobody has said.

    Example:
        >>> rank = xr.DataArray([[[0, 3]]], dims=["checkpoint", "condition", "image"])
        >>> metric = per_image_metrics(xr.Dataset({"rank": rank}))[0]
        >>> metric.name, metric.is_map, float(metric.values.mean())
        ('top1_accuracy', False, 0.5)
    """

    name: str
    unit: str
    description: str
    is_proportion: bool
    values: xr.DataArray
    bound: float | None = None

    @cached_property
    def reach(self) -> float:
        """The most by which one image's value can change: its bound, or else the range of all its values."""
        if self.bound is not None:
            return self.bound
        finite = self.values.values[np.isfinite(self.values.values)]
        return float(np.ptp(finite)) if finite.size else 0.0

    @property
    def is_map(self) -> bool:
        """Whether there is a value for each layer, each head or both."""
        return self.values.ndim > len(SAMPLE_DIMS)


def per_image_metrics(data: xr.Dataset, *, n_classes: int | None = None) -> list[Metric]:
    """All metrics that a comparison's data hold, in the order of a summary.

    The built-in analyses' come first. Then every other numeric variable is a metric of its own name if its
    dims beyond checkpoint, condition and image are among `layer`, `head` and `query_kind`; a Boolean one is a
    proportion, and the attributes `units` and `long_name` give unit and description. Each value of
    `query_kind` makes a metric of its own, `name[kind]`. Variables over `resid_layer` are no metrics here,
    since `layer` in a summary means a block.

    Args:
        data: variables with dims checkpoint, condition, image and possibly more.
        n_classes: classes that the model tells apart. Top-k accuracy is left out where k classes are all that
            there are; with None every k is kept.

    Returns:
        The metrics. `first_correct_layer` counts an image that the lens never gets right as `n_layers + 1`,
        one place after the last: leaving such images out would condition on the outcome. Their share stands
        beside it, `never_correct_share`. Images whose output or lens is no number, as after an overflow, are
        NaN in both, and in top-k accuracy.

    Raises:
        ComparisonError: two metrics have one name, or `first_correct_layer` comes without an axis of layers.

    Example:
        >>> gain = xr.DataArray([[[[0.5, 1.5]]]], dims=["checkpoint", "condition", "image", "head"])
        >>> [(metric.name, metric.is_map) for metric in per_image_metrics(xr.Dataset({"gain": gain}))]
        [('gain', True)]
    """
    names = [name for name in _STUDY if name in data] + [str(name) for name in data if name not in _STUDY]
    metrics = [metric for name in names for metric in _of_variable(name, data, n_classes)]
    name, count = Counter(metric.name for metric in metrics).most_common(1)[0] if metrics else ("", 0)
    if count > 1:
        raise ComparisonError(
            f"The data have {count} metrics of the name {name!r}.",
            expected="one variable for each metric",
            remedy="Rename the variable of your own analysis.",
        )
    return metrics


def _of_variable(name: str, data: xr.Dataset, n_classes: int | None) -> Iterator[Metric]:
    """The metrics that one variable gives: none, one, or several."""
    variable = data[name]
    further = set(map(str, variable.dims)) - set(SAMPLE_DIMS)
    is_numeric = np.issubdtype(variable.dtype, np.number) or variable.dtype == bool
    is_sampled = set(SAMPLE_DIMS) <= set(variable.dims)
    if name in _NOT_METRICS or not is_numeric or not is_sampled or not further <= {*_CELL_DIMS, "query_kind"}:
        return
    unit, description = _STUDY.get(name, _described(variable))

    if name == "rank":
        for k in (1, 5, 10):
            if n_classes is None or k < n_classes:
                values = (variable < k).where(variable.notnull())
                yield _metric(f"top{k}_accuracy", unit, description.format(k=k), values, is_proportion=True)
    elif name.endswith("first_correct_layer"):
        after_last = _n_layers(data) + 1
        lens = name.removesuffix("first_correct_layer")
        # NaN is never, but where the lens itself said nothing.
        said = data.get(f"{lens}lens_rank")
        known = True if said is None or "resid_layer" not in said.dims else said.notnull().all("resid_layer")
        first = variable.fillna(after_last).where(known)
        yield _metric(name, unit, description, first, bound=after_last)
        never = f"Share of images that the {lens.replace('_', ' ') or 'logit '}lens gets right at no place."
        yield _metric(
            f"{lens}never_correct_share", "share", never, variable.isnull().where(known), is_proportion=True
        )
    elif "query_kind" in further:
        for kind in variable["query_kind"].values:
            part = variable.sel(query_kind=kind, drop=True)
            text = f"{description} Queries: {kind}."
            yield _metric(f"{name}[{kind}]", unit, text, part, is_proportion=variable.dtype == bool)
    else:
        yield _metric(name, unit, description, variable, is_proportion=variable.dtype == bool)


def _metric(
    name: str,
    unit: str,
    description: str,
    values: xr.DataArray,
    *,
    is_proportion: bool = False,
    bound: float | None = None,
) -> Metric:
    ordered = values.transpose(*SAMPLE_DIMS, *_CELL_DIMS, missing_dims="ignore")
    if is_proportion or unit in ("share", "probability"):
        bound = 1.0
    return Metric(name, unit, description, is_proportion, ordered, bound)


def _described(variable: xr.DataArray) -> tuple[str, str]:
    unit = "share" if variable.dtype == bool else ""
    return str(variable.attrs.get("units", unit)), str(variable.attrs.get("long_name", f"{variable.name}."))


def _n_layers(data: xr.Dataset) -> int:
    """Blocks of the model, by whichever axis of layers the data have."""
    if "resid_layer" in data.sizes:
        return data.sizes["resid_layer"] - 1
    if "layer" in data.sizes:
        return data.sizes["layer"]
    raise ComparisonError(
        "The data have first_correct_layer but no axis of layers, so n_layers is unknown.",
        expected="a dimension resid_layer or layer",
        remedy="Keep lens_rank beside it, or give the data the coordinate resid_layer.",
    )
