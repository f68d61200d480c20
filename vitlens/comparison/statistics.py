"""Paired statistics over images: p-values and their adjustment; hands on draws, intervals and proportions.

Every function takes differences, checkpoint minus reference, on the same images. A difference that is not
finite, because the image is NaN in either checkpoint, is left out of its own column alone.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int8
from scipy import special

from ..errors import ComparisonError
from ..images.values import is_real, is_whole
from .draws import paired_mean, product, resample_counts, sign_flips
from .intervals import (
    bootstrap_interval,
    is_equivalent,
    mean_interval,
    missed_change,
    n_changed,
    step_size,
)
from .proportions import mcnemar_p, tango_interval

__all__ = [
    "bootstrap_interval",
    "check_numbers",
    "holm",
    "is_equivalent",
    "max_t_p",
    "mcnemar_p",
    "mean_interval",
    "missed_change",
    "n_changed",
    "paired_mean",
    "resample_counts",
    "sign_flip_p",
    "sign_flips",
    "step_size",
    "tango_interval",
]

_TIE = 1e-5
"""Scores, of unit variance under sign flips, that differ by less are tied: float32 sums are not exact."""

_JOINT = 50
"""Flips beyond the observed score that a Monte-Carlo p needs; its relative error is then about 14 %."""


def sign_flip_p(
    differences: Float[np.ndarray, "image cell"], flips: Int8[np.ndarray, "flip image"]
) -> Float64[np.ndarray, " cell"]:
    """Two-sided p of each column's studentized mean difference under random signs.

    What is tested is that the checkpoints could be exchanged image by image: that differences are symmetric
    about 0.

    While at least 50 flips reach the observed |t|, p is their share with one added above and below. Beyond, p
    falls as Student's tail does, from the flips' own p at their 50th largest |t|: it starts from that value,
    so the two parts meet without a step, and it can fall far below one in the number of flips. It never falls
    below 2^(1 - m), the least that the signs of m images that changed can give.

    Args:
        differences: checkpoint minus reference, for each image; a value that is not finite is left out.
        flips: from `sign_flips`.

    Returns:
        p-values in (0, 1]: 1 where all differences are zero, NaN without an image.

    Source: Fisher (1935), "The design of experiments"; the added one, Phipson and Smyth (2010), "Permutation
    p-values should never be zero".

    Example:
        >>> sign_flip_p(np.array([[0.0], [0.0]]), sign_flips(2))
        array([1.])
    """
    finite = np.isfinite(differences)
    n = finite.sum(axis=0)
    observed, flipped = _scores(differences, flips)
    flipped.sort(axis=0)
    joint = min(_JOINT, len(flips))
    at_joint = flipped[-joint].astype(np.float64)
    n_beyond = (flipped >= observed - _TIE).sum(axis=0)
    n_beyond_joint = (flipped >= at_joint - _TIE).sum(axis=0)

    with np.errstate(invalid="ignore", divide="ignore"):
        fall = _student_tail(observed, n) / _student_tail(at_joint, n)
    tail = np.maximum(
        (1 + n_beyond_joint) / (1 + len(flips)) * fall, np.exp2(np.maximum(1 - n_changed(differences), -1022))
    )
    p = np.where(n_beyond >= joint, (1 + n_beyond) / (1 + len(flips)), tail)
    return np.where(n > 0, p, np.nan)


def max_t_p(
    differences: Float[np.ndarray, "image map cell"], flips: Int8[np.ndarray, "flip image"]
) -> Float64[np.ndarray, "map cell"]:
    """Two-sided p of each cell of a map, adjusted for the whole map (single-step max-T).

    All cells share the signs, so what the cells have in common counts once: where the checkpoints could be
    exchanged image by image, the chance that any cell of a map gets p < alpha is alpha. Where differences are
    skewed about a mean of 0 it is more, until there are a few hundred images.

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


def check_numbers(level: float, n_resamples: int, seed: int) -> None:
    """Raise `ComparisonError` for a level, a number of resamples or a seed that is none.

    Example:
        >>> check_numbers(level=0.95, n_resamples=2000, seed=0)
    """
    for is_right, given, expected in (
        (is_real(level) and 0.5 < level < 1, f"level is {level!r}.", "a value between 0.5 and 1"),
        (
            is_whole(n_resamples) and n_resamples >= 1,
            f"n_resamples is {n_resamples!r}.",
            "a whole number, at least 1",
        ),
        (is_whole(seed) and seed >= 0, f"seed is {seed!r}.", "a whole number, 0 or more"),
    ):
        if not is_right:
            raise ComparisonError(given, expected=expected, remedy="Leave it out for the usual value.")


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
    flipped = product(flips, kept.astype(np.float32))
    return np.abs(kept.sum(axis=0)), np.abs(flipped, out=flipped)


def _student_tail(
    score: Float64[np.ndarray, " cell"], n: Int[np.ndarray, " cell"]
) -> Float64[np.ndarray, " cell"]:
    """Upper tail of Student's t at the t that belongs to a score over `n` images."""
    t = score * np.sqrt((n - 1) / np.maximum(n - score**2, 0))
    return np.asarray(special.stdtr(n - 1, -t))
