"""timm's own factory, with an error that lists the nearest names."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from ..errors import ArchitectureError
from ..names import nearest


def build_timm(name: str, *, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`timm.create_model`, with an error that lists the nearest names.

    Args:
        name: timm's name.
        pretrained: fetch the weights that timm names for it.
        **kwargs: handed on.

    Returns:
        The module.

    Raises:
        ArchitectureError: timm knows no such name, or does not take the arguments.

    Example:
        >>> type(build_timm("vit_tiny_patch16_224", depth=1)).__name__
        'VisionTransformer'
    """
    if not isinstance(name, str):
        raise ArchitectureError(
            f"The architecture is {name!r}.",
            expected="timm's name for it, as text",
            remedy='Write "deit_tiny_patch16_224", say; a live module goes to HookedViT.',
        )
    architecture = name.split("/")[-1].split(".")[0]
    if ":" not in name and not timm.is_model(architecture):
        raise ArchitectureError(
            f"timm knows no architecture '{name}'.",
            expected=f"a name that timm.list_models() lists (nearest: {nearest(name, timm.list_models())})",
            remedy="Correct the name, or wrap the live module: HookedViT(module).",
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **kwargs)
    except (TypeError, AttributeError, AssertionError) as error:  # of arguments that the class does not take
        raise ArchitectureError(
            f"timm cannot build '{name}' with {', '.join(kwargs) or 'no arguments'} ({error}).",
            expected="arguments that timm.create_model takes for it",
            remedy="See timm's page of the model's class.",
        ) from error
    return model
