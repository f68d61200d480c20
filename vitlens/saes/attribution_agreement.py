"""How well the first-order estimate of features' effects agrees with their ablation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy import stats

from ..errors import SAEError
from .causal_analyses import axis_of
from .intervals import Resamples


def attribution_agreement(
    data: xr.Dataset, *, name: str = "sae", n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """How well first-order estimates tell what ablating features does to the correct class's logit.

    Over all images and features that both measured, but for pairs in which both are exactly 0: there the
    feature is not active, or nothing reads it.

    Args:
        data: of `vitlens.run` with `FeatureEffect`, of features, and `FeatureAttribution`.
        name: of the two.
        n_resamples: bootstrap resamples.
        seed: of the resampling.

    Returns:
        A row for each checkpoint, if there are several, and condition: `n` (images), `n_features`, `n_pairs`
        (of an image and a feature), `pearson` with a 95 % interval that resamples images (`pearson_ci_low`,
        `pearson_ci_high`), `spearman`, `same_sign_share`, and `spearman_of_features`, of the features' means
        over images. NaN where one side does not vary.

    Raises:
        SAEError: the data lack one of the two.

    Example:
        >>> change = (("condition", "image", "feature"), np.array([[[-1.0, 0.0], [-2.0, 1.0]]]))
        >>> estimate = (("condition", "image", "d_sae"), np.array([[[0.0, -2.0], [2.0, -4.0]]]))
        >>> data = xr.Dataset(
        ...     {"sae_ablated_logit_change": change, "sae_estimated_logit_change": estimate},
        ...     coords={"condition": ["clean"], "feature": [1, 0], "d_sae": [0, 1]},
        ... )
        >>> attribution_agreement(data)[["condition", "n_pairs", "pearson", "same_sign_share"]]
          condition  n_pairs  pearson  same_sign_share
        0     clean        3      1.0              1.0
    """
    resamples = Resamples(n_resamples, seed)
    effects, estimates = (data.get(f"{name}_{how}_logit_change") for how in ("ablated", "estimated"))
    dim = axis_of(name, "feature")
    if effects is None or estimates is None or dim not in effects.dims:
        raise SAEError(
            f"The data do not have both '{name}_ablated_logit_change' along '{dim}' and "
            f"'{name}_estimated_logit_change'.",
            expected="what FeatureEffect, of features and not of groups, and FeatureAttribution measured",
            remedy="Run both together, with one name.",
        )
    estimates = estimates.sel(d_sae=effects[dim].values).rename(d_sae=dim)
    outer = [str(each) for each in effects.dims if each not in ("image", dim)]
    effects, estimates = (each.transpose(*outer, "image", dim) for each in (effects, estimates))
    found = []
    for place in np.ndindex(effects.shape[:-2]):
        x, y = (each.values[place].astype(np.float64) for each in (estimates, effects))
        counts = (x != 0) | (y != 0)
        sums = np.stack([counts, x, y, x * x, y * y, x * y], axis=-1).sum(axis=1)
        spearman = _spearman(x[counts], y[counts])
        pearson, low, high = resamples.of(sums, _pearson) if np.isfinite(spearman) else [np.nan] * 3
        row = {str(each): effects[each].values[at] for each, at in zip(outer, place, strict=True)}
        row |= {"n": len(x), "n_features": x.shape[1], "n_pairs": int(counts.sum())}
        row |= {"pearson": pearson, "pearson_ci_low": low, "pearson_ci_high": high}
        same_sign = np.sign(x[counts]) == np.sign(y[counts])
        row |= {"spearman": spearman, "same_sign_share": same_sign.mean() if len(same_sign) else np.nan}
        found.append(row | {"spearman_of_features": _spearman(x.mean(axis=0), y.mean(axis=0))})
    return pd.DataFrame(found)


def _pearson(means: Float[np.ndarray, "*resample part"]) -> Float[np.ndarray, "*resample"]:
    """Pearson's correlation of pairs, from means of their number, sums, squares and products."""
    n, x, y, xx, yy, xy = np.moveaxis(means, -1, 0)
    return np.asarray((n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y)))


def _spearman(x: Float[np.ndarray, " pair"], y: Float[np.ndarray, " pair"]) -> float:
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)
