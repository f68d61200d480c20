"""The model types that can be carried, found by their class."""

from __future__ import annotations

from ...errors import FamilyError
from .beit import BEIT
from .clip import CLIP
from .deit import DEIT
from .dinov2 import DINOV2, DINOV2_WITH_REGISTERS
from .dinov3 import DINOV3
from .model_type import ModelType
from .siglip import SIGLIP
from .vit import VIT

MODEL_TYPES: tuple[ModelType, ...] = (VIT, DEIT, BEIT, DINOV2, DINOV2_WITH_REGISTERS, DINOV3, CLIP, SIGLIP)


def supported_classes() -> tuple[str, ...]:
    """Hugging Face's classes whose weights can be carried over to timm.

    Example:
        >>> "ViTForImageClassification" in supported_classes()
        True
    """
    return tuple(name for model_type in MODEL_TYPES for name in model_type.classes)


def of_class(hf_class: str) -> ModelType | None:
    """The model type of a class, or None."""
    return next((known for known in MODEL_TYPES if hf_class in known.classes), None)


def of_name(name: object) -> ModelType | None:
    """The model type that a configuration names, or None."""
    return next((known for known in MODEL_TYPES if name in known.names), None)


def get_class(hf_class: str) -> ModelType:
    """The model type of a class.

    Raises:
        FamilyError: the class cannot be carried.
    """
    model_type = of_class(hf_class)
    if model_type is None:
        raise FamilyError(
            f"'{hf_class}' is no class that can be carried over to timm.",
            expected=f"one of transformers' {', '.join(supported_classes())}",
            remedy="Load the weights into one of these classes and pass the module.",
        )
    return model_type
