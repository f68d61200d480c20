"""DINOv3's vision transformer: `DINOv3ViTModel`, carried over to timm's `Eva`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.eva import Eva

from .model_type import ModelType, Settings, mlp_ratio, shape_arguments, unsupported_activation
from .relations import one, parameters

_LAYER = "model.layer.{}"
_ATTENTION = f"{_LAYER}.attention"


def _build(hf_class: str, settings: Settings, timm_kwargs: Mapping[str, Any]) -> Eva:
    gated = settings.get("use_gated_mlp", False)
    supported = ("silu", "swish") if gated else ("gelu",)
    if settings["hidden_act"] not in supported:
        raise unsupported_activation(settings["hidden_act"], supported)
    has_key_bias = settings.get("key_bias", False)
    return Eva(
        **{
            **shape_arguments(settings),
            "mlp_ratio": mlp_ratio(settings),
            # An alignment of 1 changes no width; it makes timm keep the gate in a matrix of its own.
            "swiglu_mlp": gated,
            "swiglu_align_to": 1 if gated else 0,
            # Eva's own attention has no bias on the keys.
            "attn_type": "rope" if has_key_bias else "eva",
            "qkv_bias": has_key_bias or settings.get("query_bias", True) or settings.get("value_bias", True),
            "init_values": settings.get("layerscale_value", 1.0),
            "num_reg_tokens": settings.get("num_register_tokens", 0),
            "use_abs_pos_emb": False,
            "use_rot_pos_emb": True,
            "rope_type": "dinov3",
            "rope_temperature": settings.get("rope_theta", 100.0),
            "rope_rotate_half": True,
            "global_pool": "token",
            "use_fc_norm": False,
            # Rotary positions are computed for any size, by both in the same way.
            "dynamic_img_size": True,
            **timm_kwargs,
        }
    )


DINOV3 = ModelType(
    names=("dinov3_vit",),
    classes=("DINOv3ViTModel",),
    anchor="embeddings.cls_token",
    relations=(
        one("cls_token", "embeddings.cls_token"),
        one("reg_token", "embeddings.register_tokens"),
        *parameters("patch_embed.proj", "embeddings.patch_embeddings"),
        *parameters("blocks.{}.norm1", f"{_LAYER}.norm1"),
        *parameters("blocks.{}.attn.qkv", *(f"{_ATTENTION}.{which}_proj" for which in "qkv")),
        one("blocks.{}.attn.q_bias", f"{_ATTENTION}.q_proj.bias"),
        one("blocks.{}.attn.v_bias", f"{_ATTENTION}.v_proj.bias"),
        *parameters("blocks.{}.attn.proj", f"{_ATTENTION}.o_proj"),
        one("blocks.{}.gamma_1", f"{_LAYER}.layer_scale1.lambda1"),
        *parameters("blocks.{}.norm2", f"{_LAYER}.norm2"),
        *parameters("blocks.{}.mlp.fc1_g", f"{_LAYER}.mlp.gate_proj"),
        *parameters("blocks.{}.mlp.fc1_x", f"{_LAYER}.mlp.up_proj"),
        *parameters("blocks.{}.mlp.fc1", f"{_LAYER}.mlp.up_proj"),
        *parameters("blocks.{}.mlp.fc2", f"{_LAYER}.mlp.down_proj"),
        one("blocks.{}.gamma_2", f"{_LAYER}.layer_scale2.lambda1"),
        *parameters("norm", "norm"),
    ),
    build=_build,
    older=((r"^layer\.", "model.layer."),),
    # Without registers there is still a table of them, of length 0.
    unused=(r"embeddings\.mask_token", r"embeddings\.register_tokens"),
)
