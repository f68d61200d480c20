"""How an analysis hands over its values: tensors with named axes become one labelled table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int
from torch import Tensor

from ..errors import AnalysisError


def table(variables: Mapping[str, tuple[Any, ...]], **coords: Sequence[Any]) -> xr.Dataset:
    """A table of one batch, from tensors.

    Args:
        variables: name -> (dims after `image`, values [image ...]), and as a third part, if wanted, the
            attributes `units` and `long_name`, which tables and figures show, and `description`, a sentence
            of definition. Floats become float32.
        **coords: dim -> its labels.

    Returns:
        The table, on the CPU.

    Raises:
        AnalysisError: a variable is no such tuple, its values have other axes than its dims, or a dim has two
            lengths.

    Example:
        >>> import torch
        >>> made = table({"score": ((), torch.tensor([0.5, 0.25]), {"units": "nats"})})
        >>> dict(made.sizes), made["score"].attrs
        ({'image': 2}, {'units': 'nats'})
    """
    if not isinstance(variables, Mapping) or not all(
        isinstance(each, tuple) and len(each) in (2, 3) and isinstance(each[1], Tensor)
        for each in variables.values()
    ):
        raise AnalysisError(
            f"variables is {variables!r}.",
            expected="name -> (dims after image, tensor) or (dims, tensor, attributes)",
            remedy='Write {"score": ((), scores)}, say.',
        )
    lengths: dict[str, int] = {dim: len(labels) for dim, labels in coords.items()}
    data = {}
    for name, (dims, values, *attributes) in variables.items():
        axes = ("image", *((dims,) if isinstance(dims, str) else dims))
        if len(axes) != values.ndim:
            raise AnalysisError(
                f"{name} is {tuple(values.shape)}, with the dims {', '.join(axes)}.",
                expected=f"a tensor of {len(axes)} axes, the first of which is the images",
                remedy="Give one value, or one array of values, for each image, and name its axes.",
            )
        for dim, size in zip(axes, values.shape, strict=True):
            if lengths.setdefault(dim, size) != size:
                raise AnalysisError(
                    f"{name} has {size} values along {dim}, where there are {lengths[dim]}.",
                    expected=f"one length of {dim} in all variables and its labels",
                    remedy="Call dims that differ by different names.",
                )
        data[name] = (axes, _array(values), *attributes)
    return xr.Dataset(data, coords={dim: list(labels) for dim, labels in coords.items()})


def where_known(
    values: Int[Tensor, "*batch"] | Bool[Tensor, "*batch"], known: Bool[Tensor, "*batch"]
) -> Tensor:
    """Whole numbers and truth values as they are, or, where some are not known, as floats with NaN there.

    Args:
        values: class numbers, ranks, counts; whether a prediction is correct.
        known: whether there is a value, as there is none of logits that are NaN.

    Returns:
        `values` themselves where all are known, else floats.

    Example:
        >>> import torch
        >>> where_known(torch.tensor([3, 0]), torch.tensor([True, False]))
        tensor([3., nan])
    """
    if bool(known.all()):
        return values
    return values.float().masked_fill(~known, nan)


def _array(values: Tensor) -> Any:
    values = values.detach()
    return np.asarray((values.float() if values.is_floating_point() else values).cpu())
