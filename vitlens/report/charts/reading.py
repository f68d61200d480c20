"""Reading labelled arrays: names on an axis, what is there, and means over images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from ...images.bad_images import BAD_IMAGES, told
from ..protocol import ComparisonLike


def names(data: xr.Dataset, dim: str) -> list[str]:
    """The labels of one axis, as text."""
    return [str(name) for name in data[dim].values]


def has(data: xr.Dataset, *variables: str) -> bool:
    """Whether all these variables are there, with at least one number each."""
    return all(name in data and bool(np.isfinite(data[name].values).any()) for name in variables)


def n_classes(comparison: ComparisonLike) -> int | None:
    """How many classes the models tell apart: the comparison's own number, else that of the names.

    None where neither is known, as a summary has it: then no top-k can be told to be of all classes.
    """
    own = getattr(comparison, "n_classes", None)
    return own or (len(comparison.class_names) if comparison.class_names is not None else None)


def clean_first(conditions: Sequence[str]) -> list[str]:
    """The conditions with "clean" moved to the front, if it is among them."""
    return sorted(conditions, key=lambda condition: condition != "clean")


def n_images(data: xr.Dataset) -> str:
    """The number of images, in words.

    Example:
        >>> n_images(xr.Dataset(coords={"image": ["a"]}))
        '1 image'
    """
    n = data.sizes["image"]
    return f"{n:,} image" + ("" if n == 1 else "s")


def left_out(data: xr.Dataset) -> str:
    """Which images could not be read, in words; empty where all could be.

    Example:
        >>> left_out(xr.Dataset(coords={"image": ["a"]}, attrs={"bad_images": {"b": "It is cut short."}}))
        "1 of 2 images could not be read and is left out: 'b'. The first: It is cut short."
    """
    bad = data.attrs.get(BAD_IMAGES, {})
    return told(bad, data.sizes["image"]) if bad else ""


def image_mean(values: xr.DataArray) -> xr.DataArray:
    """Mean over images in double precision; NaN is left out, and NaN where nothing is left."""
    n = values.count("image")
    return values.sum("image", dtype=np.float64) / n.where(n > 0)
