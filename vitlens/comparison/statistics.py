"""Paired statistics over images: intervals, p-values, their adjustment, and equivalence.

Every function takes differences, checkpoint minus reference, on the same images. A difference that is not
finite, because the image is NaN in either checkpoint, is left out of its own column alone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int8, Integer, UInt8
from scipy import special

from ..errors import ComparisonError
from ..functional.resampling import resampled_counts

_BLOCK = 128
"""Rows of draws that are turned into float32 at once; bounds the memory beside the draws themselves."""

_TIE = 1e-5
"""Scores, of unit variance under sign flips, that differ by less are tied: float32 sums are not exact."""

_JOINT = 50
"""Flips beyond the observed score that a Monte-Carlo p needs; its relative error is then about 14 %."""


def resample_counts(
    n_images: int, n_resamples: int = 2000, seed: int = 0
) -> UInt8[np.ndarray, "resample image"]:
    """How often each bootstrap resample draws each image.

    Draw once and share between metrics and conditions: every interval then rests on the same resamples.

    Args:
        n_images: number of images, the sampling units.
        n_resamples: number of resamples.
        seed: states all of the randomness.

    Returns:
        Counts; each row sums to `n_images`.

    Example:
        >>> resample_counts(5, n_resamples=3).sum(axis=1).tolist()
        [5, 5, 5]
    """
    return resampled_counts(n_images, n_resamples, np.random.default_rng([seed, 0]))


def sign_flips(n_images: int, n_flips: int = 2000, seed: int = 0) -> Int8[np.ndarray, "flip image"]:
    """Random signs, one for each image in each flip.

    Args:
        n_images: number of images, the sampling units.
        n_flips: number of flips.
        seed: states all of the randomness.

    Returns:
        Values -1 and 1, each with probability one half.

    Example:
        >>> sorted(set(sign_flips(8).ravel().tolist()))
        [-1, 1]
    """
    rng = np.random.default_rng([seed, 1])
    return 2 * rng.integers(2, size=(n_flips, n_images), dtype=np.int8) - 1


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

    Source: Efron (1979); Hesterberg (2015), "What teachers should know about the bootstrap".

    Example:
        >>> low, high = bootstrap_interval(np.arange(100.0)[:, None], resample_counts(100))
        >>> bool(low[0] < 49.5 < high[0]), round(float(high[0] - low[0]))
        (True, 11)
    """
    mean, n = paired_mean(differences)
    finite = np.isfinite(differences)
    sums = _product(counts, np.where(finite, differences - mean, 0).astype(np.float32))
    sizes = np.broadcast_to(n.astype(np.float32), sums.shape)
    partial = n < len(differences)
    if partial.any():
        sizes = sizes.copy()
        sizes[:, partial] = _product(counts, finite[:, partial].astype(np.float32))
    with np.errstate(invalid="ignore"):
        ordered = np.sort(sums / sizes, axis=0)  # A resample without any finite image is NaN, and comes last.
    last = np.maximum(len(counts) - np.isnan(ordered).sum(axis=0) - 1, 0)

    n_known = np.maximum(n, 2)
    tail = special.ndtr(np.sqrt(n_known / (n_known - 1)) * special.stdtrit(n_known - 1, (1 - level) / 2))
    bounds = []
    for probability in (tail, 1 - tail):
        place = probability * last
        below = np.floor(place).astype(int)
        above = np.minimum(below + 1, last)
        at_below, at_above = (np.take_along_axis(ordered, at[None], axis=0)[0] for at in (below, above))
        bound = mean + at_below + (place - below) * (at_above - at_below)
        bounds.append(np.where(n >= 2, bound, np.nan))
    return bounds[0], bounds[1]


