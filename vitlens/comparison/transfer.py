"""Transfer: what a checkpoint gained on corruptions it was trained on, against what it gained on others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float64, UInt8

from ..errors import ComparisonError
from . import statistics
from .checks import check_dims, check_known
from .intervals import expanded_tail
from .metrics import Metric, per_image_metrics
from .pools import check_pools
from .ratios import gap_interval, percentiles, put_back, resampled_means
from .summary import PRIMARY

SEEN, UNSEEN, CONTRAST = "seen", "unseen", "seen - unseen"
"""The two groups of conditions, and the difference of the gains on them."""

_COLUMNS = (
    "metric",
    "exposure",
    "condition",
    "reference",
    "checkpoint",
    "gain",
    "ci_low",
    "ci_high",
    "p_adjusted",
    "gap",
    "gap_ci_low",
    "gap_ci_high",
    "gap_closed",
    "gap_closed_ci_low",
    "gap_closed_ci_high",
    "n",
)


def transfer(
    data: xr.Dataset,
    *,
    seen: Sequence[str],
    unseen: Sequence[str],
    reference: str | None = None,
    clean: str | None = "clean",
    metrics: Sequence[str] | None = None,
    n_classes: int | None = None,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """How much of what was learnt on seen corruptions holds for unseen ones, in two measures.

    The gain is T_c - B_c: the checkpoint's mean under corruption c less the reference's. The gain on the seen
    conditions less the gain on the unseen ones is a difference of differences, paired over images: each image
    counts once, with the means of its gains over either group.

    The share closed is (T_c - B_c) / (B_clean - B_c): of what the corruption took from the reference, how
    much the checkpoint has won back; 1 is all of it. It sees what the gain cannot: under a corruption that
    hardly hurts the reference there is little to win, so that a small gain there may close the whole gap, and
    the difference of gains would call it poor transfer. Groups' shares are ratios of their pooled means. A
    share's interval resamples images, each with all its values; where the interval of the gap itself holds 0
    there may be nothing to close, and the share's interval is NaN.

    An image that is NaN under any of these conditions in either checkpoint is left out of all rows of that
    metric and checkpoint.

    Args:
        data: per-image values with dims checkpoint, condition, image.
        seen: conditions that training has seen.
        unseen: conditions that it has not.
        reference: the checkpoint before training; None takes the first.
        clean: the condition without corruption; None leaves out the shares.
        metrics: scalar metrics, as a summary names them; None takes those of `PRIMARY` that the data have.
        n_classes: classes that the model tells apart; top-k accuracy needs more than k.
        level: confidence level of the intervals.
        n_resamples: bootstrap resamples, and as many sign flips.
        seed: states all of the randomness.

    Returns:
        For each metric and checkpoint but the reference a row for each condition, one for each group (its
        `condition` is `"seen"` or `"unseen"`), and one for their difference (`"seen - unseen"`): metric,
        exposure, condition, reference, checkpoint, gain, ci_low, ci_high, p_adjusted, gap, gap_ci_low,
        gap_ci_high, gap_closed, gap_closed_ci_low, gap_closed_ci_high, n. Intervals of gains and gaps are
        Tango's for accuracy under one condition, else those of `mean_interval`. Only the differences of gains
        are tested, by sign flips, adjusted by Holm over metrics and checkpoints; elsewhere `p_adjusted` is
        NaN. `attrs["level"]` is `level`.

    Raises:
        ComparisonError: there is one checkpoint, a group is empty or shares a condition with the other or
            with `clean`, a name is unknown, or a number is out of range.

    Example:
        >>> base = [[0.9, 0.8, 0.9, 0.7], [0.3, 0.2, 0.4, 0.3], [0.5, 0.4, 0.4, 0.5]]
        >>> tuned = [[0.9, 0.8, 0.9, 0.7], [0.8, 0.7, 0.8, 0.7], [0.6, 0.5, 0.5, 0.5]]
        >>> data = xr.Dataset(
        ...     {"correct_probability": (("checkpoint", "condition", "image"), [base, tuned])},
        ...     coords={"checkpoint": ["base", "tuned"], "condition": ["clean", "fog@3", "jpeg@3"]},
        ... )
        >>> transfer(data, seen=["fog@3"], unseen=["jpeg@3"])[["condition", "gain", "gap_closed"]].round(3)
               condition   gain  gap_closed
        0          fog@3  0.450       0.857
        1         jpeg@3  0.075       0.200
        2           seen  0.450       0.857
        3         unseen  0.075       0.200
        4  seen - unseen  0.375       0.657
    """
    check_dims(data)
    statistics.check_numbers(level, n_resamples, seed)
    checkpoints = [str(name) for name in data["checkpoint"].values]
    if len(checkpoints) < 2:
        raise ComparisonError(
            f"The data have one checkpoint, {checkpoints[0]!r}.",
            expected="the checkpoint before training and one after it",
            remedy="Run both checkpoints together: vl.run({'base': base, 'tuned': tuned}, ...).",
        )
    reference = checkpoints[0] if reference is None else reference
    check_known([reference], "reference", "checkpoint", checkpoints)
    groups = checked_groups(data, seen, unseen, clean)
    scalars = {each.name: each for each in per_image_metrics(data, n_classes=n_classes) if not each.is_map}
    metrics = [name for name in PRIMARY if name in scalars] if metrics is None else metrics
    check_known(metrics, "metrics", "scalar metric", list(scalars))

    plan = _Plan(
        reference,
        clean,
        groups,
        statistics.resample_counts(data.sizes["image"], n_resamples, seed),
        level,
    )
    rows, contrasts = [], []
    for name in metrics:
        for checkpoint in checkpoints:
            if checkpoint != reference:
                found, contrast = _rows(scalars[name], checkpoint, plan)
                rows += found
                contrasts.append(contrast)
    table = pd.DataFrame(rows, columns=list(_COLUMNS))
    if contrasts:
        flips = statistics.sign_flips(data.sizes["image"], n_resamples, seed)
        p = statistics.holm(statistics.sign_flip_p(np.stack(contrasts, axis=1), flips))
        table.loc[table["exposure"] == CONTRAST, "p_adjusted"] = p
    table.attrs["level"] = level
    return table


class _Plan(NamedTuple):
    """What every row is computed with."""

    reference: str
    clean: str | None
    groups: Mapping[str, Sequence[str]]
    counts: UInt8[np.ndarray, "resample image"]
    level: float


def _rows(
    metric: Metric, checkpoint: str, plan: _Plan
) -> tuple[list[dict[str, Any]], Float64[np.ndarray, " image"]]:
    """Rows of one metric and checkpoint, and each image's gain on seen less that on unseen conditions."""
    conditions = [*plan.groups[SEEN], *plan.groups[UNSEEN]]
    before, after = (
        metric.values.sel(checkpoint=name, condition=conditions)
        .transpose("image", "condition")
        .values.astype(np.float64)
        for name in (plan.reference, checkpoint)
    )
    unhurt = np.full(len(before), np.nan)
    if plan.clean is not None:
        unhurt = metric.values.sel(checkpoint=plan.reference, condition=plan.clean).values.astype(np.float64)
    needed = np.column_stack([before, after] if plan.clean is None else [before, after, unhurt])
    is_paired = np.isfinite(needed).all(axis=1)

    # Columns: the conditions, then the means over either group.
    n_seen = len(plan.groups[SEEN])
    halves = slice(n_seen), slice(n_seen, None)
    gains, gaps = (
        np.column_stack([each, *(each[:, half].mean(axis=1) for half in halves)])
        for each in ((after - before)[is_paired], (unhurt[:, None] - before)[is_paired])
    )
    contrast = put_back(gains[:, -2] - gains[:, -1], is_paired)
    counts = plan.counts[:, is_paired]
    single = [len(plan.groups[SEEN]) == 1, len(plan.groups[UNSEEN]) == 1]
    is_proportion = [metric.is_proportion and one for one in [True] * len(conditions) + single]
    gap_bounds = [
        gap_interval(put_back(gap, is_paired), plan.counts, plan.level, is_proportion=one, reach=metric.reach)
        for gap, one in zip(gaps.T, is_proportion, strict=True)
    ]
    is_open = [low > 0 or high < 0 for low, high in gap_bounds]
    shares, drawn = _shares(gains, gaps, counts)
    tested = np.column_stack([gains, contrast[is_paired]])
    n = len(gains)
    means = tested.mean(axis=0) if n else np.full(tested.shape[1], np.nan)
    mean_gaps = gaps.mean(axis=0) if n else np.full(gaps.shape[1], np.nan)
    # A difference of shares stands where both gaps are open.
    shares = np.append(shares, shares[-2] - shares[-1])
    with np.errstate(invalid="ignore"):  # a resample may have no gap at all, in both groups
        drawn = np.column_stack([drawn, drawn[:, -2] - drawn[:, -1]])
    is_open.append(is_open[-2] and is_open[-1])
    of_percentiles = 1 - 2 * float(expanded_tail(np.array(n), plan.level))

    exposures = [SEEN] * n_seen + [UNSEEN] * (len(conditions) - n_seen) + [SEEN, UNSEEN, CONTRAST]
    rows = []
    for place, (exposure, condition) in enumerate(
        zip(exposures, [*conditions, SEEN, UNSEEN, CONTRAST], strict=True)
    ):
        row: dict[str, Any] = {
            "metric": metric.name,
            "exposure": exposure,
            "condition": condition,
            "reference": plan.reference,
            "checkpoint": checkpoint,
            "gain": means[place],
            "p_adjusted": np.nan,
            "gap_closed": shares[place],
            "n": n,
        }
        row["ci_low"], row["ci_high"] = gap_interval(
            put_back(tested[:, place], is_paired),
            plan.counts,
            plan.level,
            is_proportion=place < len(is_proportion) and is_proportion[place],
            # A gain is one step of the metric at most; seen less unseen is two.
            reach=metric.reach * (1 + (exposure == CONTRAST)),
        )
        if place < len(mean_gaps):
            row["gap"], (row["gap_ci_low"], row["gap_ci_high"]) = mean_gaps[place], gap_bounds[place]
        if is_open[place]:
            low, high = percentiles(drawn[:, [place]], of_percentiles)
            row["gap_closed_ci_low"], row["gap_closed_ci_high"] = low[0], high[0]
        rows.append(row)
    return rows, contrast


