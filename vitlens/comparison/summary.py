"""The summary table: every metric's paired difference, its interval, p-value and verdict."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange
from jaxtyping import Float64, Int8, UInt8

from . import statistics
from .checks import check_dims, check_known, check_margins
from .effects import cohens_g, d_z
from .metrics import Metric, per_image_metrics
from .pools import check_pools, pooled

PRIMARY = ("top1_accuracy", "correct_probability", "first_correct_layer")
"""The metrics whose p-values are adjusted together unless the caller declares others."""

COLUMNS: dict[Hashable, Any] = {
    "metric": str,
    "condition": str,
    "layer": "Int64",
    "head": "Int64",
    "reference": str,
    "checkpoint": str,
    "value_reference": "float64",
    "value": "float64",
    "difference": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "p_adjusted": "float64",
    "margin": "float64",
    "verdict": str,
    "n": "int64",
    "effect_size": "float64",
    "effect_size_kind": str,
}
"""Of a summary, and their types."""

_COLUMNS_AT_ONCE = 1024
"""Differences' columns held at once; bounds the memory of maps over many layers, heads and conditions."""


def summarize(
    data: xr.Dataset,
    *,
    reference: str | None = None,
    n_classes: int | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
    margins: Mapping[str, float] | None = None,
    primary: Sequence[str] | None = None,
    pools: Mapping[str, Sequence[str]] | None = None,
    pools_only: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """One row for each metric, condition and checkpoint other than the reference; of a map, for each cell.

    Everything is paired over images. An image that is NaN in either checkpoint is left out of that row, and
    `n` says how many remain. Intervals are not adjusted: Tango's score interval for proportions, the
    bootstrap elsewhere, carried on where differences are skewed or few images change (`mean_interval`).

    A pool of conditions is a condition of its own, whose rows stand after the others of each metric. An
    image's value under it is its mean over the pool's conditions, so that each image counts once; one that is
    NaN under any of them is left out. A mean of several answers is no proportion, and is treated as any other
    mean.

    p-values are adjusted within two kinds of family, and alpha is 1 - `level` for each family:

    * the primary metrics, over all conditions, pools and checkpoints together, by Holm: exact McNemar for
      proportions, the studentized sign-flip test elsewhere;
    * each map over layers and heads, for one metric, condition and checkpoint, by max-T.

    Other scalar metrics are exploratory: their intervals are shown, `p_adjusted` is NaN, and they are never
    called changed. Declare a metric primary, before seeing the data, to test it.

    `verdict` is `"equivalent"` where a margin was given and the row's interval lies inside it, with room for
    larger changes than were seen (`missed_change`); otherwise `"changed"` where
    `p_adjusted` is below alpha; otherwise `"undecided"`. A difference can be both real and smaller than the
    margin: then it is equivalent, for the margin says that differences of its size do not matter. Verdicts of
    equivalence each err with probability alpha; they are not adjusted.

    Args:
        data: per-image values with dims checkpoint, condition, image and possibly layer, head, query_kind.
        reference: the checkpoint to compare the others with; None takes the first.
        n_classes: classes that the model tells apart; top-k accuracy needs more than k.
        n_resamples: bootstrap resamples, and as many sign flips.
        level: confidence level of the intervals.
        margins: metric to the largest difference, in the metric's unit, that counts as none.
        primary: scalar metrics tested together; None takes those of `PRIMARY` that the data have.
        pools: name -> conditions to be taken together, such as those that training has seen.
        pools_only: leave out the single conditions, from the rows and from the families of tests.
        seed: states all of the randomness.

    Returns:
        Columns metric, condition, layer, head, reference, checkpoint, value_reference, value, difference
        (value - value_reference), ci_low, ci_high, p_adjusted, margin, verdict, n, effect_size,
        effect_size_kind (`d_z` of means, `cohens_g` of proportions; see `effects`). `layer` and `head` are
        NA for scalar metrics, `margin` is NaN where none was given. `attrs["level"]` is `level`,
        `attrs["pools"]` the pools.

    Raises:
        ComparisonError: the data have no images, `reference`, a margin's metric, a primary metric or a
            pool's condition is not there, a pool is called like a condition, or a number is out of range.

    Example:
        >>> correct = [[[0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.2]], [[0.6, 0.8, 0.7, 0.8, 0.6, 0.5, 0.8]]]
        >>> data = xr.Dataset(
        ...     {"correct_probability": (("checkpoint", "condition", "image"), correct)},
        ...     coords={"checkpoint": ["base", "tuned"], "condition": ["clean"]},
        ... )
        >>> table = summarize(data)
        >>> table[["metric", "difference", "verdict", "n"]].round(2)
                        metric  difference  verdict  n
        0  correct_probability        0.51  changed  7
    """
    check_dims(data)
    metrics = per_image_metrics(data, n_classes=n_classes)
    checkpoints = [str(name) for name in data["checkpoint"].values]
    scalars = [metric.name for metric in metrics if not metric.is_map]
    reference = checkpoints[0] if reference is None else reference
    primary = [name for name in PRIMARY if name in scalars] if primary is None else primary
    margins = {} if margins is None else margins
    check_known([reference], "reference", "checkpoint", checkpoints)
    check_known(primary, "primary", "scalar metric", scalars)
    check_margins(margins)
    check_known(margins, "margins", "metric", [metric.name for metric in metrics])
    statistics.check_numbers(level, n_resamples, seed)
    conditions = [str(name) for name in data["condition"].values]
    together = check_pools({} if pools is None else pools, conditions, only=pools_only)

    plan = _Plan(
        checkpoints=checkpoints,
        reference=reference,
        counts=statistics.resample_counts(data.sizes["image"], n_resamples, seed),
        flips=statistics.sign_flips(data.sizes["image"], n_resamples, seed),
        level=level,
        margins=margins,
        primary=frozenset(primary),
    )
    # With the reference alone there is nothing to compare, and no row.
    compared = metrics if len(checkpoints) > 1 else []
    rows = [
        _rows(under, part, plan)
        for metric in compared
        for under in (
            *([] if pools_only else [metric]),
            *(pooled(metric, *pool) for pool in together.items()),
        )
        for part in _parts(under.values)
    ]
    table = (
        pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=[*COLUMNS, "p", "is_equivalent"])
    )

    is_primary = table["metric"].isin(plan.primary)
    p = table["p"].to_numpy(dtype=np.float64)
    table["p_adjusted"] = np.where(is_primary, statistics.holm(np.where(is_primary, p, np.nan)), p)
    table["verdict"] = np.select(
        [table["is_equivalent"].to_numpy(dtype=bool), table["p_adjusted"].to_numpy() < plan.alpha],
        ["equivalent", "changed"],
        default="undecided",
    )
    table = table.reindex(columns=list(COLUMNS)).astype(COLUMNS)
    table.attrs["level"] = level
    table.attrs["pools"] = together
    return table


