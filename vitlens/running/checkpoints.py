"""The models that a run is given: by name, of one architecture."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

from ..errors import AnalysisError, ArchitectureError
from ..models import HookedViT


def as_models(model: object) -> dict[str, HookedViT]:
    """Checkpoint name -> model, whichever way they are given; one alone is called `model`.

    Raises:
        AnalysisError: it is no model and no mapping of names to models.
    """
    models = {"model": model} if isinstance(model, HookedViT) else model
    if not isinstance(models, Mapping):
        raise AnalysisError(
            f"The model is a {type(model).__name__}.",
            expected="a HookedViT, or a mapping of names to several",
            remedy="Wrap a module of timm: vitlens.HookedViT(module).",
        )
    for name, each in models.items():
        if not isinstance(name, str) or not isinstance(each, HookedViT):
            is_path = isinstance(each, str | os.PathLike)
            raise AnalysisError(
                f"The checkpoint {name!r} is a {type(each).__name__}.",
                expected="a name, and a HookedViT",
                remedy="Load the file: vitlens.load(path)."
                if is_path
                else "Wrap a module of timm: vitlens.HookedViT(module).",
            )
    return dict(models)


def same_architecture(models: Mapping[str, HookedViT]) -> None:
    """Raise `ArchitectureError` where checkpoints have different shapes.

    Args:
        models: checkpoints by name.

    Raises:
        AnalysisError: there is no checkpoint.
        ArchitectureError: their configurations differ.

    Example:
        >>> import timm
        >>> model = HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1))
        >>> same_architecture({"base": model, "tuned": model})
    """
    if not models:
        raise AnalysisError(
            "There is no checkpoint.", expected="one or more", remedy='Pass {"base": model, "tuned": other}.'
        )
    (reference, first), *others = models.items()
    for name, model in others:
        differing = first.cfg.differences(model.cfg)
        if differing:
            said = ", ".join(f"{key} {mine!r} and {theirs!r}" for key, (mine, theirs) in differing.items())
            raise ArchitectureError(
                f"'{reference}' and '{name}' are of different architectures ({said}).",
                expected="checkpoints of one architecture",
                remedy="Compare checkpoints that were fine-tuned from one model without changing its shape.",
            )


def normalization(model: HookedViT) -> dict[str, list[float]]:
    """Mean and standard deviation that a model's pixels are normalized with: its weights do not tell.

    Args:
        model: the model.

    Returns:
        `mean` and `std`, a number a channel.

    Example:
        >>> import timm
        >>> normalization(HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1)))
        {'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5]}
    """
    return {name: [float(value) for value in model.data_config[name]] for name in ("mean", "std")}


def warn_of_normalizations(models: Mapping[str, HookedViT], *, stacklevel: int) -> None:
    """Warn where checkpoints of one architecture normalize images differently, as two of one origin do not.

    Weights fit any architecture of their shapes, so this is what a wrong name shows itself by.

    Args:
        models: checkpoints by name.
        stacklevel: as in `warnings.warn`, from the caller.

    Example:
        >>> import timm
        >>> model = HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1))
        >>> warn_of_normalizations({"base": model, "tuned": model}, stacklevel=1)
    """
    (reference, first), *others = ((name, normalization(model)) for name, model in models.items())
    for name, theirs in others:
        if theirs != first:
            said = " and ".join(f"mean {each['mean']}, std {each['std']}" for each in (first, theirs))
            warnings.warn(
                f"'{reference}' and '{name}' normalize images differently ({said}): they see the same "
                "pixels, each normalized in its own way. If one was fine-tuned from the other, check the "
                "architecture that was named when it was loaded.",
                UserWarning,
                stacklevel=stacklevel + 1,
            )
