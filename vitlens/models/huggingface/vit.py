"""ViT: `ViTModel` and `ViTForImageClassification`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from .model_type import ModelType, Settings, activation, mlp_ratio, shape_arguments
from .relations import one, parameters

EMBEDDINGS = (
    one("cls_token", "embeddings.cls_token"),
    one("pos_embed", "embeddings.position_embeddings"),
    *parameters("patch_embed.proj", "embeddings.patch_embeddings.projection"),
)

_ATTENTION = "layers.{}.attention"

LAYERS = (
    *parameters("blocks.{}.norm1", "layers.{}.layernorm_before"),
    *parameters("blocks.{}.attn.qkv", *(f"{_ATTENTION}.{which}_proj" for which in "qkv")),
    *parameters("blocks.{}.attn.proj", f"{_ATTENTION}.o_proj"),
    *parameters("blocks.{}.norm2", "layers.{}.layernorm_after"),
    *parameters("blocks.{}.mlp.fc1", "layers.{}.mlp.fc1"),
    *parameters("blocks.{}.mlp.fc2", "layers.{}.mlp.fc2"),
)

HEAD = (*parameters("norm", "layernorm"), *parameters("head", "classifier"))

OLDER = (
    (r"^encoder\.layer\.", "layers."),
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"^(layers\.\d+)\.output\.dense", r"\1.mlp.fc2"),
)

# The pooler is a linear layer and a tanh after the final norm, which timm's ViT does not have.
UNUSED = (r"embeddings\.mask_token", r"pooler\.")


def arguments(settings: Settings) -> dict[str, Any]:
    """What `VisionTransformer` is called with for a ViT or a DeiT."""
    return {
        **shape_arguments(settings),
        "mlp_ratio": mlp_ratio(settings),
        "act_layer": activation(settings),
        "qkv_bias": settings.get("qkv_bias", True),
    }


def _build(hf_class: str, settings: Settings, timm_kwargs: Mapping[str, Any]) -> VisionTransformer:
    return VisionTransformer(**{**arguments(settings), **timm_kwargs})


VIT = ModelType(
    names=("vit",),
    classes=("ViTModel", "ViTForImageClassification"),
    anchor="embeddings.cls_token",
    relations=(*EMBEDDINGS, *LAYERS, *HEAD),
    build=_build,
    older=OLDER,
    unused=UNUSED,
)
