"""Families of Vision Transformers, chosen by class."""

from .beit import BeitFamily
from .eva import EvaFamily
from .family import Context, Embedding, Entry, Family
from .registry import find_family, register_family
from .vision_transformer import VisionTransformerFamily

__all__ = [
    "BeitFamily",
    "Context",
    "Embedding",
    "Entry",
    "EvaFamily",
    "Family",
    "VisionTransformerFamily",
    "find_family",
    "register_family",
]
