"""What is refused before any statistics: data without samples, unknown names, margins that are none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import xarray as xr

from .. import names
from ..errors import ComparisonError
from ..images.values import is_real
from .metrics import SAMPLE_DIMS


def check_dataset(data: object) -> None:
    """Raise `ComparisonError` for what is no data set.

    Example:
        >>> check_dataset(xr.Dataset())
    """
    if not isinstance(data, xr.Dataset):
        raise ComparisonError(
            f"The data are a {type(data).__name__}.",
            expected="an xarray.Dataset of values for each checkpoint, condition and image",
            remedy="Give comparison.data, or what vl.run({'base': base, 'tuned': tuned}, ...) gives.",
        )


def check_dims(data: xr.Dataset) -> None:
    """Raise `ComparisonError` for what is no data set, or one without a checkpoint, a condition or an image.

    Example:
        >>> check_dims(xr.Dataset({"a": (SAMPLE_DIMS, [[[1.0]]])}))
    """
    check_dataset(data)
    for dim in SAMPLE_DIMS:
        if not data.sizes.get(dim):
            raise ComparisonError(
                f"The data have no {dim}.",
                expected=f"at least one value along each of {', '.join(SAMPLE_DIMS)}",
                remedy="Give the data of a comparison.",
            )


def check_known(given: Iterable[str], argument: str, kind: str, known: Sequence[str]) -> None:
    """Raise `ComparisonError` for a name that the data do not have, with the nearest that they have.

    Example:
        >>> check_known(["base"], "reference", "checkpoint", ["base", "tuned"])
    """
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ComparisonError(
            f"{argument} is {given!r}.",
            expected=f"a list of names, each a {kind}",
            remedy=f"Write {argument}=[...].",
        )
    for name in given:
        if name not in known:
            raise ComparisonError(
                f"{argument} names {name!r}, which is no {kind} of these data.",
                expected=f"one of: {', '.join(known) or 'none, for there is none'}",
                remedy=f"Nearest: {names.nearest(str(name), known)}." if known else "Leave it out.",
            )


def check_margins(margins: Mapping[str, float]) -> None:
    """Raise `ComparisonError` for a margin that is no size of a difference.

    Example:
        >>> check_margins({"top1_accuracy": 0.02})
    """
    if not isinstance(margins, Mapping):
        raise ComparisonError(
            f"margins is {margins!r}.",
            expected="a mapping from metrics to the largest difference that counts as none",
            remedy='Write {"top1_accuracy": 0.02}.',
        )
    for name, margin in margins.items():
        if not is_real(margin) or not 0 < margin < math.inf:
            raise ComparisonError(
                f"The margin of {name} is {margin}.",
                expected="a finite value above 0, in the metric's unit",
                remedy="Give the largest difference that you would call none, or leave the metric out.",
            )
