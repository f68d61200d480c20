"""A histogram of positive values whose range grows with them, the same in whatever batches they come."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int

N_BINS = 64
"""Bins between 0 and the range's end; at least half of them reach to the largest value."""


class GrowingHistogram:
    """Counts of positive values in equal bins from 0, in one pass and without knowing the largest beforehand.

    The range ends at the least power of two above the largest value. Where a value lies beyond it, bins are
    merged two by two, which is exact: the counts are those of one look at all values.

    Example:
        >>> histogram = GrowingHistogram()
        >>> for values in ([0.5, 0.75], [3.0]):
        ...     histogram.add(np.array(values))
        >>> counts, edges = histogram.finish()
        >>> int(counts.sum()), float(edges[1]), float(edges[-1])
        (3, 0.0625, 3.0625)
    """

    def __init__(self) -> None:
        self._counts = np.zeros(N_BINS, dtype=np.int64)
        self._exponent: int | None = None

    def add(self, values: Float[np.ndarray, " value"]) -> None:
        """Count some more values, all of them above 0."""
        if not len(values):
            return
        exponent = math.frexp(float(values.max()))[1]
        if self._exponent is None:
            self._exponent = exponent
        for _ in range(exponent - self._exponent):
            merged = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate([merged, np.zeros_like(merged)])
            self._exponent += 1
        bins = np.ldexp(values.astype(np.float64), -self._exponent) * N_BINS  # exact: a power of two
        self._counts += np.bincount(bins.astype(np.int64), minlength=N_BINS)

    def finish(self) -> tuple[Int[np.ndarray, " bin"], Float[np.ndarray, " edge"]]:
        """The counts up to the last that is not 0, and their bins' edges; none without values."""
        n_used = int(np.flatnonzero(self._counts).max(initial=-1)) + 1
        width = math.ldexp(1 / N_BINS, self._exponent or 0)
        return self._counts[:n_used].copy(), np.arange(n_used + 1) * width
