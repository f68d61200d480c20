"""Bootstrap resamples as counts."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8


def resampled_counts(
    n_images: int, n_resamples: int, rng: np.random.Generator
) -> UInt8[np.ndarray, "resample image"]:
    """How often each bootstrap resample draws each image.

    Args:
        n_images: number of images, the sampling units.
        n_resamples: number of resamples.
        rng: gives the draws.

    Returns:
        Counts; each row sums to `n_images`.

    Example:
        >>> resampled_counts(5, 3, np.random.default_rng(0)).sum(axis=1).tolist()
        [5, 5, 5]
    """
    # A count above 255 needs an image drawn 256 times where once is expected: it does not happen.
    counts = np.empty((n_resamples, n_images), dtype=np.uint8)
    for row in counts:
        row[:] = np.bincount(rng.integers(max(n_images, 1), size=n_images), minlength=n_images)
    return counts
