"""Intervals of mean differences over images, and what they say of equivalence."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, UInt8
from scipy import special

from .draws import paired_mean, paired_spread, product

_STRAIGHT = 1e-12
"""A bend smaller than this is none: the interval is Student's, to more digits than it has."""


def bootstrap_interval(
    differences: Float[np.ndarray, "image cell"],
    counts: UInt8[np.ndarray, "resample image"],
    level: float = 0.95,
) -> tuple[Float64[np.ndarray, " cell"], Float64[np.ndarray, " cell"]]:
    """Percentile bootstrap interval of each column's mean difference, over images.

    The percentiles are moved outward to what a t interval of as many images would have (Hesterberg's expanded
    percentiles); from a few hundred images on, nothing is left of that. The plain percentiles and BCa both
    cover too little below about 50 images, BCa under heavy tails beyond that too.

    Args:
        differences: checkpoint minus reference, for each image; a value that is not finite is left out.
        counts: from `resample_counts`.
        level: confidence level.

    Returns:
        Lower and upper bounds. NaN below two images, where nothing is known about the spread.

    Source: Efron (1979), "Bootstrap methods: another look at the jackknife"; Hesterberg (2015), "What
    teachers should know about the bootstrap".

    Example:
        >>> from vitlens.comparison.draws import resample_counts
        >>> low, high = bootstrap_interval(np.arange(100.0)[:, None], resample_counts(100))
        >>> bool(low[0] < 49.5 < high[0]), round(float(high[0] - low[0]))
        (True, 11)
    """
    mean, n = paired_mean(differences)
    finite = np.isfinite(differences)
    sums = product(counts, np.where(finite, differences - mean, 0).astype(np.float32))
    sizes = np.broadcast_to(n.astype(np.float32), sums.shape)
    partial = n < len(differences)
    if partial.any():
        sizes = sizes.copy()
        sizes[:, partial] = product(counts, finite[:, partial].astype(np.float32))
    with np.errstate(invalid="ignore"):
        ordered = np.sort(sums / sizes, axis=0)  # A resample without any finite image is NaN, and comes last.
    last = np.maximum(len(counts) - np.isnan(ordered).sum(axis=0) - 1, 0)

    tail = expanded_tail(n, level)
    bounds = []
    for probability in (tail, 1 - tail):
        place = probability * last
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, last)
        at_below, at_above = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (below, above))
        bound = mean + at_below + (place - below) * (at_above - at_below)
        bounds.append(np.where(n >= 2, bound, np.nan))
    return bounds[0], bounds[1]


def skewness_interval(
    differences: Float[np.ndarray, "image cell"], level: float = 0.95
) -> tuple[Float64[np.ndarray, " cell"], Float64[np.ndarray, " cell"]]:
    """Student's interval of each column's mean difference, bent by the differences' skewness.

    The studentized mean of skewed values is skewed the other way: its interval must reach further on the side
    of the long tail. Hall's cubic takes the skewness out of it and is monotone, so that it can be turned
    round. Student's quantiles stand in for the normal's. Without skewness this is the t interval.

    Args:
        differences: checkpoint minus reference, for each image; a value that is not finite is left out.
        level: confidence level.

    Returns:
        Lower and upper bounds. NaN below two images.

    Source: Hall (1992), "On the removal of skewness by transformation".

    Example:
        >>> low, high = skewness_interval(np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 6.0]]))
        >>> print(f"{low[0]:.2f} to {high[0]:.2f}, {low[1]:.2f} to {high[1]:.2f}")
        -0.55 to 3.55, -1.15 to 11.98
    """
    mean, n, deviations, spread = paired_spread(differences)
    known = np.maximum(n, 2)
    deviations /= np.where(spread > 0, spread, 1)
    skewness = (deviations**3).sum(axis=0) * known / ((known - 1) * np.maximum(known - 2, 1))
    bend = np.where((spread > 0) & (n >= 3), skewness / np.sqrt(known), 0)
    is_straight = np.abs(bend) < _STRAIGHT
    bend = np.where(is_straight, 1, bend)
    bounds = []
    for tail in ((1 + level) / 2, (1 - level) / 2):
        quantile = special.stdtrit(known - 1, tail)
        bent = 3 / bend * (np.cbrt(1 + bend * (quantile - bend / 6)) - 1)
        bound = mean - np.where(is_straight, quantile, bent) * spread / np.sqrt(known)
        bounds.append(np.where(n >= 2, bound, np.nan))
    return bounds[0], bounds[1]


