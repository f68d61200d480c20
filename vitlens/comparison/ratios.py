"""Ratios of means over images: whether there is a gap to take a share of, and the share's interval."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from . import statistics

_BLOCK = 128
"""Resamples whose means are taken at once; bounds memory."""


def gap_interval(
    gaps: Float64[np.ndarray, " image"],
    counts: UInt8[np.ndarray, "resample image"],
    level: float,
    *,
    is_proportion: bool,
    reach: float = 0.0,
) -> tuple[float, float]:
    """Interval of a mean gap: Tango's for single answers, else `mean_interval`.

    Args:
        gaps: of each image; one that is not finite is left out.
        counts: from `resample_counts`.
        level: confidence level.
        is_proportion: whether each gap is the difference of two answers.
        reach: the most that one image can change, as in `mean_interval`.

    Returns:
        Lower and upper bound.

    Example:
        >>> bounds = gap_interval(np.ones(9), statistics.resample_counts(9), 0.95, is_proportion=True)
        >>> [round(bound, 2) for bound in bounds]
        [0.4, 1.0]
    """
    if is_proportion:
        gained, lost, n = (
            np.array(count) for count in ((gaps > 0).sum(), (gaps < 0).sum(), np.isfinite(gaps).sum())
        )
        low, high = statistics.tango_interval(gained, lost, n, level)
    else:
        low, high = statistics.mean_interval(gaps[:, None], counts, level, reach=reach)
    return float(np.squeeze(low)), float(np.squeeze(high))


def put_back(
    values: Float64[np.ndarray, " kept"], is_kept: Bool[np.ndarray, " image"]
) -> Float64[np.ndarray, " image"]:
    """Values of the images that were kept, at their places among all; NaN elsewhere.

    Example:
        >>> put_back(np.array([1.0, 2.0]), np.array([True, False, True]))
        array([ 1., nan,  2.])
    """
    every = np.full(len(is_kept), np.nan)
    every[is_kept] = values
    return every


def resampled_means(
    columns: Float64[np.ndarray, "image column"], counts: UInt8[np.ndarray, "resample image"]
) -> Float64[np.ndarray, "resample column"]:
    """Each column's mean in each resample; NaN in one that draws no image.

    Args:
        columns: values of each image, all finite.
        counts: how often each resample draws each image.

    Returns:
        Means; what belongs to one image is drawn together.

    Example:
        >>> resampled_means(np.array([[1.0], [3.0]]), np.array([[2, 0], [1, 1]], dtype=np.uint8)).ravel()
        array([1., 2.])
    """
    blocks = [counts[start : start + _BLOCK] for start in range(0, len(counts), _BLOCK)]
    sums = np.concatenate([block.astype(np.float64) @ columns for block in blocks])
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / counts.sum(axis=1, keepdims=True, dtype=np.int64))


def percentiles(
    drawn: Float64[np.ndarray, "resample column"], level: float
) -> tuple[Float64[np.ndarray, " column"], Float64[np.ndarray, " column"]]:
    """Percentile interval of each column, from the resamples in which all columns are finite.

    Args:
        drawn: a figure in each resample.
        level: confidence level.

    Returns:
        Lower and upper bounds; NaN where there is no such resample.

    Example:
        >>> percentiles(np.arange(101.0)[:, None], 0.9)
        (array([5.]), array([95.]))
    """
    tail = (1 - level) / 2
    finite = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(finite):
        nothing = np.full(drawn.shape[1], np.nan)
        return nothing, nothing
    low, high = np.quantile(finite, [tail, 1 - tail], axis=0)
    return low, high
