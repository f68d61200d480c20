"""Calibration of each checkpoint under each condition, with what chance alone would show."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float64, Int64, UInt8

from ..errors import ComparisonError
from ..functional.calibration import confidence_bin
from ..images.values import is_whole
from . import statistics

_BLOCK = 128
"""Resamples that are summed at once; bounds memory."""

_COLUMNS = ("value", "ci_low", "ci_high", "value_if_calibrated", "confidence", "accuracy", "n")


def calibration_error(
    data: xr.Dataset, *, n_bins: int = 15, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Expected calibration error of each checkpoint under each condition.

    Images are put into bins of equal width by their confidence, the probability of the predicted class. The
    error is the distance of mean confidence from accuracy in a bin, averaged over bins by their images.

    The estimate is too large, the more so the fewer the images and the more the bins: chance alone moves
    accuracy away from confidence in every bin, and distances do not cancel. `value_if_calibrated` says how
    large it is on average where the model is perfectly calibrated, with the same confidences. The interval
    is for the error without this bias. A bootstrap adds the bias once more, so its plain percentiles miss
    the truth nearly always for a calibrated model: the lower end is moved down by twice what the mean of the
    resamples lies above the estimate, and is 0 where the estimate is one that a calibrated model may give.
    It can lie below the estimate altogether.

    Args:
        data: of `run` or `compare` with `Prediction`.
        n_bins: number of bins.
        n_resamples: bootstrap resamples of the images, and as many draws of a calibrated model's answers.
        level: confidence level of the intervals.
        seed: states all of the randomness.

    Returns:
        One row for each checkpoint, where the data have that axis, and condition: `value`, `ci_low`,
        `ci_high`, `value_if_calibrated`, mean `confidence`, `accuracy` and `n`, the images; an image without
        a prediction is left out. `attrs` hold `n_bins` and `level`.

    Raises:
        ComparisonError: the data hold no predictions, or a number is out of range.

    Source: Guo et al. (2017), On calibration of modern neural networks; a calibrated model's answers as a
    yardstick, Bröcker and Smith (2007), Increasing the reliability of reliability diagrams.

    Example:
        >>> dims = ("condition", "image")
        >>> data = xr.Dataset(
        ...     {"rank": (dims, [[0, 0, 0, 1]]), "predicted_probability": (dims, [[0.9, 0.9, 0.9, 0.9]])},
        ...     coords={"condition": ["clean"]},
        ... )
        >>> calibration_error(data)[["condition", "value", "confidence", "accuracy", "n"]].round(2)
          condition  value  confidence  accuracy  n
        0     clean   0.15         0.9      0.75  4
    """
    statistics.check_numbers(level, n_resamples, seed)
    if not is_whole(n_bins) or n_bins < 1:
        raise ComparisonError(f"n_bins is {n_bins}.", expected="1 or more", remedy="15 is usual.")
    missing = [name for name in ("rank", "predicted_probability") if name not in data]
    if missing:
        raise ComparisonError(
            f"The data have no {' and no '.join(missing)}.",
            expected="the variables of Prediction",
            remedy="Give the result of vl.run(..., [vl.Prediction()]).",
        )
    dims = [dim for dim in ("checkpoint", "condition") if dim in data["rank"].dims]
    cells = [data["rank"], data["predicted_probability"]]
    ranks, confidences = (
        cell.transpose(*dims, "image").values.reshape(-1, data.sizes["image"]).astype(np.float64)
        for cell in cells
    )
    counts = statistics.resample_counts(data.sizes["image"], n_resamples, seed)
    chances = np.random.default_rng([seed, 2])
    rows = [
        _row(rank, confidence, counts, chances, n_bins, level)
        for rank, confidence in zip(ranks, confidences, strict=True)
    ]
    keys = pd.MultiIndex.from_product([data[dim].values for dim in dims], names=dims).to_frame(index=False)
    table = pd.concat([keys, pd.DataFrame(rows, columns=list(_COLUMNS))], axis=1)
    table.attrs = {"n_bins": n_bins, "level": level}
    return table


def _row(
    rank: Float64[np.ndarray, " image"],
    confidence: Float64[np.ndarray, " image"],
    counts: UInt8[np.ndarray, "resample image"],
    chances: np.random.Generator,
    n_bins: int,
    level: float,
) -> tuple[float, ...]:
    is_known = np.isfinite(rank) & np.isfinite(confidence)
    correct, confidence, counts = rank[is_known] == 0, confidence[is_known], counts[:, is_known]
    n = len(correct)
    if not n:
        return (*[np.nan] * (len(_COLUMNS) - 1), 0)
    # Images of a bin stand together, so that bins are sums of neighbors.
    bins = confidence_bin(torch.from_numpy(confidence), n_bins).numpy()
    order = np.argsort(bins, kind="stable")
    starts = np.flatnonzero(np.diff(bins[order], prepend=-1))
    correct, confidence, counts = correct[order], confidence[order], counts[:, order]
    value = float(_errors(correct - confidence[None], starts)[0] / n)
    drawn, chance = [], []
    for start in range(0, len(counts), _BLOCK):
        block = counts[start : start + _BLOCK]
        drawn.append(_errors(block * (correct - confidence), starts) / np.maximum(block.sum(1), 1))
        answers = chances.random((len(block), n)) < confidence
        chance.append(_errors(answers - confidence, starts) / n)
    resampled, if_calibrated = np.concatenate(drawn), np.concatenate(chance)
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    low -= 2 * (resampled.mean() - value)
    if value <= np.quantile(if_calibrated, 1 - tail):
        low = 0.0
    mean = float(if_calibrated.mean())
    return value, max(0.0, float(low)), float(high), mean, confidence.mean(), correct.mean(), n


def _errors(
    gaps: Float64[np.ndarray, "draw image"], starts: Int64[np.ndarray, " bin"]
) -> Float64[np.ndarray, " draw"]:
    """Sum over bins of |correct less confidence|, summed within each."""
    return np.asarray(np.abs(np.add.reduceat(gaps, starts, axis=1)).sum(axis=1))