def sparse_interval(
    differences: Float[np.ndarray, "image cell"],
    level: float = 0.95,
    *,
    reach: Float[np.ndarray, " cell"] | float = 0.0,
) -> tuple[Float64[np.ndarray, " cell"], Float64[np.ndarray, " cell"]]:
    """Interval of each column's mean difference where most images do not change at all.

    The spread of such differences comes from the few images that change, and a sample may have none of them:
    every interval from its spread alone then has no width. Here two images are added, one that changes by a
    step up and one by a step down, before Student's interval is taken. The step is the root mean square of
    the changes that were seen; without any, all that an image can change. For steps of 1 this is the
    adjusted Wald interval of Bonett and Price, with Student's quantile.

    Args:
        differences: checkpoint minus reference, for each image; a value that is not finite is left out.
        level: confidence level.
        reach: the most that one image can change.

    Returns:
        Lower and upper bounds. NaN below two images.

    Source: Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data".

    Example:
        >>> low, high = sparse_interval(np.zeros((100, 1)), reach=1.0)
        >>> print(f"{low[0]:.3f} to {high[0]:.3f}")
        -0.028 to 0.028
    """
    _, n = paired_mean(differences)
    step = step_size(differences, reach=reach)
    kept = np.where(np.isfinite(differences), differences, 0.0)
    added = n + 2
    middle = kept.sum(axis=0) / added
    squares = np.square(kept).sum(axis=0) + 2 * step**2
    variance = np.maximum(squares / added - middle**2, 0) * added / (added - 1)
    half = special.stdtrit(added - 1, (1 + level) / 2) * np.sqrt(variance / added)
    return np.where(n >= 2, middle - half, np.nan), np.where(n >= 2, middle + half, np.nan)


def step_size(
    differences: Float[np.ndarray, "image cell"], *, reach: Float[np.ndarray, " cell"] | float = 0.0
) -> Float64[np.ndarray, " cell"]:
    """Root mean square of the differences that are not zero; `reach` where there are none.

    Args:
        differences: checkpoint minus reference, for each image; a value that is not finite is left out.
        reach: the most that one image can change.

    Returns:
        In the differences' unit.

    Example:
        >>> step_size(np.array([[0.0, 0.0], [3.0, 0.0], [-3.0, 0.0]]), reach=13.0)
        array([ 3., 13.])
    """
    kept = np.where(np.isfinite(differences), differences, 0.0)
    n_changed = (kept != 0).sum(axis=0)
    seen = np.sqrt(np.square(kept).sum(axis=0) / np.maximum(n_changed, 1))
    return np.where(n_changed > 0, seen, reach)


def mean_interval(
    differences: Float[np.ndarray, "image cell"],
    counts: UInt8[np.ndarray, "resample image"],
    level: float = 0.95,
    *,
    reach: Float[np.ndarray, " cell"] | float = 0.0,
) -> tuple[Float64[np.ndarray, " cell"], Float64[np.ndarray, " cell"]]:
    """The bootstrap's interval, carried on where skewness or a lack of changes asks for more.

    Each bound is the outer one of `bootstrap_interval`, which holds under heavy tails; `skewness_interval`,
    which holds under skewed differences, where few images change by much; and, where less than half of the
    images change at all, `sparse_interval`. `docs/tables/coverage.py` says how often the hull holds the
    truth. It is 2 % wider than the bootstrap's where differences are normal.

    Args:
        differences: checkpoint minus reference, for each image; a value that is not finite is left out.
        counts: from `resample_counts`.
        level: confidence level.
        reach: the most that one image can change, on which an interval rests where none did; 0 if nobody
            knows, and such an interval has no width.

    Returns:
        Lower and upper bounds. NaN below two images, where nothing is known about the spread.

    Example:
        >>> from vitlens.comparison.draws import resample_counts
        >>> low, high = mean_interval(np.arange(100.0)[:, None], resample_counts(100))
        >>> bool(low[0] < 49.5 < high[0]), round(float(high[0] - low[0]))
        (True, 12)
    """
    intervals = [bootstrap_interval(differences, counts, level), skewness_interval(differences, level)]
    is_sparse = _is_sparse(np.isfinite(differences).sum(axis=0), n_changed(differences))
    if is_sparse.any():
        low, high = sparse_interval(differences, level, reach=reach)
        intervals.append((np.where(is_sparse, low, np.inf), np.where(is_sparse, high, -np.inf)))
    lows, highs = zip(*intervals, strict=True)
    return np.minimum.reduce(lows), np.maximum.reduce(highs)


