"""How an analysis hands over its values: tensors with named axes become one labelled table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor


def table(variables: Mapping[str, tuple[Sequence[str], Tensor]], **coords: Sequence[Any]) -> xr.Dataset:
    """A table of one batch, from tensors.

    Args:
        variables: name -> (dims after `image`, values [image ...]). Floats become float32.
        **coords: dim -> its labels.

    Returns:
        The table, on the CPU.

    Example:
        >>> import torch
        >>> dict(table({"score": ((), torch.tensor([0.5, 0.25]))}).sizes)
        {'image': 2}
    """
    data = {
        name: (("image", *dims), np.asarray((values.float() if values.is_floating_point() else values).cpu()))
        for name, (dims, values) in variables.items()
    }
    return xr.Dataset(data, coords={dim: list(labels) for dim, labels in coords.items()})