def tango_interval(
    gained: Int[np.ndarray, "*cell"],
    lost: Int[np.ndarray, "*cell"],
    n: Int[np.ndarray, "*cell"],
    level: float = 0.95,
) -> tuple[Float64[np.ndarray, "*cell"], Float64[np.ndarray, "*cell"]]:
    """Score interval of the difference of two proportions measured on the same images.

    It keeps its width when few images change, where a bootstrap collapses, and then errs on the safe side:
    where two images are expected to change, its 95 % cover about 99 %.

    Args:
        gained: images right under the checkpoint alone.
        lost: images right under the reference alone.
        n: all images.
        level: confidence level.

    Returns:
        Lower and upper bounds of (gained - lost) / n, within [-1, 1]; NaN without an image.

    Source: Tango (1998), "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design".

    Example:
        >>> low, high = tango_interval(np.array(1), np.array(7), np.array(21))
        >>> print(f"{low:.3f} to {high:.3f}")
        -0.517 to -0.026
    """
    z = special.ndtri(0.5 + level / 2)
    with np.errstate(invalid="ignore"):
        estimate = np.asarray((gained - lost) / np.asarray(n, dtype=np.float64))

    bounds = []
    for end in (-1.0, 1.0):
        # The score falls steadily with the difference: one crossing on each side of the estimate.
        within, beyond = estimate, np.full_like(estimate, end)
        for _ in range(60):
            middle = np.asarray((within + beyond) / 2)
            is_within = np.abs(_tango_score(gained, lost, n, middle)) <= z
            within, beyond = np.where(is_within, middle, within), np.where(is_within, beyond, middle)
        bounds.append(within)
    return bounds[0], bounds[1]


def mcnemar_p(
    gained: Int[np.ndarray, "*cell"], lost: Int[np.ndarray, "*cell"]
) -> Float64[np.ndarray, "*cell"]:
    """Exact two-sided p that gains and losses are equally likely; 1 where no image changed.

    Args:
        gained: images right under the checkpoint alone.
        lost: images right under the reference alone.

    Returns:
        p-values, at most 1.

    Source: McNemar (1947), with the binomial distribution in place of its approximation.

    Example:
        >>> mcnemar_p(np.array([0, 6, 5]), np.array([0, 0, 5]))
        array([1.     , 0.03125, 1.     ])
    """
    return np.asarray(np.minimum(1.0, 2 * special.bdtr(np.minimum(gained, lost), gained + lost, 0.5)))


def sign_flip_p(
    differences: Float[np.ndarray, "image cell"], flips: Int8[np.ndarray, "flip image"]
) -> Float64[np.ndarray, " cell"]:
    """Two-sided p of each column's studentized mean difference under random signs.

    While at least 50 flips reach the observed |t|, p is their share with one added above and below. Beyond, p
    falls as Student's tail does, from the flips' own p at their 50th largest |t|: it starts from that value,
    so the two parts meet without a step, and it can fall far below one in the number of flips. It never falls
    below 2^(1 - m), the least that the signs of m images that changed can give.

    Args:
        differences: checkpoint minus reference, for each image; a value that is not finite is left out.
        flips: from `sign_flips`.

    Returns:
        p-values in (0, 1]: 1 where all differences are zero, NaN without an image.

    Source: Fisher (1935), "The design of experiments"; the added one, Phipson and Smyth (2010).

    Example:
        >>> sign_flip_p(np.array([[0.0], [0.0]]), sign_flips(2))
        array([1.])
    """
    finite = np.isfinite(differences)
    n = finite.sum(axis=0)
    n_changed = (finite & (differences != 0)).sum(axis=0)
    observed, flipped = _scores(differences, flips)
    flipped.sort(axis=0)
    joint = min(_JOINT, len(flips))
    at_joint = flipped[-joint].astype(np.float64)
    n_beyond = (flipped >= observed - _TIE).sum(axis=0)
    n_beyond_joint = (flipped >= at_joint - _TIE).sum(axis=0)

    with np.errstate(invalid="ignore", divide="ignore"):
        fall = _student_tail(observed, n) / _student_tail(at_joint, n)
    tail = np.maximum(
        (1 + n_beyond_joint) / (1 + len(flips)) * fall, np.exp2(np.maximum(1 - n_changed, -1022))
    )
    p = np.where(n_beyond >= joint, (1 + n_beyond) / (1 + len(flips)), tail)
    return np.where(n > 0, p, np.nan)


