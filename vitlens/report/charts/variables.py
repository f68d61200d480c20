"""What a variable is to a figure: its words, its unit, and its means over images with their intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from .intervals import Z, mean_and_t, wilson
from .reading import n_images
from .style import escape, lines

RUN_DIMS = ("checkpoint", "condition")
IMAGE_DIMS = ("image", "named_image")
PLACE_DIMS = ("resid_layer", "layer")
KIND_DIMS = ("query_kind", "token_kind")
MAP_DIMS = ("patch_row", "patch_column")

PLACE_WORDS = {
    "resid_layer": "each place on the residual stream (resid_layer: 0 enters the first block, {last} leaves "
    "the last)",
    "layer": "each block (layer)",
}

_CLASS_NUMBERS = ("label", "predicted")
_OF_THE_STUDY = frozenset(
    {
        "rank",
        "correct_probability",
        "first_correct_layer",
        "tuned_first_correct_layer",
        "attention_entropy_nats",
    }
)
_SHARES = ("share", "proportion", "fraction", "accuracy")
_BARE = ("", "probability", "cosine", "count")
_TITLE_COLUMNS = 140
_ROWS_AT_ONCE = 64


def variable_words(name: str) -> str:
    """A variable's name as one says it.

    Example:
        >>> variable_words("n_artifact_tokens"), variable_words("lens_kl_nats")
        ('Number of artifact tokens', 'Lens kl')
    """
    said = re.sub("^n_", "number of ", name.removesuffix("_nats")).replace("_", " ").strip() or name
    return said[:1].upper() + said[1:]


def further_dims(values: xr.DataArray) -> tuple[str, ...]:
    """The dims of a variable beyond checkpoint, condition and image."""
    return tuple(str(dim) for dim in values.dims if dim not in (*RUN_DIMS, *IMAGE_DIMS))


def is_drawable(values: xr.DataArray) -> bool:
    """Whether a mean of the values says anything: numbers or Booleans, of which one at least is finite.

    Numbers that name classes (`label`, `predicted`, what ends so, and the unit `class`) have no mean.
    """
    name = str(values.name)
    names_class = any(name == word or name.endswith(f"_{word}") for word in _CLASS_NUMBERS)
    if names_class or values.attrs.get("units") == "class":
        return False
    numeric = values.dtype == bool or np.issubdtype(values.dtype, np.number)
    return numeric and set(RUN_DIMS) <= set(values.dims) and bool(np.isfinite(values.values).any())


class Means(NamedTuple):
    """Means over images in the quantity's unit; every array has the dims that were asked for.

    Attributes:
        mean: NaN where no image has a value.
        low: lower ends of the 95 % intervals; NaN where there is none.
        high: upper ends.
        n: images that have a value; 0 where that is not known.
    """

    mean: Float[np.ndarray, "*axes"]
    low: Float[np.ndarray, "*axes"]
    high: Float[np.ndarray, "*axes"]
    n: Shaped[np.ndarray, "*axes"]


@dataclass(frozen=True, eq=False)
class Quantity:
    """A variable, as a figure shows it.

    Attributes:
        name: of the variable.
        words: what it is, from its attribute `long_name`, else from its name; not escaped.
        unit: as an axis shows it, `"%"` for a share; empty for none.
        factor: from the variable's unit to the shown one.
        values: the variable itself.
        error: standard error of the values, for a statistic of the whole set that has one.
    """

    name: str
    words: str
    unit: str
    factor: float
    values: xr.DataArray
    error: xr.DataArray | None = None

    @property
    def is_proportion(self) -> bool:
        """Whether every value is 0 or 1."""
        return bool(self.values.dtype == bool)

    @property
    def is_per_image(self) -> bool:
        """Whether there is a value for each image, not one for the whole set."""
        return "image" in self.values.dims

    @property
    def title(self) -> str:
        """The words as a figure's title, escaped."""
        return escape(lines(self.words, _TITLE_COLUMNS, 1)[0])

    @property
    def difference_unit(self) -> str:
        """The unit of a difference."""
        return "percentage points" if self.unit == "%" else self.unit

    def axis(self, columns: int) -> str:
        """An axis' title, escaped: the words where they fit in so many columns, and the unit."""
        unit = f" ({self.unit})" if self.unit else ""
        short = "value" if not self.is_per_image else "share" if self.unit == "%" else "mean"
        said = self.words if len(self.words + unit) <= columns else short
        return escape(lines(said + unit, columns, 1)[0])

    def number(self, value: float) -> str:
        """A value with its unit, escaped.

        Example:
            >>> quantity(xr.Dataset({"right": ((), True)}), "right").number(12.34)
            '12.3 %'
        """
        text = f"{value:.1f}" if self.unit == "%" else f"{value:.4g}"
        return text if self.unit in _BARE else f"{text} {escape(self.unit)}"

    def means(self, *dims: str) -> Means:
        """Mean over images with its interval: Wilson's for a Boolean, Student's otherwise.

        A variable without images is its own mean, and has an interval where its standard error is known.

        Args:
            *dims: of the result, in this order.

        Returns:
            The means; `n` is 0 where it is not known how many images there are.
        """
        if not self.is_per_image:
            mean = self.factor * self.values.transpose(*dims).values.astype(np.float64)
            half = np.full_like(mean, np.nan)
            if self.error is not None:
                half = Z * self.factor * self.error.transpose(*dims).values.astype(np.float64)
            n = np.full_like(mean, float(self.values.attrs.get("n_images", 0)))
            return Means(mean, mean - half, mean + half, n)
        values = self.values.transpose(*dims, "image").values
        rows = values.reshape(-1, values.shape[-1])
        # Some rows at a time, so that no copy of all values in double precision is ever held.
        parts = [
            self._row_means(rows[start : start + _ROWS_AT_ONCE])
            for start in range(0, len(rows), _ROWS_AT_ONCE)
        ]
        mean, low, high, n = (
            np.concatenate(columns).reshape(values.shape[:-1]) for columns in zip(*parts, strict=True)
        )
        return Means(self.factor * mean, self.factor * low, self.factor * high, n)

    def _row_means(self, rows: Shaped[np.ndarray, "row image"]) -> Sequence[np.ndarray]:
        if not self.is_proportion:
            return mean_and_t(rows)
        n = np.full(len(rows), float(rows.shape[-1]))
        hits = rows.sum(-1).astype(np.float64)
        return hits / n, *wilson(hits, n), n

    def part(self, at: Mapping[str, Sequence[object]]) -> Quantity:
        """The same quantity at some labels only."""
        error = None if self.error is None else self.error.sel(at)
        return replace(self, values=self.values.sel(at), error=error)

    def n_words(self, data: xr.Dataset) -> str:
        """How many images there are under each condition, as a subtitle says it."""
        if not self.is_per_image and "n_images" in self.values.attrs:
            return f"{int(self.values.attrs['n_images']):,} images per condition"
        return f"{n_images(data)} per condition" if "image" in data.sizes else "the whole set of images"

    @property
    def interval_words(self) -> str:
        """What kind of interval the means have; empty for none."""
        if self.is_per_image:
            return "95 % Wilson interval" if self.is_proportion else "95 % Student's t interval"
        return "95 % normal interval" if self.error is not None else ""


