"""Pools: several conditions taken together, each image counting once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from .. import names
from ..errors import ComparisonError
from .metrics import Metric


def pooled(metric: Metric, pool: str, conditions: Sequence[str]) -> Metric:
    """A metric under a pool of conditions: each image's value is its mean over them.

    The image is what was sampled; one image under many corruptions is one draw. An image that is NaN under
    any of the conditions is NaN in the pool: its mean over the others would be one over other conditions than
    its neighbors' or, in another checkpoint, its own.

    Args:
        metric: under all conditions.
        pool: the new condition's name.
        conditions: those taken together.

    Returns:
        The metric under one condition, `pool`. A mean of several proportions is none.

    Example:
        >>> values = xr.DataArray(
        ...     [[[1.0, 0.0], [1.0, 1.0]]],
        ...     dims=["checkpoint", "condition", "image"],
        ...     coords={"condition": ["fog@3", "snow@3"]},
        ... )
        >>> accuracy = Metric("top1_accuracy", "share", "", True, values)
        >>> pooled(accuracy, "weather", ["fog@3", "snow@3"]).values.values
        array([[[1. , 0.5]]])
    """
    parts = (metric.values.sel(condition=[condition]).values for condition in conditions)
    total = sum((part.astype(np.float64) for part in parts), start=np.float64(0))
    first = metric.values.sel(condition=[conditions[0]])
    values = xr.DataArray(total / len(conditions), first.coords, first.dims).assign_coords(condition=[pool])
    return replace(metric, values=values, is_proportion=metric.is_proportion and len(conditions) == 1)


def check_pools(
    pools: Mapping[str, Sequence[str]], conditions: Sequence[str], *, only: bool = False
) -> dict[str, list[str]]:
    """The pools, once it is sure that they name conditions of the data and nothing twice.

    Args:
        pools: name -> the conditions taken together.
        conditions: of the data.
        only: whether the pools stand alone, so that one may be called like a condition.

    Returns:
        The same, as lists.

    Raises:
        ComparisonError: a pool is empty, is called like a condition, or names one twice or one that is not
            there; or pools are to stand alone, and there is none.

    Example:
        >>> check_pools({"weather": ("fog@3",)}, ["clean", "fog@3"])
        {'weather': ['fog@3']}
    """
    if not isinstance(pools, Mapping):
        raise ComparisonError(
            f"pools is {pools!r}.",
            expected="a mapping from names to the conditions taken together",
            remedy='Write {"seen": ["fog@3", "snow@3"]}.',
        )
    if only and not pools:
        raise ComparisonError(
            "pools_only is given, and no pools.",
            expected="pools of conditions, where the single conditions are to be left out",
            remedy='Pass pools={"seen": ["fog@3", "snow@3"]} beside it.',
        )
    for pool, members in pools.items():
        if isinstance(members, str) or not isinstance(members, Sequence) or not members:
            raise ComparisonError(
                f"The pool {pool!r} is {members!r}.",
                expected="a list of conditions, one or more",
                remedy='Write {"seen": ["fog@3", "snow@3"]}.',
            )
        if pool in conditions and not only:
            raise ComparisonError(
                f"The pool {pool!r} is called like a condition of these data.",
                expected="a name that no condition has",
                remedy="Choose another, since rows are told apart by their condition, or leave the single "
                "conditions out: pools_only=True.",
            )
        for member in members:
            if member not in conditions:
                raise ComparisonError(
                    f"The pool {pool!r} names {member!r}, which is no condition of these data.",
                    expected=f"one of: {', '.join(conditions)}",
                    remedy=f"Nearest: {names.nearest(str(member), conditions)}.",
                )
        if len(set(members)) < len(members):
            raise ComparisonError(
                f"The pool {pool!r} names a condition twice: {', '.join(members)}.",
                expected="each condition once, since all of a pool count the same",
                remedy="Leave the second out.",
            )
    return {pool: list(members) for pool, members in pools.items()}
