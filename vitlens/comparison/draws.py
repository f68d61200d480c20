"""What resampling needs: resamples and signs, drawn once, and what they add up to."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int8, Integer, UInt8

from ..functional.resampling import resampled_counts

_ROUNDING = 1e-12
"""Spreads below this share of the mean are rounding: the differences are all equal."""

_BLOCK = 128
"""Rows of draws that are turned into float32 at once; bounds the memory beside the draws themselves."""


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


def paired_spread(
    differences: Float[np.ndarray, "image cell"],
) -> tuple[
    Float64[np.ndarray, " cell"],
    Int[np.ndarray, " cell"],
    Float64[np.ndarray, "image cell"],
    Float64[np.ndarray, " cell"],
]:
    """`paired_mean`, the deviations from it, and their standard deviation.

    Args:
        differences: checkpoint minus reference, for each image.

    Returns:
        The means; the counts; the deviations, 0 for a value that is not finite; and the standard deviations,
        with n - 1 below: 0 where all values are equal up to rounding, and where there are fewer than two.

    Example:
        >>> _, _, deviations, spread = paired_spread(np.array([[1.0, 0.1], [3.0, 0.1]]))
        >>> deviations[:, 0], spread.round(3)
        (array([-1.,  1.]), array([1.414, 0.   ]))
    """
    mean, n = paired_mean(differences)
    deviations = np.where(np.isfinite(differences), differences - mean, 0.0)
    spread = np.sqrt(np.square(deviations).sum(axis=0) / np.maximum(n - 1, 1))
    return mean, n, deviations, np.where((n >= 2) & (spread > _ROUNDING * np.abs(mean)), spread, 0)


def product(
    draws: Integer[np.ndarray, "draw image"], columns: Float32[np.ndarray, "image cell"]
) -> Float32[np.ndarray, "draw cell"]:
    """`draws @ columns`, by blocks of draws."""
    product = np.empty((len(draws), columns.shape[1]), dtype=np.float32)
    for start in range(0, len(draws), _BLOCK):
        np.matmul(
            draws[start : start + _BLOCK].astype(np.float32), columns, out=product[start : start + _BLOCK]
        )
    return product
