"""timm's `VisionTransformer` and its distilled form with two heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import Attention, Mlp, resample_abs_pos_embed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from ...errors import FamilyError
from ..block import OpenedBlock
from ..components import Opened
from ..config import ViTConfig
from .family import Family

# The methods whose work the opened form repeats: a subclass that changes one would be opened wrongly.
_REPEATED = ("forward", "forward_features", "forward_head", "_pos_embed", "pool")


class VisionTransformerFamily(Family):
    """ViT, DeiT, DINO and other models that timm builds from `VisionTransformer` with plain blocks."""

    name = "VisionTransformer"
    classes = (VisionTransformer,)

    def check(self, model: nn.Module) -> None:
        """Refuse what would be opened wrongly: overridden methods, other blocks, attention or MLPs."""
        known = VisionTransformerDistilled if _distilled(model) else VisionTransformer
        for method in _REPEATED:
            if getattr(type(model), method) is not getattr(known, method):
                raise FamilyError(
                    f"{type(model).__name__} overrides {method}() of timm's {known.__name__}.",
                    expected="timm's own forward pass, which the hooks repeat step by step",
                    remedy="Write a Family for the class and pass it to vitlens.register_family.",
                )
        vit = _vit(model)
        if not len(vit.blocks):
            raise FamilyError(
                f"This {type(model).__name__} has no blocks.",
                expected="at least one block",
                remedy="Build the model with depth 1 or more.",
            )
        for layer, block in enumerate(vit.blocks):
            _check_part(block, Block, f"blocks.{layer}")
            _check_part(block.attn, Attention, f"blocks.{layer}.attn")
            _check_part(block.mlp, Mlp, f"blocks.{layer}.mlp")
            for norm in ("norm1", "norm2"):
                if not isinstance(getattr(block, norm), nn.LayerNorm):
                    _refuse_part(getattr(block, norm), "LayerNorm", f"blocks.{layer}.{norm}")

    def config(self, model: nn.Module) -> ViTConfig:
        """Read the sizes off the live module."""
        vit = _vit(model)
        attention, mlp = vit.blocks[0].attn, vit.blocks[0].mlp
        size = getattr(vit.patch_embed, "img_size", None)
        prefix = ["cls"] if vit.cls_token is not None else []
        prefix += ["distillation"] if _distilled(model) else []
        prefix += ["register"] * (vit.num_prefix_tokens - len(prefix))
        return ViTConfig(
            family=self.name,
            n_layers=len(vit.blocks),
            n_heads=attention.num_heads,
            d_model=vit.embed_dim,
            d_head=attention.head_dim,
            d_mlp=mlp.fc1.out_features,
            n_classes=vit.num_classes,
            image_size=None if size is None else (size[0], size[1]),
            any_image_size=size is None or vit.dynamic_img_size,
            patch_size=(vit.patch_embed.patch_size[0], vit.patch_embed.patch_size[1]),
            n_channels=vit.patch_embed.proj.in_channels if hasattr(vit.patch_embed, "proj") else 3,
            prefix_kinds=tuple(prefix),
            pool=vit.global_pool or "none",
        )

    def blocks(self, model: nn.Module) -> Sequence[Opened]:
        """The opened form of each block."""
        return [OpenedBlock(block) for block in _vit(model).blocks]

    def embed(self, model: nn.Module, images: Tensor) -> Tensor:
        """Timm's own embedding: patches, prefix tokens, positions, dropouts, pre-norm."""
        vit = _vit(model)
        embedded: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
        return embedded

    def has_positions(self, model: nn.Module) -> bool:
        """Whether there is a position embedding."""
        return _vit(model).pos_embed is not None

    def embed_parts(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens and positions apart; a token without a position gets zeros."""
        vit = _vit(model)
        patches = vit.patch_embed(images)
        batch, n_prefix = patches.shape[0], vit.num_prefix_tokens
        grid = patches.shape[1:3] if vit.dynamic_img_size else None
        patches = patches.reshape(batch, -1, patches.shape[-1])
        prefix = [
            token.expand(batch, -1, -1)
            for token in (vit.cls_token, getattr(vit, "dist_token", None), getattr(vit, "reg_token", None))
            if token is not None
        ]
        tokens = torch.cat([*prefix, patches], dim=1) if prefix else patches
        if vit.pos_embed is None:
            return tokens, None
        position = vit.pos_embed
        if grid is not None:
            position = resample_abs_pos_embed(
                position,
                new_size=list(grid),
                old_size=list(vit.patch_embed.grid_size),
                num_prefix_tokens=0 if vit.no_embed_class else n_prefix,
            )
        if vit.no_embed_class and n_prefix:
            zeros = position.new_zeros(1, n_prefix, position.shape[-1])
            position = torch.cat([zeros, position], dim=1)
        # Repeated rather than expanded: a hook may write, and the parameter must not change.
        return tokens, position.repeat(batch, 1, 1)

    def enter(self, model: nn.Module, embedded: Tensor) -> Tensor:
        """Position dropout and patch dropout."""
        vit = _vit(model)
        # timm leaves position dropout out where there is no position embedding.
        dropped = embedded if vit.pos_embed is None else vit.pos_drop(embedded)
        entered: Tensor = vit.patch_drop(dropped)
        return entered

    def norm_pre(self, model: nn.Module) -> nn.Module | None:
        """The pre-norm, where it is one."""
        norm: nn.Module = _vit(model).norm_pre
        return None if isinstance(norm, nn.Identity) else norm

    def final_norm(self, model: nn.Module) -> tuple[nn.Module | None, bool]:
        """`norm` on every token, or `fc_norm` on the pooled feature."""
        vit = _vit(model)
        if not isinstance(vit.norm, nn.Identity):
            return vit.norm, False
        if not _distilled(model) and not isinstance(vit.fc_norm, nn.Identity):
            return vit.fc_norm, True
        return None, False

    def pool(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Timm's pooling; with two heads both tokens are kept: [batch 2 d_model]."""
        if _distilled(model):
            return tokens[:, :2]
        pooled: Tensor = _vit(model).pool(tokens)
        return pooled

    def classify(self, model: nn.Module, pooled: Tensor) -> Tensor:
        """The head, or the mean of the two heads."""
        vit = _vit(model)
        if isinstance(model, VisionTransformerDistilled):
            logits = vit.head(vit.head_drop(pooled[:, 0]))
            distilled = model.head_dist(vit.head_drop(pooled[:, 1]))
            if model.distilled_training and model.training:
                pair: Tensor = (logits, distilled)  # type: ignore[assignment]  # as timm does in this mode
                return pair
            mean: Tensor = (logits + distilled) / 2
            return mean
        single: Tensor = vit.head(vit.head_drop(pooled))
        return single

    def readout(self, model: nn.Module, resid: Tensor) -> Tensor:
        """Timm's own norm and head, on the tokens that the head reads."""
        vit = _vit(model)
        if _distilled(model):
            resid = resid[:, :2]
        elif vit.global_pool == "token" and vit.attn_pool is None:
            resid = resid[:, :1]
        logits: Tensor = vit.forward_head(vit.norm(resid))
        return logits


def _distilled(model: nn.Module) -> bool:
    return isinstance(model, VisionTransformerDistilled)


def _vit(model: nn.Module) -> VisionTransformer:
    assert isinstance(model, VisionTransformer)
    return model


def _check_part(part: nn.Module, known: type[nn.Module], name: str) -> None:
    # The exact class: a subclass may change what happens inside, and the hooks would not know.
    if type(part) is not known:
        _refuse_part(part, known.__name__, name)


def _refuse_part(part: nn.Module, known: str, name: str) -> None:
    raise FamilyError(
        f"{name} is a {type(part).__name__}, which the VisionTransformer family cannot open.",
        expected=f"timm's {known}",
        remedy="Write a Family for such models and pass it to vitlens.register_family.",
    )
