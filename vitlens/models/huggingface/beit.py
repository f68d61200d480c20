"""BEiT: `BeitModel` and `BeitForImageClassification`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models.beit import Beit

from ...errors import ArchitectureError
from .model_type import ModelType, Settings, mlp_ratio, shape_arguments, unsupported_activation
from .relations import one, parameters
from .vit import EMBEDDINGS, HEAD, LAYERS, OLDER

_TABLE = "relative_position_bias_table"


def _build(hf_class: str, settings: Settings, timm_kwargs: Mapping[str, Any]) -> Beit:
    arguments = shape_arguments(settings)
    if settings["hidden_act"] != "gelu":
        raise unsupported_activation(settings["hidden_act"], ("gelu",))
    per_layer = settings.get("use_relative_position_bias", False)
    shared = settings.get("use_shared_relative_position_bias", False)
    height, width = arguments["img_size"]
    if (per_layer or shared) and height != width:
        raise ArchitectureError(
            f"The configuration has relative position biases on images of {height}×{width}.",
            expected="square images, on which Hugging Face and timm read the table alike",
            remedy="Such a model cannot be carried over to timm.",
        )
    return Beit(
        **{
            **arguments,
            "mlp_ratio": mlp_ratio(settings),
            "init_values": settings.get("layer_scale_init_value") or None,
            "use_abs_pos_emb": settings.get("use_absolute_position_embeddings", False),
            "use_rel_pos_bias": per_layer,
            "use_shared_rel_pos_bias": shared,
            "global_pool": "avg" if settings.get("use_mean_pooling", True) else "token",
            **timm_kwargs,
        }
    )


BEIT = ModelType(
    names=("beit",),
    classes=("BeitModel", "BeitForImageClassification"),
    anchor="embeddings.cls_token",
    relations=(
        *EMBEDDINGS,
        *LAYERS,
        one("blocks.{}.attn.q_bias", "layers.{}.attention.q_proj.bias"),
        one("blocks.{}.attn.v_bias", "layers.{}.attention.v_proj.bias"),
        one("blocks.{}.gamma_1", "layers.{}.lambda_1"),
        one("blocks.{}.gamma_2", "layers.{}.lambda_2"),
        one(f"blocks.{{}}.attn.{_TABLE}", f"layers.{{}}.relative_position_bias.{_TABLE}"),
        one(f"rel_pos_bias.{_TABLE}", f"shared_position_bias.{_TABLE}"),
        *parameters("fc_norm", "pooler.layernorm"),
        *HEAD,
    ),
    build=_build,
    older=(
        *OLDER,
        (rf"attention\.attention\.relative_position_bias\.{_TABLE}", f"relative_position_bias.{_TABLE}"),
        (r"^encoder\.relative_position_bias\.", "shared_position_bias."),
    ),
    # The index is computed from the image's size, and was once stored beside the table.
    unused=(r"embeddings\.mask_token", r".*relative_position_index$"),
)
