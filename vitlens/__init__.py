"""vitlens: what changed inside a Vision Transformer."""

from . import errors, functional, images, names
from .images import CORRUPTIONS, corrupt, spectrum
from .models import ActivationCache, Family, HookedViT, ViTConfig, load, register_family, save, weights_sha256

__all__ = [
    "CORRUPTIONS",
    "ActivationCache",
    "Family",
    "HookedViT",
    "ViTConfig",
    "corrupt",
    "errors",
    "functional",
    "images",
    "load",
    "names",
    "register_family",
    "save",
    "spectrum",
    "weights_sha256",
]