def _shares(
    gains: Float64[np.ndarray, "image column"],
    gaps: Float64[np.ndarray, "image column"],
    counts: UInt8[np.ndarray, "resample image"],
) -> tuple[Float64[np.ndarray, " column"], Float64[np.ndarray, "resample column"]]:
    """Shares of the gaps, and the same in each resample."""
    n_columns = gains.shape[1]
    means = resampled_means(np.column_stack([gains, gaps]), counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = means[:, :n_columns] / means[:, n_columns:]
        whole = gains.sum(axis=0) / gaps.sum(axis=0)
    return np.where(np.isfinite(whole), whole, np.nan), drawn


def checked_groups(
    data: xr.Dataset, seen: Sequence[str], unseen: Sequence[str], clean: str | None
) -> dict[str, list[str]]:
    """The groups by name, once it is sure that they are conditions of the data, and apart."""
    conditions = [str(name) for name in data["condition"].values]
    groups = check_pools({SEEN: seen, UNSEEN: unseen}, conditions)
    if clean is not None and clean not in conditions:
        raise ComparisonError(
            f"clean is {clean!r}, which is no condition of these data.",
            expected=f"one of: {', '.join(conditions)}",
            remedy="Run with the clean images too, or pass clean=None to leave out the shares of the gap.",
        )
    for group, others in ((SEEN, [*groups[UNSEEN], clean]), (UNSEEN, [clean])):
        for condition in groups[group]:
            if condition in others:
                raise ComparisonError(
                    f"{group} has {condition!r}, which is {'clean' if condition == clean else UNSEEN} too.",
                    expected="seen, unseen and clean conditions apart",
                    remedy="Leave it in one of them.",
                )
    return groups