def quantity(data: xr.Dataset, name: str) -> Quantity:
    """Read a variable and what it says of itself.

    Args:
        data: holds the variable; its attributes `units` and `long_name` are shown. A variable without
            images may have its standard error beside it, of the same name with `_se`.
        name: of the variable.

    Returns:
        The variable as a figure shows it.
    """
    values = data[name]
    said = str(values.attrs.get("units", "")).strip()
    unit = "nats" if not said and name.endswith("_nats") else said
    is_share = values.dtype == bool or unit in _SHARES
    words = long_name(values) or variable_words(name)
    # One thing in two units has one name: the unit, or the variable's own name, tells them apart.
    twins = [other for key, other in data.items() if key != name and long_name(other) == words]
    if twins:
        differ = unit and all(other.attrs.get("units") != unit for other in twins)
        words += f", in {unit}" if differ else f" ({name})"
    return Quantity(
        name=name,
        words=words[:1].upper() + words[1:],
        unit="%" if is_share else "" if unit == "1" else unit,
        factor=100.0 if is_share else 1.0,
        values=values,
        error=data[f"{name}_se"] if f"{name}_se" in data and "image" not in values.dims else None,
    )


def titles(data: xr.Dataset) -> dict[str, str]:
    """What the variables that say it themselves are called in their figures, plain text.

    The study's own variables are left out: their figures' titles and their metrics' names are made for them.
    """
    said = [str(name) for name, values in data.items() if long_name(values)]
    return {name: quantity(data, name).words for name in said if name not in _OF_THE_STUDY}


def definition(values: xr.DataArray) -> str:
    """What a variable is, in a sentence or two, from its attributes; empty if it says nothing."""
    told = " ".join(str(values.attrs.get("description", "")).split()) or long_name(values)
    unit = str(values.attrs.get("units", ""))
    if told and unit not in (*_BARE, *_SHARES, "1"):
        told = f"{told.rstrip('.')}. In {unit}."
    return told if not told or told.endswith(".") else f"{told}."


def long_name(values: xr.DataArray) -> str:
    """What a variable says it is, as one line without a period; empty if it says nothing."""
    return " ".join(str(values.attrs.get("long_name", "")).split()).rstrip(".")


def known_labels(values: xr.DataArray, dim: str) -> Sequence[object]:
    """The labels along `dim` that have a number at all; a join may leave others empty."""
    others = [other for other in values.dims if other != dim]
    return list(values[dim].values[values.notnull().any(others).values])
