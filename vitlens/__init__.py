"""vitlens: what changed inside a Vision Transformer."""

from . import errors, functional, names
from .models import ActivationCache, Family, HookedViT, ViTConfig, load, register_family, save, weights_sha256

__all__ = [
    "ActivationCache",
    "Family",
    "HookedViT",
    "ViTConfig",
    "errors",
    "functional",
    "load",
    "names",
    "register_family",
    "save",
    "weights_sha256",
]
