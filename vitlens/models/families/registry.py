"""Which family opens a module: chosen by class, never by a model's name."""

from __future__ import annotations

from torch import nn

from ...errors import FamilyError
from .beit import BeitFamily
from .eva import EvaFamily
from .family import Family
from .vision_transformer import VisionTransformerFamily

_families: list[Family] = [VisionTransformerFamily(), EvaFamily(), BeitFamily()]


def register_family(family: Family) -> Family:
    """Make `family` known; families registered later are asked first.

    Args:
        family: an adapter; its `classes` say which modules it opens.

    Returns:
        The same family.

    Raises:
        FamilyError: it is none.

    Example:
        A class of one's own, opened as timm's is; what differs would be overridden:

        >>> from timm.models import VisionTransformer
        >>> from vitlens.models.families import VisionTransformerFamily
        >>> class MyVisionTransformer(VisionTransformer): ...
        >>> class MyFamily(VisionTransformerFamily):
        ...     name, classes = "mine", (MyVisionTransformer,)
        >>> _ = register_family(MyFamily())
        >>> find_family(MyVisionTransformer(img_size=32, embed_dim=32, depth=1, num_heads=2)).name
        'mine'
    """
    if not isinstance(family, Family):
        raise FamilyError(
            f"The family is a {type(family).__name__}.",
            expected="an instance of a class that is derived from vitlens.Family",
            remedy="Write such a class and pass one of it.",
        )
    _families.insert(0, family)
    return family


def find_family(model: nn.Module) -> Family:
    """The family that opens `model`.

    Args:
        model: a module.

    Returns:
        The family that was registered last of those that know the class.

    Raises:
        FamilyError: no family knows the class, or the one that does cannot open a part of it.

    Example:
        >>> import timm
        >>> type(find_family(timm.create_model("vit_tiny_patch16_224"))).__name__
        'VisionTransformerFamily'
    """
    if not isinstance(model, nn.Module):
        raise FamilyError(
            f"The model is a {type(model).__name__}.",
            expected="a module of torch, such as timm.create_model makes",
            remedy="Load a file with vitlens.load, and a name with HookedViT.from_timm.",
        )
    for family in _families:
        if isinstance(model, family.classes):
            family.check(model)
            return family
    if hasattr(model, "_orig_mod"):
        raise FamilyError(
            f"The module is a compiled {type(model._orig_mod).__name__}.",
            expected="the module itself, whose steps the hooks have to reach",
            remedy="Wrap the module as it was before torch.compile; a compiled graph has no places to hook.",
        )
    known = ", ".join(sorted({cls.__name__ for family in _families for cls in family.classes}))
    raise FamilyError(
        f"{type(model).__module__}.{type(model).__name__} is of no family that vitlens can open.",
        expected=f"a timm module of class {known}",
        remedy="Wrap such a module, or write a Family for yours and pass it to vitlens.register_family.",
    )