def max_t_p(
    differences: Float[np.ndarray, "image map cell"], flips: Int8[np.ndarray, "flip image"]
) -> Float64[np.ndarray, "map cell"]:
    """Two-sided p of each cell of a map, adjusted for the whole map (single-step max-T).

    All cells share the signs, so what the cells have in common counts once: the chance that any cell of a map
    without differences gets p < alpha is alpha.

    Args:
        differences: checkpoint minus reference, for each image, map and cell; a value that is not finite is
            left out. Each map is adjusted by itself.
        flips: from `sign_flips`.

    Returns:
        Adjusted p-values, at least 1 / (flips + 1); NaN in a cell without an image.

    Source: Westfall and Young (1993), "Resampling-based multiple testing".

    Example:
        >>> changed, same = np.ones(20), np.tile([1.0, -1.0], 10)
        >>> max_t_p(np.stack([changed, same], axis=1)[:, None], sign_flips(20)).round(3)
        array([[0., 1.]])
    """
    _, n_maps, n_cells = differences.shape
    observed, flipped = _scores(differences.reshape(len(differences), -1), flips)
    largest = np.sort(flipped.reshape(len(flips), n_maps, n_cells).max(axis=2, initial=0), axis=0)
    scores = observed.reshape(n_maps, n_cells) - _TIE
    n_below = np.array([np.searchsorted(*pair) for pair in zip(largest.T, scores, strict=True)])
    p = (1 + len(flips) - n_below.reshape(n_maps, n_cells)) / (1 + len(flips))
    return np.where(np.isfinite(differences).any(axis=0), p, np.nan)


def holm(p: Float[np.ndarray, " test"]) -> Float64[np.ndarray, " test"]:
    """Holm's adjustment of a family of p-values.

    Args:
        p: p-values of the family; NaN is no test: it stays NaN and does not count.

    Returns:
        Adjusted p-values, at most 1; equal p-values stay equal.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".

    Example:
        >>> holm(np.array([0.01, 0.04, np.nan, 0.03]))
        array([0.03, 0.06,  nan, 0.06])
    """
    n_tests = int(np.isfinite(p).sum())
    order = np.argsort(p)[:n_tests]  # NaN is sorted last.
    adjusted = np.full(p.shape, np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(n_tests, 0, -1)))
    return adjusted


def is_equivalent(
    low: Float[np.ndarray, "*cell"],
    high: Float[np.ndarray, "*cell"],
    n: Int[np.ndarray, "*cell"],
    *,
    margin: float,
    alpha: float = 0.05,
) -> Bool[np.ndarray, "*cell"]:
    """Whether a difference is shown to be smaller than a margin: two one-sided tests, by interval.

    Args:
        low: lower bounds of the interval of level 1 - 2 `alpha`.
        high: its upper bounds.
        n: images behind each interval.
        margin: the largest difference that counts as none, chosen before the data are seen.
        alpha: chance of calling a difference equivalent that is at the margin or beyond.

    Returns:
        True where the whole interval lies strictly within ±`margin`. Never true of so few images that all of
        them fall inside the margin by chance with probability 2^-n above `alpha` (5 images at 0.05), nor
        where a bound is NaN.

    Source: Schuirmann (1987), "A comparison of the two one-sided tests procedure and the power approach".

    Example:
        >>> is_equivalent(np.array([-0.01, 0.01]), np.array([0.02, 0.05]), np.array([900, 900]), margin=0.03)
        array([ True, False])
    """
    return np.asarray((low > -margin) & (high < margin) & (np.exp2(-n.astype(np.float64)) <= alpha))


