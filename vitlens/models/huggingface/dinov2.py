"""DINOv2, with and without registers: the model and its classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .model_type import ModelType, Settings, State, activation, mlp_ratio, shape_arguments
from .relations import one, parameters
from .vit import EMBEDDINGS, HEAD

_LAYER = "encoder.layer.{}"
_POSITIONS = "embeddings.position_embeddings"
_REGISTERS = "embeddings.register_tokens"


class ClassTokenAndMean(nn.Module):
    """The class token beside the mean of the patches: what DINOv2's classifier reads.

    Args:
        n_prefix_tokens: tokens before the patches; the first of them is the class token.

    Example:
        >>> ClassTokenAndMean(1)(torch.tensor([[[1.0], [2.0], [4.0]]]))
        tensor([[1., 3.]])
    """

    def __init__(self, n_prefix_tokens: int) -> None:
        super().__init__()
        self.n_prefix_tokens = n_prefix_tokens

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch pos d_model] to [batch 2 d_model]."""
        return torch.cat([tokens[:, 0], tokens[:, self.n_prefix_tokens :].mean(dim=1)], dim=1)

    def extra_repr(self) -> str:
        """What its printed form says."""
        return f"n_prefix_tokens={self.n_prefix_tokens}"


def _build(hf_class: str, settings: Settings, timm_kwargs: Mapping[str, Any]) -> VisionTransformer:
    d_mlp = int(settings["hidden_size"] * settings["mlp_ratio"])
    mlp: dict[str, Any]
    if settings.get("use_swiglu_ffn", False):
        # Two thirds of the width in multiples of 8, and timm counts the gate and what it gates together.
        d_mlp = 2 * ((int(d_mlp * 2 / 3) + 7) // 8 * 8)
        mlp = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    else:
        mlp = {"act_layer": activation(settings)}
    vit = VisionTransformer(
        **{
            **shape_arguments(settings),
            **mlp,
            "mlp_ratio": mlp_ratio(settings, d_mlp),
            "qkv_bias": settings.get("qkv_bias", True),
            "init_values": settings.get("layerscale_value", 1.0),
            "reg_tokens": settings.get("num_register_tokens", 0),
            **timm_kwargs,
        }
    )
    if hf_class.endswith("ForImageClassification"):
        # timm's class has no such pooling by name, but it calls whatever module stands here.
        vit.attn_pool = ClassTokenAndMean(vit.num_prefix_tokens)
        vit.pool_include_prefix = True
        vit.global_pool = "token_avg"
        if vit.num_classes:
            vit.head = nn.Linear(2 * vit.embed_dim, vit.num_classes)
    return vit


def _give_registers_positions(state: State) -> State:
    """Hugging Face adds positions before it puts the registers in: in timm's order theirs are zero."""
    positions, registers = state[_POSITIONS], state[_REGISTERS]
    zeros = positions.new_zeros(registers.shape)
    return {**state, _POSITIONS: torch.cat([positions[:, :1], zeros, positions[:, 1:]], dim=1)}


def _take_registers_positions(state: State) -> State:
    """Positions that the registers learned since are part of the registers."""
    if "reg_token" not in state or "pos_embed" not in state:
        return state
    positions, registers = state["pos_embed"], state["reg_token"]
    first, learned, patches = positions.tensor_split([1, 1 + registers.shape[1]], dim=1)
    return {**state, "reg_token": registers + learned, "pos_embed": torch.cat([first, patches], dim=1)}


_TABLE = (
    *EMBEDDINGS,
    one("reg_token", _REGISTERS),
    *parameters("blocks.{}.norm1", f"{_LAYER}.norm1"),
    *parameters("blocks.{}.attn.qkv", *(f"{_LAYER}.attention.{which}_proj" for which in "qkv")),
    *parameters("blocks.{}.attn.proj", f"{_LAYER}.attention.o_proj"),
    one("blocks.{}.ls1.gamma", f"{_LAYER}.layer_scale1.lambda1"),
    *parameters("blocks.{}.norm2", f"{_LAYER}.norm2"),
    *parameters("blocks.{}.mlp.fc1", f"{_LAYER}.mlp.fc1"),
    *parameters("blocks.{}.mlp.fc2", f"{_LAYER}.mlp.fc2"),
    *parameters("blocks.{}.mlp.fc1", f"{_LAYER}.mlp.gate_proj", f"{_LAYER}.mlp.up_proj"),
    *parameters("blocks.{}.mlp.fc2", f"{_LAYER}.mlp.down_proj"),
    one("blocks.{}.ls2.gamma", f"{_LAYER}.layer_scale2.lambda1"),
    *HEAD,
)

_OLDER = (
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    # The gate and what it gates were once one matrix, as in timm.
    (r"mlp\.weights_in", "mlp.fc1"),
    (r"mlp\.weights_out", "mlp.fc2"),
)

DINOV2 = ModelType(
    names=("dinov2",),
    classes=("Dinov2Model", "Dinov2ForImageClassification"),
    anchor="embeddings.cls_token",
    relations=_TABLE,
    build=_build,
    older=_OLDER,
    unused=(r"embeddings\.mask_token",),
)

DINOV2_WITH_REGISTERS = ModelType(
    names=("dinov2_with_registers",),
    classes=("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
    anchor="embeddings.cls_token",
    relations=_TABLE,
    build=_build,
    older=_OLDER,
    unused=(r"embeddings\.mask_token",),
    before_timm=_give_registers_positions,
    after_timm=_take_registers_positions,
)
