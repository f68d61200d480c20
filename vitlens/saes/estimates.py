"""What is estimated of an SAE on images: L0, FVU, and what a splice loses and recovers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from .intervals import ESTIMATES, Resamples

UNDEFINED = "the interval of zeroed minus original does not exclude 0"
"""Why there is no share recovered."""


@dataclass(frozen=True)
class Figure:
    """A figure over images, made of means of what each image adds.

    Attributes:
        name: what it is called in tables.
        units: its units.
        long_name: what it is, as a figure's axis title.
        parts: (rows, the SAE's name in them) -> per image, with a last dim `part`.
        of: means over images [... part] -> the figure.
        denominator: means -> what has to be told from 0 for the figure to be defined; None for nothing.
    """

    name: str
    units: str
    long_name: str
    parts: Callable[[xr.Dataset, str], xr.DataArray]
    of: Callable[[np.ndarray], np.ndarray]
    denominator: Callable[[np.ndarray], np.ndarray] | None = None

    def estimated(
        self, parts: xr.DataArray, resamples: Resamples, against: xr.DataArray | None = None
    ) -> xr.DataArray:
        """The figure with its interval, or its difference from that of other parts of the same images.

        Args:
            parts: from `parts`.
            resamples: of the images.
            against: parts of the same shape.

        Returns:
            Dims `estimate` and those of the parts but `image` and `part`.
        """
        sides = [parts] if against is None else [parts, against]
        ordered = [side.transpose("image", ..., "part").values.astype(np.float64) for side in sides]
        values = np.stack(ordered, axis=-2)

        def difference(means: np.ndarray) -> np.ndarray:
            each = self.of(means)
            return np.asarray(each[..., 0] if against is None else each[..., 0] - each[..., 1])

        estimates = resamples.of(values, difference)
        if self.denominator is not None:
            _, low, high = resamples.of(values, self.denominator)
            estimates = np.where(((low > 0) | (high < 0)).all(axis=-1), estimates, np.nan)
        dims = [str(dim) for dim in parts.dims if dim not in ("image", "part")]
        return xr.DataArray(
            estimates,
            dims=("estimate", *dims),
            coords={"estimate": list(ESTIMATES), **{dim: parts[dim].values for dim in dims}},
            attrs={"units": self.units, "long_name": self.long_name},
        )


def _ratio(means: np.ndarray) -> np.ndarray:
    return np.asarray(means[..., 0] / means[..., 1])


def _active_tokens(rows: xr.Dataset, sae: str) -> xr.DataArray:
    return xr.concat([rows[f"{sae}_l0"] * rows["n_tokens"], rows["n_tokens"]], "part")


def _squares(rows: xr.Dataset, sae: str) -> xr.DataArray:
    return xr.concat([rows[f"{sae}_squared_error"], rows["squared_deviation"]], "part")


CODE_FIGURES = (
    Figure("l0", "features", "Active features per token", _active_tokens, _ratio),
    Figure("fvu", "share", "Fraction of variance unexplained", _squares, _ratio),
)
"""What needs the codes alone."""


def _of_splice(name: str, variable: str, units: str, what: str) -> tuple[Figure, ...]:
    """The figures of one quantity, from its means for original, spliced and zeroed."""

    def parts(rows: xr.Dataset, sae: str) -> xr.DataArray:
        return rows[f"{sae}_splice_{variable}"].rename(intervention="part")

    def of_zeroing(means: np.ndarray) -> np.ndarray:
        return np.asarray(means[..., 2] - means[..., 0])

    def recovered(means: np.ndarray) -> np.ndarray:
        return np.asarray((means[..., 2] - means[..., 1]) / of_zeroing(means))

    return (
        Figure(f"{name}_original", units, what, parts, lambda means: means[..., 0]),
        Figure(f"{name}_spliced", units, f"{what}, SAE spliced in", parts, lambda means: means[..., 1]),
        Figure(f"{name}_zeroed", units, f"{what}, tokens zeroed", parts, lambda means: means[..., 2]),
        Figure(
            f"{name}_change_spliced",
            units,
            f"{what}, SAE spliced in minus original",
            parts,
            lambda means: means[..., 1] - means[..., 0],
        ),
        Figure(f"{name}_change_zeroed", units, f"{what}, tokens zeroed minus original", parts, of_zeroing),
        Figure(
            f"{name}_recovered", "share", f"{what}: share recovered", parts, recovered, denominator=of_zeroing
        ),
    )


SPLICE_FIGURES = (
    *_of_splice("accuracy", "correct", "share", "Accuracy"),
    *_of_splice("correct_probability", "correct_probability", "probability", "Correct-class probability"),
    *_of_splice("loss_nats", "loss_nats", "nats", "Cross-entropy"),
)
"""What needs a classifier to splice into."""


def listed(estimates: xr.DataArray, metric: str) -> Iterator[dict[str, Any]]:
    """The estimates of a figure as rows of a table, one for each condition and kind of token."""
    for place in np.ndindex(estimates.shape[1:]):
        cell = estimates[(slice(None), *place)]
        row = {"metric": metric, "condition": "", "token_kind": ""}
        row |= {str(name): str(coord.item()) for name, coord in cell.coords.items() if name != "estimate"}
        row |= dict(zip(ESTIMATES, cell.values.tolist(), strict=True))
        yield row | {"note": UNDEFINED if metric.endswith("_recovered") and np.isnan(cell.values[0]) else ""}


def with_deviation(rows: xr.Dataset) -> xr.Dataset:
    """Rows of `TokenMoments` with, in place of the moments, each image's part in the variance of all tokens.

    Returns:
        With `squared_deviation` (..., image, token_kind), Σ‖x − mean‖² over the image's tokens about the mean
        of all images' tokens of that kind.
    """
    n_tokens, spread, means = (
        rows[name].values for name in ("n_tokens", "squared_spread", "mean_activation")
    )
    deviation = np.empty(spread.shape)
    for place in np.ndindex(spread.shape[:-2]):  # one checkpoint and condition at a time: means are wide
        n, mean = n_tokens[place][..., None], means[place].astype(np.float64)
        center = (n * mean).sum(axis=0) / n.sum(axis=0)
        deviation[place] = spread[place] + (n * np.square(mean - center)).sum(axis=-1)
    attrs = {"units": "activation²", "long_name": "Squared deviation from the mean of all tokens"}
    kept = rows.drop_vars(["squared_spread", "mean_activation", "d_in"])
    return kept.assign(squared_deviation=(rows["squared_spread"].dims, deviation, attrs))