def check_numbers(level: float, n_resamples: int, seed: int) -> None:
    """Raise `ComparisonError` for a level, a number of resamples or a seed that is none.

    Example:
        >>> check_numbers(level=0.95, n_resamples=2000, seed=0)
    """
    for is_wrong, given, expected in (
        (not 0.5 < level < 1, f"level is {level}.", "a value between 0.5 and 1"),
        (n_resamples < 1, f"n_resamples is {n_resamples}.", "at least 1"),
        (seed < 0, f"seed is {seed}.", "0 or more"),
    ):
        if is_wrong:
            raise ComparisonError(given, expected=expected, remedy="Leave it out for the usual value.")


def paired_mean(
    differences: Float[np.ndarray, "image cell"],
) -> tuple[Float64[np.ndarray, " cell"], Int[np.ndarray, " cell"]]:
    """Mean of each column's finite values, and how many there are.

    Args:
        differences: checkpoint minus reference, for each image.

    Returns:
        The means, NaN where there is no finite value, and the counts.

    Example:
        >>> paired_mean(np.array([[1.0, np.nan], [2.0, np.nan]]))
        (array([1.5,  nan]), array([2, 0]))
    """
    finite = np.isfinite(differences)
    n = finite.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(finite, differences, 0).sum(axis=0, dtype=np.float64) / n, n


def _product(
    draws: Integer[np.ndarray, "draw image"], columns: Float32[np.ndarray, "image cell"]
) -> Float32[np.ndarray, "draw cell"]:
    """`draws @ columns`, by blocks of draws."""
    product = np.empty((len(draws), columns.shape[1]), dtype=np.float32)
    for start in range(0, len(draws), _BLOCK):
        np.matmul(
            draws[start : start + _BLOCK].astype(np.float32), columns, out=product[start : start + _BLOCK]
        )
    return product


def _tango_score(
    gained: Int[np.ndarray, "*cell"],
    lost: Int[np.ndarray, "*cell"],
    n: Int[np.ndarray, "*cell"],
    delta: Float64[np.ndarray, "*cell"],
) -> Float64[np.ndarray, "*cell"]:
    """Standardized distance of gained - lost from what a true difference of `delta` would give."""
    # Given the difference, the likelihood is greatest at the larger root of 2n q² + b q + c; q is P(lost).
    b = (2 * n - gained + lost) * delta - gained - lost
    c = -lost * delta * (1 - delta)
    with np.errstate(invalid="ignore", divide="ignore"):
        q = (np.sqrt(np.maximum(b * b - 8 * n * c, 0)) - b) / (4 * n)
        return np.asarray((gained - lost - n * delta) / np.sqrt(n * (2 * q + delta * (1 - delta))))


def _scores(
    differences: Float[np.ndarray, "image cell"], flips: Int8[np.ndarray, "flip image"]
) -> tuple[Float64[np.ndarray, " cell"], Float32[np.ndarray, "flip cell"]]:
    """|sum| / root of the sum of squares: of the differences, and of the same under each flip.

    Signs leave the sum of squares as it is, so under flips the score has variance 1, and |t| increases with
    it: it orders the flips as t does, without t's division by what may be zero.
    """
    kept = np.where(np.isfinite(differences), differences, 0).astype(np.float64)
    root = np.sqrt(np.square(kept).sum(axis=0))
    kept /= np.where(root > 0, root, 1)
    flipped = _product(flips, kept.astype(np.float32))
    return np.abs(kept.sum(axis=0)), np.abs(flipped, out=flipped)


def _student_tail(
    score: Float64[np.ndarray, " cell"], n: Int[np.ndarray, " cell"]
) -> Float64[np.ndarray, " cell"]:
    """Upper tail of Student's t at the t that belongs to a score over `n` images."""
    t = score * np.sqrt((n - 1) / np.maximum(n - score**2, 0))
    return np.asarray(special.stdtr(n - 1, -t))
