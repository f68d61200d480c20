"""CLIP's vision tower, with its projection, with a classifier, or as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from .model_type import ModelType, Settings, activation, mlp_ratio, shape_arguments
from .relations import one, parameters

_LAYER = "encoder.layers.{}"

LAYERS = (
    *parameters("blocks.{}.norm1", f"{_LAYER}.layer_norm1"),
    *parameters("blocks.{}.attn.qkv", *(f"{_LAYER}.self_attn.{which}_proj" for which in "qkv")),
    *parameters("blocks.{}.attn.proj", f"{_LAYER}.self_attn.out_proj"),
    *parameters("blocks.{}.norm2", f"{_LAYER}.layer_norm2"),
    *parameters("blocks.{}.mlp.fc1", f"{_LAYER}.mlp.fc1"),
    *parameters("blocks.{}.mlp.fc2", f"{_LAYER}.mlp.fc2"),
    *parameters("norm", "post_layernorm"),
    *parameters("head", "classifier"),
)


def _build(hf_class: str, settings: Settings, timm_kwargs: Mapping[str, Any]) -> VisionTransformer:
    # The classifier reads the mean of the patches as the last block leaves them; the norm is passed by.
    classifies = hf_class == "CLIPForImageClassification"
    return VisionTransformer(
        **{
            **shape_arguments(settings),
            "mlp_ratio": mlp_ratio(settings),
            "act_layer": activation(settings),
            "pre_norm": True,
            "global_pool": "avg" if classifies else "token",
            "final_norm": not classifies,
            **timm_kwargs,
        }
    )


CLIP = ModelType(
    names=("clip_vision_model", "clip"),
    classes=("CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPForImageClassification"),
    loads_as={"CLIPModel": "CLIPVisionModel"},
    anchor="embeddings.class_embedding",
    relations=(
        one("cls_token", "embeddings.class_embedding"),
        one("pos_embed", "embeddings.position_embedding.weight"),
        *parameters("patch_embed.proj", "embeddings.patch_embedding"),
        *parameters("norm_pre", "pre_layrnorm"),
        *LAYERS,
        *parameters("head", "visual_projection"),
    ),
    build=_build,
    unused=(r"embeddings\.position_ids", r"post_layernorm\."),
)
