"""What an analysis is: it names hooks and turns one batch into labelled values per image.

Four small protocols, told apart by their methods:

    Analysis           __call__    one model's pass                        -> values per image
    PairedAnalysis     compare     two checkpoints' passes, same pixels    -> values per image
    GradientAnalysis   attribute   one model's pass and its gradients      -> values per image
    SetStatistic       finish      sums over a set, batch by batch         -> values of the set
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import xarray as xr
from torch import Tensor

from ..images import Batch
from ..models import ActivationCache, HookedViT

Reduction: TypeAlias = Callable[[Tensor], Tensor] | None
"""Applied to an activation as it streams by; None keeps it whole."""

State: TypeAlias = dict[str, Tensor]
"""What a `SetStatistic` has added up so far."""


@dataclass(frozen=True, eq=False)
class Pass:
    """One model's forward pass over a batch, as one analysis sees it.

    Attributes:
        model: the model that was run.
        cache: what the analysis's `hooks` asked for, reduced; nothing else.
        logits: [batch n_classes].

    Example:
        See `PairedAnalysis`, which is given two.
    """

    model: HookedViT
    cache: ActivationCache
    logits: Tensor


@runtime_checkable
class Analysis(Protocol):
    """An analysis knows no data set, no checkpoint and no plot; it never aggregates over images.

    Write one as a small frozen dataclass. Its `repr` names it when a stored run is resumed. With an attribute
    `image_ids` (a tuple of ids) it is made of those images only, and its rows stand along `named_image`.

    Example:
        The norm of the class token where it leaves the last block; the reduction keeps that token alone:

        >>> import timm, torch, vitlens as vl
        >>> @dataclass(frozen=True)
        ... class ClassTokenNorm:
        ...     def hooks(self, model):
        ...         return {vl.names.resid_hook(model.cfg.n_layers, model.cfg.n_layers): lambda x: x[:, 0]}
        ...
        ...     def __call__(self, model, cache, logits, batch):
        ...         (activation,) = cache.values()
        ...         return vl.table({"class_token_norm": ((), activation.norm(dim=-1))})
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(3)]
        >>> vl.run(model, images, [ClassTokenNorm()], progress=False)["class_token_norm"].sizes["image"]
        3
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
            batch: the pixels that the model saw, with labels and image ids, on the model's device.
        """
        ...


@runtime_checkable
class PairedAnalysis(Protocol):
    """Sees the passes of two checkpoints over the same pixels.

    It is made for every checkpoint against the first, the first against itself included.

    Example:
        By how much the logits move:

        >>> import timm, vitlens as vl
        >>> class LogitDistance:
        ...     def hooks(self, model):
        ...         return {}
        ...
        ...     def compare(self, reference, checkpoint, batch):
        ...         moved = (checkpoint.logits - reference.logits).norm(dim=-1)
        ...         return vl.table({"logit_distance": ((), moved)})
        >>> size = dict(img_size=32, num_classes=10, depth=2)
        >>> models = {
        ...     name: vl.HookedViT(timm.create_model("vit_tiny_patch16_224", **size)) for name in ("a", "b")
        ... }
        >>> images = [vl.images.digits("test")[i] for i in range(3)]
        >>> data = vl.run(models, images, [LogitDistance()], progress=False)
        >>> (data["logit_distance"].sel(checkpoint="a") == 0).all().item()
        True
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """As in `Analysis`; asked of each checkpoint."""
        ...

    def compare(self, reference: Pass, checkpoint: Pass, batch: Batch) -> xr.Dataset:
        """Values of one batch; the first dim of every variable is `image`.

        Args:
            reference: the first checkpoint's pass.
            checkpoint: the pass of the checkpoint whose row is filled.
            batch: the pixels that both saw.

        Returns:
            A table, as `vitlens.table` makes one.
        """
        ...


@runtime_checkable
class GradientAnalysis(Protocol):
    """Reads gradients of the correct class's logit, from one backward pass for all such analyses together.

    Example:
        See `GradientTimesActivation`, which is one.
    """

    def gradient_hooks(self, model: HookedViT) -> Sequence[str]:
        """The hooks whose activation and gradient are wanted of `model`.

        Raises:
            AnalysisError: the analysis cannot run on this model.
        """
        ...

    def attribute(
        self, model: HookedViT, cache: ActivationCache, gradients: ActivationCache, batch: Batch
    ) -> xr.Dataset:
        """Values of one batch; the first dim of every variable is `image`.

        Args:
            model: the model that was run.
            cache: the activations at `gradient_hooks`, detached.
            gradients: the gradients of each image's own correct-class logit with respect to them.
            batch: the pixels that the model saw.

        Returns:
            A table, as `vitlens.table` makes one.
        """
        ...


@runtime_checkable
class SetStatistic(Protocol):
    """What exists only over a set of images, such as CKA, from sums in one pass.

    Under `run` with one model, the checkpoint is its own reference.

    Example:
        See `CKA`, which is one.
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """As in `Analysis`; asked of each checkpoint."""
        ...

    def update(self, state: State | None, reference: Pass, checkpoint: Pass, batch: Batch) -> State:
        """The sums with one batch added.

        Keep sums in float64. A run that goes on hands back a state on the CPU, wherever it was before.

        Args:
            state: the sums so far; None for the first batch. It may be changed in place.
            reference: the first checkpoint's pass.
            checkpoint: the pass of the checkpoint whose statistic this is.
            batch: the pixels that both saw.

        Returns:
            The sums.
        """
        ...

    def merge(self, state: State, other: State) -> State:
        """The sums of two disjoint sets of images, `state` and `other`."""
        ...

    def finish(self, state: State) -> xr.Dataset:
        """The statistic of the sums in `state`; no variable has the dim `image`."""
        ...


AnyAnalysis: TypeAlias = Analysis | PairedAnalysis | GradientAnalysis | SetStatistic
"""Whatever `run` can make."""


def analysis_identity(analysis: AnyAnalysis) -> str:
    """What an analysis is in words, by which it is told from others: its `repr`, or else its attributes.

    Args:
        analysis: of any kind.

    Returns:
        The words, without addresses in memory.

    Example:
        >>> from vitlens.analyses import Prediction
        >>> analysis_identity(Prediction())
        'Prediction()'
    """
    kind = type(analysis)
    said = repr(analysis)
    if kind.__repr__ is object.__repr__:
        settings = ", ".join(f"{name}={value!r}" for name, value in sorted(vars(analysis).items()))
        said = f"{kind.__module__}.{kind.__qualname__}({settings})"
    # An object's address says nothing about what it measures.
    return re.sub(r" at 0x[0-9a-f]+", "", said)
