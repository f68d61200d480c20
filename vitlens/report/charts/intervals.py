"""Intervals for what a figure shows of one checkpoint alone.

Differences between checkpoints are paired and belong to the summary; these say how well one mean is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.95
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))


def wilson(
    hits: Float[np.ndarray, "*shape"], n: Float[np.ndarray, "*shape"]
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Wilson's score interval for a proportion, at 95 %.

    Args:
        hits: number of successes.
        n: number of trials; 0 gives NaN.

    Returns:
        Lower and upper ends, within [0, 1].

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> low, high = wilson(np.array([0.0]), np.array([10.0]))
        >>> low.round(3), high.round(3)
        (array([0.]), array([0.278]))
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        share = hits / n
        center = (hits + Z**2 / 2) / (n + Z**2)
        half = Z / (n + Z**2) * np.sqrt(n * share * (1 - share) + Z**2 / 4)
    # At 0 and at n hits one end is exact; rounding must not put it beyond the share itself.
    return np.clip(np.minimum(center - half, share), 0, 1), np.clip(np.maximum(center + half, share), 0, 1)


def mean_and_t(values: Any) -> tuple[Any, Any, Any, Any]:
    """Mean over the last axis, with Student's interval at 95 %.

    Args:
        values: [*shape n]; NaN is left out.

    Returns:
        mean, lower end, upper end, n, each [*shape]. One value gives a mean without an interval.
    """
    values = np.asarray(values, dtype=np.float64)
    n = np.isfinite(values).sum(-1)
    kept = np.where(np.isfinite(values), values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = kept.sum(-1) / np.where(n > 0, n, np.nan)
        deviation = np.where(np.isfinite(values), values - mean[..., None], 0.0)
        error = np.sqrt((deviation**2).sum(-1) / np.where(n > 1, n - 1, np.nan) / np.where(n > 0, n, np.nan))
        half = stats.t.ppf(0.5 + LEVEL / 2, np.maximum(n - 1, 1)) * error
    return mean, mean - half, mean + half, n