@dataclass(frozen=True)
class _Plan:
    """What every row is computed with."""

    checkpoints: Sequence[str]
    reference: str
    counts: UInt8[np.ndarray, "resample image"]
    flips: Int8[np.ndarray, "flip image"]
    level: float
    margins: Mapping[str, float]
    primary: Set[str]

    @property
    def alpha(self) -> float:
        """1 - `level`, without the rounding that would call a p of just 0.05 smaller than it."""
        return round(1 - self.level, 12)


def _parts(values: xr.DataArray) -> Iterator[xr.DataArray]:
    """The conditions in runs of about `_COLUMNS_AT_ONCE` columns."""
    n_columns = math.prod(size for dim, size in values.sizes.items() if dim not in ("condition", "image"))
    step = max(1, _COLUMNS_AT_ONCE // n_columns)
    for start in range(0, values.sizes["condition"], step):
        yield values.isel(condition=slice(start, start + step))


def _rows(metric: Metric, values: xr.DataArray, plan: _Plan) -> pd.DataFrame:
    """Rows of one metric under some conditions; p-values of scalar metrics are not adjusted yet."""
    place = plan.checkpoints.index(plan.reference)
    others = [name for name in plan.checkpoints if name != plan.reference]
    # Columns stand in the order of the rows: condition, layer, head, checkpoint.
    dims = [dim for dim in ("condition", "layer", "head") if dim in values.dims]
    both = values.transpose("image", *dims, "checkpoint").values.astype(np.float64)
    after = np.delete(both, place, axis=-1).reshape(len(both), -1)
    before = np.repeat(both[..., place].reshape(len(both), -1), len(others), axis=1)
    with np.errstate(invalid="ignore"):
        differences = after - before
    is_paired = np.isfinite(differences)

    keys = pd.MultiIndex.from_product(
        [*(values[dim].values for dim in dims), others], names=[*dims, "checkpoint"]
    )
    rows = keys.to_frame(index=False)
    rows["metric"], rows["reference"] = metric.name, plan.reference
    rows["value_reference"], _ = statistics.paired_mean(np.where(is_paired, before, np.nan))
    rows["value"], _ = statistics.paired_mean(np.where(is_paired, after, np.nan))
    rows["difference"], rows["n"] = statistics.paired_mean(differences)
    gained, lost = (differences > 0).sum(axis=0), (differences < 0).sum(axis=0)
    n, margin = rows["n"].to_numpy(), plan.margins.get(metric.name, np.nan)
    rows["margin"] = margin
    missed: Float64[np.ndarray, " row"] | float = 0.0
    if metric.is_proportion:
        rows["ci_low"], rows["ci_high"] = statistics.tango_interval(gained, lost, n, plan.level)
        rows["effect_size"], rows["effect_size_kind"] = cohens_g(gained, lost), "cohens_g"
    else:
        reach = metric.reach
        rows["ci_low"], rows["ci_high"] = statistics.mean_interval(
            differences, plan.counts, plan.level, reach=reach
        )
        rows["effect_size"], rows["effect_size_kind"] = d_z(differences), "d_z"
        beyond = reach - statistics.step_size(differences, reach=reach)
        missed = statistics.missed_change(n, gained + lost, reach=beyond, alpha=plan.alpha)
    rows["is_equivalent"] = statistics.is_equivalent(
        rows["ci_low"].to_numpy(),
        rows["ci_high"].to_numpy(),
        n,
        margin=margin,
        alpha=plan.alpha,
        missed=missed,
    )
    rows["p"] = np.nan
    if metric.is_map:
        rows["p"] = _map_p(
            differences, plan.flips, n_conditions=values.sizes["condition"], n_others=len(others)
        )
    elif metric.name in plan.primary:
        rows["p"] = _scalar_p(metric, differences, plan.flips)
    return rows


def _scalar_p(
    metric: Metric, differences: Float64[np.ndarray, "image row"], flips: Int8[np.ndarray, "flip image"]
) -> Float64[np.ndarray, " row"]:
    if not metric.is_proportion:
        return statistics.sign_flip_p(differences, flips)
    p = statistics.mcnemar_p((differences > 0).sum(axis=0), (differences < 0).sum(axis=0))
    return np.where(np.isfinite(differences).any(axis=0), p, np.nan)


def _map_p(
    differences: Float64[np.ndarray, "image row"],
    flips: Int8[np.ndarray, "flip image"],
    *,
    n_conditions: int,
    n_others: int,
) -> Float64[np.ndarray, " row"]:
    """Adjusted within each condition and checkpoint."""
    sizes = {"condition": n_conditions, "checkpoint": n_others}
    maps = rearrange(
        differences, "image (condition cell checkpoint) -> image (condition checkpoint) cell", **sizes
    )
    p = statistics.max_t_p(maps, flips)
    return rearrange(p, "(condition checkpoint) cell -> (condition cell checkpoint)", **sizes)
