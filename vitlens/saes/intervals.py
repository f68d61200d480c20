"""Figures of means over images, with intervals that resample the images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8
from scipy import stats

from ..errors import SAEError
from ..functional.resampling import resampled_counts

ESTIMATES = ("value", "ci_low", "ci_high")
"""What is known of a figure: itself, and the bounds of its 95 % interval."""

N_BLOCK_RESAMPLES = 64
"""Resamples that are turned into float64 and summed at a time."""


class Resamples:
    """Bootstrap resamples of images, the same for everything that is estimated with them.

    Args:
        n_resamples: how often as many images as there are are drawn.
        seed: states all of the randomness.

    Raises:
        SAEError: there are fewer than 100 resamples.

    Example:
        >>> images = np.arange(100.0)
        >>> Resamples(1000, seed=0).of(images).round().tolist()
        [50.0, 44.0, 55.0]
    """

    def __init__(self, n_resamples: int, seed: int) -> None:
        if n_resamples < 100:
            raise SAEError(
                f"n_resamples is {n_resamples}.",
                expected="100 or more",
                remedy="Leave it out for 2000; percentiles of few resamples say little.",
            )
        self._n_resamples, self._seed = n_resamples, seed
        self._counts = np.empty((0, 0), dtype=np.uint8)

    def of(
        self,
        parts: Float[np.ndarray, "image ..."],
        figure: Callable[[np.ndarray], np.ndarray] = lambda means: means,
    ) -> Float[np.ndarray, "estimate ..."]:
        """A figure of means over images, with its interval.

        The interval is the percentile bootstrap's, its percentiles moved outward to what a t interval of as
        many images would have (Hesterberg's expanded percentiles). What belongs to one image is drawn
        together, so differences and ratios of parts are paired. A resample in which the figure is not
        defined, 0 / 0, widens both sides.

        Args:
            parts: what each image adds.
            figure: means [... part] -> figures [... figure].

        Returns:
            Value, lower and upper bound, in float64. The bounds are NaN below two images, and where the value
            is.

        Source: Efron (1979), "Bootstrap methods: another look at the jackknife"; Hesterberg (2015), "What
        teachers should know about the bootstrap".
        """
        n_images = len(parts)
        with np.errstate(all="ignore"):  # a ratio without a denominator is NaN
            value = figure(parts.mean(axis=0, dtype=np.float64))
            if n_images < 2:
                return np.stack([value, *[np.full_like(value, np.nan)] * 2])
            tail = stats.norm.cdf(stats.t.ppf(0.025, n_images - 1) * np.sqrt(n_images / (n_images - 1)))
            resampled = figure(self._means(parts))
            # A resample in which the figure is not defined could lie on either side.
            undefined = np.isnan(resampled)
            lowest, highest = (np.where(undefined, end, resampled) for end in (-np.inf, np.inf))
            low = np.quantile(lowest, tail, axis=0, method="lower")
            high = np.quantile(highest, 1 - tail, axis=0, method="higher")
            return np.stack([value, *(np.where(np.isnan(value), np.nan, bound) for bound in (low, high))])

    def _means(self, parts: Float[np.ndarray, "image ..."]) -> Float[np.ndarray, "resample ..."]:
        n_images = len(parts)
        flat = parts.reshape(n_images, -1)
        counts = self._drawn(n_images)
        means = np.empty((self._n_resamples, flat.shape[1]))
        for start in range(0, self._n_resamples, N_BLOCK_RESAMPLES):
            block = slice(start, start + N_BLOCK_RESAMPLES)
            means[block] = counts[block].astype(np.float64) @ flat / n_images
        return means.reshape(self._n_resamples, *parts.shape[1:])

    def _drawn(self, n_images: int) -> UInt8[np.ndarray, "resample image"]:
        """How often each resample draws each image; drawn once, since all figures share it."""
        if self._counts.shape[1] != n_images:
            rng = np.random.default_rng(self._seed)
            self._counts = resampled_counts(n_images, self._n_resamples, rng)
        return self._counts
