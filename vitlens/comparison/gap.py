"""What transplants say of two checkpoints: the share of their gap that each part closes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Float64, UInt8
from scipy import stats

from ..errors import ComparisonError
from ..names import nearest
from . import statistics
from .checks import check_dataset
from .metrics import SAMPLE_DIMS
from .ratios import gap_interval, percentiles, resampled_means

_METRICS = {"accuracy": "transplant_correct", "log_probability": "transplant_log_probability"}

_KINDS = {
    "resid": re.compile(r"\d+_resid_post"),
    "attn": re.compile(r"\d+_attn_out"),
    "mlp": re.compile(r"\d+_mlp_out"),
    "head": re.compile(r"L\d+H\d+"),
}
"""How the components of each kind are labelled, where there are several."""


def gap_closed(
    data: xr.Dataset,
    *,
    reference: str | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The share of the gap between two checkpoints that each part closes, when it is transplanted alone.

    The share is (T - R) / (D - R): R the reference as it is, D the checkpoint as it is, T the reference with
    one part of the checkpoint, each the mean over images. 0 where the part changes nothing, 1 where it brings
    the whole difference; shares of several parts need not add up, for parts work together. The interval
    resamples images, with R, D and T of an image together, and takes percentiles of the share. Where the
    interval of the gap D - R itself includes 0 there may be nothing to close: the share's interval is NaN.

    Args:
        data: of `run` with `Transplant`, dims checkpoint, condition, image, and that of the components.
        reference: the recipient; None takes the first checkpoint.
        level: confidence level of the intervals.
        n_resamples: bootstrap resamples.
        seed: states all of the randomness.

    Returns:
        One row for each condition, checkpoint but the reference, metric (`accuracy`, `log_probability`) and
        component: `value_reference`, `value` (of the checkpoint), `value_transplanted`, `gap_closed`,
        `ci_low`, `ci_high`, `gap`, `gap_ci_low`, `gap_ci_high`, `n`. Intervals of the gap are Tango's for
        accuracy, the bootstrap's for log-probabilities. An image that is NaN anywhere is left out.

    Raises:
        ComparisonError: the data hold no transplants, the reference is not their recipient, or a number is
            out of range.

    Example:
        >>> base, tuned = [[-3.0] * 3, [-2.0] * 3], [[-3.0, -1.0, -2.0], [-2.0, -1.0, -1.5]]
        >>> log_p = [[base * 4], [tuned * 4]]
        >>> data = xr.Dataset(
        ...     {"transplant_log_probability": (("checkpoint", "condition", "image", "component"), log_p)},
        ...     coords={
        ...         "checkpoint": ["base", "tuned"],
        ...         "condition": ["clean"],
        ...         "component": ["none", "all", "3_mlp_out"],
        ...     },
        ... )
        >>> gap_closed(data)[["checkpoint", "component", "gap_closed", "ci_low", "ci_high", "gap", "n"]]
          checkpoint  component  gap_closed  ci_low  ci_high  gap  n
        0      tuned  3_mlp_out         0.5     0.5      0.5  1.5  8
    """
    statistics.check_numbers(level, n_resamples, seed)
    check_dataset(data)
    values = {metric: data[name] for metric, name in _METRICS.items() if name in data}
    _check_there(values, "Transplant", data)
    recipient = _reference(data, reference)
    counts = statistics.resample_counts(data.sizes["image"], n_resamples, seed)
    rows = [
        _closed(part, metric, counts, level).assign(**where)
        for metric, variable in values.items()
        for where, part in _cells(_exact(variable, recipient), recipient)
    ]
    columns = ["condition", "checkpoint", "metric", "component", *_CLOSED]
    return _joined(rows, columns)


_CLOSED = (
    "value_reference",
    "value",
    "value_transplanted",
    "gap_closed",
    "ci_low",
    "ci_high",
    "gap",
    "gap_ci_low",
    "gap_ci_high",
    "n",
)


