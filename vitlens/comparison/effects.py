"""Effect sizes: how large a paired difference is beside what varies from image to image."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int

from .draws import paired_spread


def d_z(differences: Float[np.ndarray, "image cell"]) -> Float64[np.ndarray, " cell"]:
    """Mean of each column's differences over their standard deviation.

    Args:
        differences: checkpoint minus reference, for each image; a value that is not finite is left out.

    Returns:
        Values of the differences' sign, without unit; NaN below two images and where all differences are
        equal, for then nothing varies that the mean could be measured by.

    Source: Cohen (1988), "Statistical power analysis for the behavioral sciences", 2nd ed., chapter 2.

    Example:
        >>> d_z(np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]))
        array([ 2., nan])
    """
    mean, _, _, spread = paired_spread(differences)
    return np.where(spread > 0, mean / np.where(spread > 0, spread, 1), np.nan)


def cohens_g(
    gained: Int[np.ndarray, "*cell"], lost: Int[np.ndarray, "*cell"]
) -> Float64[np.ndarray, "*cell"]:
    """Share of gains among the images that changed, less one half.

    It is what McNemar's test tests: 0 where gains and losses balance, ±0.5 where all changes go one way. How
    many images changed does not enter; the difference itself says that. The matched odds ratio,
    gained / lost, says the same and is infinite where nothing was lost.

    Args:
        gained: images right under the checkpoint alone.
        lost: images right under the reference alone.

    Returns:
        Values in [-0.5, 0.5]; NaN where no image changed.

    Source: Cohen (1988), "Statistical power analysis for the behavioral sciences", 2nd ed., chapter 5.

    Example:
        >>> cohens_g(np.array([3, 0, 0]), np.array([1, 2, 0]))
        array([ 0.25, -0.5 ,   nan])
    """
    changed = gained + lost
    return np.where(changed > 0, gained / np.maximum(changed, 1) - 0.5, np.nan)
