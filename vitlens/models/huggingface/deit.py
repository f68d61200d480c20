"""DeiT: `DeiTModel`, `DeiTForImageClassification` and the one with two heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from .model_type import ModelType, Settings
from .relations import one, parameters
from .vit import EMBEDDINGS, HEAD, LAYERS, OLDER, UNUSED, arguments

_TWO_HEADS = "DeiTForImageClassificationWithTeacher"


def _build(hf_class: str, settings: Settings, timm_kwargs: Mapping[str, Any]) -> VisionTransformer:
    if hf_class == _TWO_HEADS:
        return VisionTransformerDistilled(**{**arguments(settings), **timm_kwargs})
    # These read the class token alone, while timm's distilled class always averages its two heads. The
    # distillation token is then one more token without a patch: what timm calls a register.
    return VisionTransformer(**{**arguments(settings), "reg_tokens": 1, **timm_kwargs})


DEIT = ModelType(
    names=("deit",),
    classes=("DeiTModel", "DeiTForImageClassification", _TWO_HEADS),
    anchor="embeddings.cls_token",
    relations=(
        *EMBEDDINGS,
        one("dist_token", "embeddings.distillation_token"),
        one("reg_token", "embeddings.distillation_token"),
        *LAYERS,
        *HEAD,
        *parameters("head", "cls_classifier"),
        *parameters("head_dist", "distillation_classifier"),
    ),
    build=_build,
    older=OLDER,
    unused=UNUSED,
)
