"""What an analysis is: it names hooks and turns one batch into labelled values per image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import xarray as xr
from torch import Tensor

from ..images import Batch
from ..models import ActivationCache, HookedViT

Reduction = Callable[[Tensor], Tensor] | None
"""Applied to an activation as it streams by; None keeps it whole."""


@runtime_checkable
class Analysis(Protocol):
    """An analysis knows no data set, no checkpoint and no plot; it never aggregates over images.

    Write one as a small frozen dataclass.
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """The hooks to read, each with the reduction to apply as the activation streams by.

        Raises:
            AnalysisError: the analysis cannot run on this model.
        """
        ...

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch; the first dim of every variable is `image`.

        Args:
            model: the model that was run.
            cache: what `hooks` asked for, reduced; nothing else.
            logits: [batch n_classes].
            batch: the pixels that the model saw, with labels and image ids.
        """
        ...
