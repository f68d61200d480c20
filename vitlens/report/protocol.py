"""What a report reads from a comparison: labelled tables, and nothing of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import xarray as xr

from ..errors import ComparisonError


@runtime_checkable
class ComparisonLike(Protocol):
    """The part of a comparison that figures and pages are made from.

    Attributes:
        data: per-image values; every variable leads with the dims (checkpoint, condition, image).
        reference: name of the checkpoint that the others are compared with.
        examples: attention maps and pixels of a few named images, if any were kept.
        features: one row for each live SAE feature and its nearest counterpart, if SAEs were matched.
        class_names: name of each class, by index.
        provenance: how the numbers came about; anything that JSON can hold.

    Example:
        See `vitlens.Comparison`, which is one.
    """

    @property
    def data(self) -> xr.Dataset: ...  # noqa: D102
    @property
    def reference(self) -> str: ...  # noqa: D102
    @property
    def examples(self) -> xr.Dataset | None: ...  # noqa: D102
    @property
    def features(self) -> pd.DataFrame | None: ...  # noqa: D102
    @property
    def class_names(self) -> Sequence[str] | None: ...  # noqa: D102
    @property
    def provenance(self) -> Mapping[str, Any]: ...  # noqa: D102

    def summary(self) -> pd.DataFrame:
        """One row per metric, condition and checkpoint, with intervals and verdicts."""
        ...


def check_comparison(comparison: object) -> None:
    """Raise `ComparisonError` for what a report cannot be made from."""
    if not isinstance(comparison, ComparisonLike):
        raise ComparisonError(
            f"The comparison is a {type(comparison).__name__}.",
            expected="what vitlens.compare gives, or an object with the attributes of ComparisonLike",
            remedy="Read a saved one with vitlens.Comparison.load.",
        )
