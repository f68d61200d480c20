"""What a checkpoint scores by itself: accuracy, certainty and calibration under each condition."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import xarray as xr

from ..comparison import calibration_error, mean_corruption_error
from ..comparison.corruption_error import ALEXNET_ERROR, complete_corruptions
from ..comparison.statistics import mean_interval, resample_counts

COLUMNS = ("condition", "metric", "value", "ci_low", "ci_high", "n")

METRICS: Mapping[str, str] = {
    "top1_accuracy": "top-1 accuracy",
    "top5_accuracy": "top-5 accuracy",
    "top10_accuracy": "top-10 accuracy",
    "correct_probability": "probability of the correct class, mean",
    "entropy_nats": "entropy of the class probabilities in nats, mean",
    "calibration_error": "expected calibration error",
    "calibration_error_if_calibrated": "the same of a calibrated model, by chance alone",
    "corruption_error": "corruption error: 1 is as bad as AlexNet",
    "relative_corruption_error": "relative corruption error: of what is added to the error on clean images",
}
"""All metrics, in the order of a table, and what they are."""


def scores(data: xr.Dataset, *, n_classes: int, seed: int) -> pd.DataFrame:
    """Figures of one checkpoint under each condition, with 95 % intervals over images.

    Args:
        data: of `vitlens.run` with `Prediction`, dims condition and image.
        n_classes: classes that the model tells apart; top-k accuracy is left out where there are no more
            than k.
        seed: of the resampling.

    Returns:
        Columns `condition`, `metric` (those of `METRICS`), `value`, `ci_low`, `ci_high` and `n`, the images.
        The intervals are Wilson's for accuracies, `mean_interval` for means, cut at what values can be, and
        those of `calibration_error` and `mean_corruption_error`. An image whose output is no number counts
        as wrong, and makes means NaN. Corruptions of ImageNet-C that are there at all five severities have
        their corruption error, under the condition `fog@1-5`, say, and if they are several their mean, which
        is called as `mean_corruption_error` calls it.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference", for the
    interval of a proportion.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(8)]
        >>> data = vl.run(model, images, [vl.Prediction()], progress=False)
        >>> scores(data, n_classes=10, seed=0)["metric"].tolist()[:4]
        ['top1_accuracy', 'top5_accuracy', 'correct_probability', 'entropy_nats']
    """
    # An output that is no number has no rank.
    data = data.assign(rank=data["rank"].fillna(n_classes)).transpose("condition", "image", ...)
    tables = [*_accuracies(data, n_classes), *_means(data, n_classes, seed)]
    calibration = calibration_error(data, seed=seed)
    tables.append(calibration.assign(metric="calibration_error"))
    if_calibrated = calibration.assign(
        value=calibration["value_if_calibrated"], ci_low=np.nan, ci_high=np.nan
    )
    tables.append(if_calibrated.assign(metric="calibration_error_if_calibrated"))
    tables.extend(_corruption_errors(data, seed))
    return pd.concat([table[list(COLUMNS)] for table in tables], ignore_index=True)


def _accuracies(data: xr.Dataset, n_classes: int) -> Iterator[pd.DataFrame]:
    from ..report.charts.intervals import wilson  # with plotly, which takes long to import

    ranks = data["rank"].values
    n = ranks.shape[-1]
    for k in (1, 5, 10):
        if k < n_classes:
            hits = (ranks < k).sum(-1).astype(np.float64)
            low, high = wilson(hits, np.full_like(hits, n))
            yield _table(data, f"top{k}_accuracy", hits / n, low, high)


def _means(data: xr.Dataset, n_classes: int, seed: int) -> Iterator[pd.DataFrame]:
    counts = resample_counts(data.sizes["image"], seed=seed)
    for metric, most in (("correct_probability", 1.0), ("entropy_nats", math.log(n_classes))):
        values = data[metric].values.T.astype(np.float64)
        low, high = mean_interval(values, counts)
        is_known = np.isfinite(values).all(axis=0)
        low, high = (np.where(is_known, np.clip(bound, 0, most), np.nan) for bound in (low, high))
        yield _table(data, metric, np.where(is_known, values.mean(axis=0), np.nan), low, high)


def _table(
    data: xr.Dataset, metric: str, value: np.ndarray, low: np.ndarray, high: np.ndarray
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "condition": data["condition"].values,
            "metric": metric,
            "value": value,
            "ci_low": low,
            "ci_high": high,
            "n": data.sizes["image"],
        }
    )


def _corruption_errors(data: xr.Dataset, seed: int) -> Iterator[pd.DataFrame]:
    complete = complete_corruptions(data["condition"].values.tolist())
    if not complete:
        return
    errors = mean_corruption_error(data, corruptions=complete, seed=seed)
    quality = errors.attrs["jpeg_quality"]
    suffix = "" if quality is None else f":jpeg_quality={quality}"
    names = {name: f"{name}@1-5{suffix}" for name in ALEXNET_ERROR}
    errors = errors[errors["corruption"] != "mean of 1"]
    yield errors.assign(condition=errors["corruption"].replace(names))
