"""Models: HookedViT, its cache, its families and its checkpoints."""

from .architecture import build, describe
from .building import build_timm
from .cache import ActivationCache
from .checkpoints import load, save, weights_sha256
from .config import ViTConfig
from .evaluating import evaluating
from .families import Family, find_family, register_family
from .hook_point import HookPoint
from .hooked_vit import HookedViT
from .huggingface import to_huggingface_state_dict

__all__ = [
    "ActivationCache",
    "Family",
    "HookPoint",
    "HookedViT",
    "ViTConfig",
    "build",
    "build_timm",
    "describe",
    "evaluating",
    "find_family",
    "load",
    "register_family",
    "save",
    "to_huggingface_state_dict",
    "weights_sha256",
]