def patching_agreement(
    data: xr.Dataset,
    *,
    reference: str | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How well attribution patching tells what the exact transplants do.

    Both give each component a mean effect on the log-probability of the correct class, over images: the exact
    one T - R, and its first-order estimate. They are correlated over components. A correlation over all
    components leans on the kinds that do most, the residual stream's; look at each kind by itself.

    Args:
        data: of `run` with `Transplant` and `AttributionPatching`.
        reference: as for `gap_closed`.
        level: confidence level of the intervals, which resample images.
        n_resamples: bootstrap resamples.
        seed: states all of the randomness.

    Returns:
        One row for each condition, checkpoint but the reference, and kind of component (`all`, and of
        `resid`, `attn`, `mlp`, `head` those with three components or more): `n_components`, `pearson`,
        `pearson_ci_low`, `pearson_ci_high`, `spearman`, `spearman_ci_low`, `spearman_ci_high`, `n`. NaN
        where all effects of one side are equal.

    Raises:
        ComparisonError: the data lack one of the two, or share fewer than three components.

    Example:
        >>> exact = [[[[-3.0, -2.0, -1.0]]], [[[-3.0, -2.0, -1.0]]]]
        >>> labels = ["none", "all", "0_mlp_out", "1_mlp_out", "2_mlp_out"]
        >>> dims = ("checkpoint", "condition", "image", "component")
        >>> effects = np.tile([[0.0, 1.0, 0.0, 0.5, 1.0], [0.0, 1.0, 0.0, 0.4, 0.9]], (2, 1, 1, 1))
        >>> effects[0] = 0
        >>> data = xr.Dataset(
        ...     {
        ...         "transplant_log_probability": (dims, effects),
        ...         "attribution_patching": (dims, 2 * effects),
        ...     },
        ...     coords={"checkpoint": ["base", "tuned"], "condition": ["clean"], "component": labels},
        ... )
        >>> patching_agreement(data)[["checkpoint", "kind", "n_components", "pearson", "spearman", "n"]]
          checkpoint kind  n_components  pearson  spearman  n
        0      tuned  all             3      1.0       1.0  2
        1      tuned  mlp             3      1.0       1.0  2
    """
    statistics.check_numbers(level, n_resamples, seed)
    check_dataset(data)
    names = ("transplant_log_probability", "attribution_patching")
    found = {name: data[name] for name in names if name in data}
    _check_there(found if len(found) == len(names) else {}, "Transplant and AttributionPatching", data)
    recipient = _reference(data, reference)
    exact, estimates = _exact(found[names[0]], recipient), _ordered(found[names[1]])
    counts = statistics.resample_counts(data.sizes["image"], n_resamples, seed)
    estimated = {*map(str, estimates["component"].values)}
    both = [label for label in map(str, exact["component"].values) if label in estimated - {"none", "all"}]
    if len(both) < 3:
        raise ComparisonError(
            f"Transplant and AttributionPatching share {len(both)} components.",
            expected="three or more",
            remedy="Give both the same components=.",
        )
    rows = []
    for where, part in _cells(exact, recipient):
        effect = (part.sel(component=both) - part.sel(component="none")).values
        estimate = estimates.sel(where).sel(component=both).values
        rows += [
            pd.DataFrame([{"kind": kind} | row]).assign(**where)
            for kind, chosen in _kinds(both)
            for row in [_correlations(effect[:, chosen], estimate[:, chosen], counts, level)]
        ]
    columns = ["condition", "checkpoint", "kind", "n_components"]
    columns += [f"{name}{end}" for name in ("pearson", "spearman") for end in ("", "_ci_low", "_ci_high")]
    return _joined(rows, [*columns, "n"])


def _closed(
    part: xr.DataArray, metric: str, counts: UInt8[np.ndarray, "resample image"], level: float
) -> pd.DataFrame:
    """Rows of one condition and checkpoint."""
    labels = [label for label in part["component"].values if label not in ("none", "all")]
    before, after = (part.sel(component=label).values.astype(np.float64) for label in ("none", "all"))
    transplanted = part.sel(component=labels).values.astype(np.float64)
    is_paired = np.isfinite(np.column_stack([before, after, transplanted])).all(axis=1)
    every_gap = np.where(is_paired, after - before, np.nan)
    gap_low, gap_high = gap_interval(every_gap, counts, level, is_proportion=metric == "accuracy")
    counts = counts[:, is_paired]
    before, after, transplanted = before[is_paired], after[is_paired], transplanted[is_paired]
    gaps, closed = after - before, transplanted - before[:, None]
    drawn = resampled_means(np.column_stack([gaps, closed]), counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = closed.mean(axis=0) / gaps.mean() if len(gaps) else np.full(len(labels), np.nan)
        low, high = percentiles(drawn[:, 1:] / drawn[:, :1], level)
    is_open = gap_low > 0 or gap_high < 0
    mean = [values.mean() if len(values) else np.nan for values in (before, after, gaps)]
    return pd.DataFrame(
        {
            "metric": metric,
            "component": labels,
            "value_reference": mean[0],
            "value": mean[1],
            "value_transplanted": transplanted.mean(axis=0) if len(transplanted) else np.nan,
            "gap_closed": np.where(np.isfinite(share), share, np.nan),
            "ci_low": low if is_open else np.nan,
            "ci_high": high if is_open else np.nan,
            "gap": mean[2],
            "gap_ci_low": gap_low,
            "gap_ci_high": gap_high,
            "n": len(gaps),
        }
    )


def _correlations(
    effect: Float[np.ndarray, "image component"],
    estimate: Float[np.ndarray, "image component"],
    counts: UInt8[np.ndarray, "resample image"],
    level: float,
) -> dict[str, float]:
    """Over components, of the mean effects; with intervals over images."""
    is_known = np.isfinite(effect).all(axis=1) & np.isfinite(estimate).all(axis=1)
    effect, estimate = (values[is_known].astype(np.float64) for values in (effect, estimate))
    counts = counts[:, is_known]
    n = effect.shape[1]
    drawn = resampled_means(np.column_stack([effect, estimate]), counts)
    whole = np.concatenate([effect.mean(axis=0), estimate.mean(axis=0)])[None] if len(effect) else drawn[:1]
    row: dict[str, float] = {"n_components": n}
    for name, prepare in (("pearson", lambda x: x), ("spearman", lambda x: stats.rankdata(x, axis=1))):
        of_whole, of_drawn = (_rows_correlation(prepare(x[:, :n]), prepare(x[:, n:])) for x in (whole, drawn))
        low, high = percentiles(of_drawn[:, None], level)
        row |= {name: of_whole[0], f"{name}_ci_low": low[0], f"{name}_ci_high": high[0]}
    return row | {"n": len(effect)}


def _rows_correlation(
    left: Float64[np.ndarray, "row component"], right: Float64[np.ndarray, "row component"]
) -> Float64[np.ndarray, " row"]:
    """Pearson's correlation within each row; NaN where a row is constant."""
    left, right = (values - values.mean(axis=1, keepdims=True) for values in (left, right))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((left * right).sum(1) / np.sqrt((left**2).sum(1) * (right**2).sum(1)))


def _kinds(labels: Sequence[str]) -> Iterator[tuple[str, list[int]]]:
    """Which components are correlated together: all, and each kind that has three or more."""
    yield "all", list(range(len(labels)))
    for kind, pattern in _KINDS.items():
        chosen = [place for place, label in enumerate(labels) if pattern.fullmatch(label)]
        if len(chosen) >= 3:
            yield kind, chosen


def _cells(variable: xr.DataArray, reference: str) -> Iterator[tuple[dict[str, str], xr.DataArray]]:
    """Each condition and checkpoint but the reference, with its values [image component]."""
    for condition in variable["condition"].values:
        for checkpoint in variable["checkpoint"].values:
            where = {"condition": str(condition), "checkpoint": str(checkpoint)}
            if checkpoint != reference:
                yield where, variable.sel(where)


def _ordered(variable: xr.DataArray) -> xr.DataArray:
    """[checkpoint condition image component], whatever the axis of components is called."""
    further = [dim for dim in variable.dims if dim not in SAMPLE_DIMS]
    if len(further) != 1 or variable.ndim != len(SAMPLE_DIMS) + 1:
        raise ComparisonError(
            f"'{variable.name}' has the dims {', '.join(map(str, variable.dims))}.",
            expected=f"{', '.join(SAMPLE_DIMS)} and one of components",
            remedy="Run both checkpoints together: vl.run({'base': base, 'tuned': tuned}, ...).",
        )
    return variable.transpose(*SAMPLE_DIMS, *further).rename({further[0]: "component"})


def _exact(variable: xr.DataArray, reference: str) -> xr.DataArray:
    """Transplants, once it is sure that `reference` is what they were made into."""
    ordered = _ordered(variable)
    own = ordered.sel(checkpoint=reference)
    if not own.sel(component="none").equals(own.sel(component="all").assign_coords(component="none")):
        raise ComparisonError(
            f"'{reference}' is not what the parts were transplanted into.",
            expected="the recipient: the first checkpoint of the run",
            remedy="Leave reference= out, or run again with this checkpoint first.",
        )
    return ordered


def _reference(data: xr.Dataset, reference: str | None) -> str:
    checkpoints = [str(name) for name in data["checkpoint"].values] if "checkpoint" in data.dims else []
    if len(checkpoints) < 2:
        raise ComparisonError(
            f"The data have {len(checkpoints)} checkpoints.",
            expected="the recipient and one donor or more",
            remedy="Run both checkpoints together: vl.run({'base': base, 'tuned': tuned}, ...).",
        )
    if reference is not None and reference not in checkpoints:
        raise ComparisonError(
            f"reference is {reference!r}, which is no checkpoint of these data.",
            expected=f"one of: {', '.join(checkpoints)}",
            remedy=f"Nearest: {nearest(reference, checkpoints)}.",
        )
    return checkpoints[0] if reference is None else reference


def _check_there(found: object, who: str, data: xr.Dataset) -> None:
    if not found:
        raise ComparisonError(
            f"The data hold nothing of {who} (variables: {', '.join(map(str, data.data_vars)) or 'none'}).",
            expected=f"a run that {who} took part in",
            remedy=f"Add {who.replace(' and ', '() and ')}() to the analyses.",
        )


def _joined(rows: Sequence[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(rows, ignore_index=True)[columns]
