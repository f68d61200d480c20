"""SigLIP's vision tower with its attention pooling, or with a classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from .clip import LAYERS
from .model_type import ModelType, Settings, activation, mlp_ratio, shape_arguments
from .relations import Relation, one, parameters


def _build(hf_class: str, settings: Settings, timm_kwargs: Mapping[str, Any]) -> VisionTransformer:
    pool = "map" if settings.get("vision_use_head", True) else ""
    return VisionTransformer(
        **{
            **shape_arguments(settings),
            "mlp_ratio": mlp_ratio(settings),
            "act_layer": activation(settings),
            "class_token": False,
            # The classifier reads the mean of the normed tokens, and leaves the pooling head aside.
            "global_pool": "avg" if hf_class == "SiglipForImageClassification" else pool,
            "fc_norm": False,
            **timm_kwargs,
        }
    )


SIGLIP = ModelType(
    names=("siglip_vision_model", "siglip"),
    classes=("SiglipVisionModel", "SiglipForImageClassification"),
    loads_as={"SiglipModel": "SiglipVisionModel"},
    anchor="embeddings.patch_embedding.weight",
    relations=(
        one("pos_embed", "embeddings.position_embedding.weight"),
        *parameters("patch_embed.proj", "embeddings.patch_embedding"),
        *LAYERS,
        one("attn_pool.latent", "head.probe"),
        Relation(("attn_pool.q.weight", "attn_pool.kv.weight"), ("head.attention.in_proj_weight",)),
        Relation(("attn_pool.q.bias", "attn_pool.kv.bias"), ("head.attention.in_proj_bias",)),
        *parameters("attn_pool.proj", "head.attention.out_proj"),
        *parameters("attn_pool.norm", "head.layernorm"),
        *parameters("attn_pool.mlp.fc1", "head.mlp.fc1"),
        *parameters("attn_pool.mlp.fc2", "head.mlp.fc2"),
    ),
    build=_build,
    unused=(r"embeddings\.position_ids", r"head\."),
)
