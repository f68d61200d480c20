"""timm's own factory, with an error that lists the nearest names."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

from ..errors import ArchitectureError
from ..names import nearest


def build_timm(name: str, *, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """`timm.create_model`, with an error that lists the nearest names.

    Raises:
        ArchitectureError: timm knows no such name.
    """
    architecture = name.split("/")[-1].split(".")[0]
    if ":" not in name and not timm.is_model(architecture):
        raise ArchitectureError(
            f"timm knows no architecture '{name}'.",
            expected=f"a name that timm.list_models() lists (nearest: {nearest(name, timm.list_models())})",
            remedy="Correct the name, or wrap the live module: HookedViT(module).",
        )
    model: nn.Module = timm.create_model(name, pretrained=pretrained, **kwargs)
    return model
