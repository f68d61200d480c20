"""Families of Vision Transformers, chosen by class."""

from .family import Family
from .registry import find_family, register_family
from .vision_transformer import VisionTransformerFamily

__all__ = ["Family", "VisionTransformerFamily", "find_family", "register_family"]