def n_changed(differences: Float[np.ndarray, "image cell"]) -> Int[np.ndarray, " cell"]:
    """In how many images each column's difference is known and not zero.

    Example:
        >>> n_changed(np.array([[0.0], [2.0], [np.nan]]))
        array([1])
    """
    return np.asarray((np.isfinite(differences) & (differences != 0)).sum(axis=0))


def _is_sparse(n: Int[np.ndarray, "*cell"], n_changed: Int[np.ndarray, "*cell"]) -> Bool[np.ndarray, "*cell"]:
    """Whether most images do not change at all, as where a metric goes in steps."""
    return np.asarray(2 * n_changed < n)


def expanded_tail(n: Int[np.ndarray, "*cell"], level: float) -> Float64[np.ndarray, "*cell"]:
    """The lower percentile, as a probability, that a bootstrap over `n` images reads for a level.

    Args:
        n: images; below 2, as if there were 2.
        level: confidence level.

    Returns:
        Probabilities below (1 - level) / 2, and near it from a few hundred images on.

    Source: Hesterberg (2015), "What teachers should know about the bootstrap".

    Example:
        >>> expanded_tail(np.array([10, 1000]), 0.95).round(4)
        array([0.0086, 0.0248])
    """
    known = np.maximum(n, 2)
    quantile = special.stdtrit(known - 1, (1 - level) / 2)
    return np.asarray(special.ndtr(np.sqrt(known / (known - 1)) * quantile))


def missed_change(
    n: Int[np.ndarray, "*cell"],
    n_changed: Int[np.ndarray, "*cell"],
    *,
    reach: Float[np.ndarray, "*cell"] | float,
    alpha: float = 0.05,
) -> Float64[np.ndarray, "*cell"]:
    """How far a mean difference may lie beyond its interval because the images that change were missed.

    Where a metric goes in steps, most images do not change at all. None of `n` images is among a share
    1 - alpha^(1/n) of all, about 3 / n, with probability alpha. `sparse_interval` leaves room for that many
    steps of the size that was seen; a few images may change by more.

    Args:
        n: images behind each difference.
        n_changed: those whose difference is not zero.
        reach: how much more than the changes that were seen one image can change.
        alpha: chance of missing them.

    Returns:
        `reach` times the share where less than half of the images changed, else 0.

    Source: for n_changed = 0, Clopper and Pearson (1934), "The use of confidence or fiducial limits
    illustrated in the case of the binomial"; known as the rule of three.

    Example:
        >>> missed_change(np.array([100, 1000, 1000]), np.array([0, 3, 900]), reach=1.0).round(4)
        array([0.0295, 0.003 , 0.    ])
    """
    share = -np.expm1(np.log(alpha) / np.maximum(n, 1))
    return np.where(_is_sparse(n, n_changed), reach * share, 0.0)


def is_equivalent(
    low: Float[np.ndarray, "*cell"],
    high: Float[np.ndarray, "*cell"],
    n: Int[np.ndarray, "*cell"],
    *,
    margin: float,
    alpha: float = 0.05,
    missed: Float[np.ndarray, "*cell"] | float = 0.0,
) -> Bool[np.ndarray, "*cell"]:
    """Whether a difference is shown to be smaller than a margin: two one-sided tests, by interval.

    Two one-sided tests at `alpha` are an interval of level 1 - 2 `alpha` inside the margin. A summary takes
    the interval that it prints, of level 1 - `alpha`: skewed differences use up the rest.

    Args:
        low: lower bounds of an interval that lies above the truth with probability `alpha` at most.
        high: upper bounds of one that lies below it.
        n: images behind each interval.
        margin: the largest difference that counts as none, chosen before the data are seen.
        alpha: chance of calling a difference equivalent that is at the margin or beyond.
        missed: how far the difference may lie beyond the interval, from `missed_change`.

    Returns:
        True where the whole interval, `missed` added on both sides, lies strictly within ±`margin`. Never
        true of so few images that all of them fall inside the margin by chance with probability 2^-n above
        `alpha` (5 images at 0.05), nor where a bound is NaN.

    Source: Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power approach".

    Example:
        >>> is_equivalent(np.array([-0.01, 0.01]), np.array([0.02, 0.05]), np.array([900, 900]), margin=0.03)
        array([ True, False])
    """
    is_inside = (low - missed > -margin) & (high + missed < margin)
    return np.asarray(is_inside & (np.exp2(-n.astype(np.float64)) <= alpha))
