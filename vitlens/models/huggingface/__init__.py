"""Hugging Face: their vision transformers carried over to timm's module of the same shape, and back."""

from .carry import Carried, timm_module, to_timm
from .carry_back import to_huggingface_state_dict
from .model_types import supported_classes

__all__ = ["Carried", "supported_classes", "timm_module", "to_huggingface_state_dict", "to_timm"]
