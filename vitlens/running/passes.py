"""One forward pass: models in evaluation mode, pixels on their device, only what was asked for kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..errors import AnalysisError
from ..models import ActivationCache, HookedViT
from ..models.hook_point import Observer
from ..names import nearest
from .analysis import Reduction


@contextlib.contextmanager
def measuring(models: Sequence[HookedViT]) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has its own mode again."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes:
            module.training = training


def forward(
    model: HookedViT, pixels: Tensor, wanted: Sequence[Mapping[str, Reduction]]
) -> tuple[Tensor, list[ActivationCache]]:
    """Run `model` once for several readers.

    Args:
        model: the model.
        pixels: [batch 3 height width] in [0, 1].
        wanted: for each reader, hook name -> reduction.

    Returns:
        The logits, and for each reader its own view: just what it asked for, reduced as it asked.
    """
    views: list[dict[str, Tensor]] = [{} for _ in wanted]
    readers: dict[str, list[tuple[dict[str, Tensor], Reduction]]] = {}
    for view, reductions in zip(views, wanted, strict=True):
        for name, reduction in reductions.items():
            readers.setdefault(name, []).append((view, reduction))
    observers = {name: _reader(model, name, each) for name, each in readers.items()}
    images = model.normalize(pixels.to(model.device))
    with model.observing(observers):
        logits = model(images)
    return logits, [ActivationCache(view, model) for view in views]


def _reader(model: HookedViT, name: str, readers: list[tuple[dict[str, Tensor], Reduction]]) -> Observer:
    def observe(activation: Tensor) -> None:
        for view, reduction in readers:
            # Two readers that keep the whole activation share it.
            view[name] = model.keep(activation) if reduction is None else reduction(activation)

    return observe


def check_hooks(model: HookedViT, wanted: Mapping[str, Reduction], who: object) -> None:
    """Raise `AnalysisError` where somebody asks for a hook that the model has not."""
    missing = [name for name in wanted if name not in model.hook_dict]
    if missing:
        raise AnalysisError(
            f"{type(who).__name__} needs '{missing[0]}', which this model has not.",
            expected=f"a hook of this model (nearest: {nearest(missing[0], model.hook_names)})",
            remedy="See model.hook_names; leave the analysis out where the architecture has no such place.",
        )
