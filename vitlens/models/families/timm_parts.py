"""What timm's Vision Transformers have in common: checks, sizes, embeddings and heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from ...errors import FamilyError, HookError
from ..config import ViTConfig
from ..opened import (
    ATTENTIONS,
    BLOCKS,
    MLPS,
    PARALLEL_BLOCKS,
    SIDE_BY_SIDE_BLOCKS,
    Opened,
    OpenedBlock,
    OpenedParallelBlock,
    OpenedThingsBlock,
)
from .family import Context, Embedding, Entry, Family

_REMEDY = "Write a Family for such models and pass it to vitlens.register_family."


class TimmFamily(Family):
    """Base of the families that timm's own classes form.

    Attributes:
        repeated: the methods whose work the opened form repeats; a subclass that changes one would be
            opened wrongly and is refused.
    """

    repeated: tuple[str, ...] = ("forward", "forward_features", "forward_head", "_pos_embed", "pool")

    def check(self, model: nn.Module) -> None:
        """Refuse what would be opened wrongly: overridden methods, unknown blocks, attentions or MLPs."""
        known = next(cls for cls in type(model).__mro__ if cls in self.classes)
        for method in self.repeated:
            if getattr(type(model), method) is not getattr(known, method):
                raise FamilyError(
                    f"{type(model).__name__} overrides {method}() of timm's {known.__name__}.",
                    expected="timm's own forward pass, which the hooks repeat step by step",
                    remedy="Write a Family for the class and pass it to vitlens.register_family.",
                )
        vit: Any = model
        if not len(vit.blocks):
            raise FamilyError(
                f"This {type(model).__name__} has no blocks.",
                expected="at least one block",
                remedy="Build the model with depth 1 or more.",
            )
        for layer, block in enumerate(vit.blocks):
            check_block(block, f"blocks.{layer}")

    def blocks(self, model: nn.Module) -> Sequence[Opened]:
        """The opened form of each block."""
        vit: Any = model
        is_rotary = getattr(vit, "rope", None) is not None
        return [open_block(block, is_rotary=is_rotary) for block in vit.blocks]

    def config(self, model: nn.Module) -> ViTConfig:
        """Read the sizes off the live module."""
        vit: Any = model
        n_heads, d_head, d_mlp = _inner_sizes(vit.blocks[0])
        embed = vit.patch_embed
        size = getattr(embed, "img_size", None)
        projection = getattr(embed, "proj", None)
        return ViTConfig(
            family=self.name,
            n_layers=len(vit.blocks),
            n_heads=n_heads,
            d_model=vit.embed_dim,
            d_head=d_head,
            d_mlp=d_mlp,
            n_classes=vit.num_classes,
            image_size=None if size is None else (size[0], size[1]),
            any_image_size=size is None or getattr(vit, "dynamic_img_size", False),
            patch_size=(embed.patch_size[0], embed.patch_size[1]),
            n_channels=getattr(projection, "in_channels", getattr(vit, "in_chans", 3)),
            prefix_kinds=self.prefix_kinds(model),
            pool=vit.global_pool or "none",
        )

    def prefix_kinds(self, model: nn.Module) -> tuple[str, ...]:
        """The kind of each token before the patches."""
        vit: Any = model
        kinds = ["cls"] if vit.cls_token is not None else []
        kinds += ["distillation"] if getattr(vit, "dist_token", None) is not None else []
        return (*kinds, *["register"] * (vit.num_prefix_tokens - len(kinds)))

    def has_positions(self, model: nn.Module) -> bool:
        """Whether there is a position embedding."""
        vit: Any = model
        return vit.pos_embed is not None

    def has_norm_pre(self, model: nn.Module) -> bool:
        """Whether there is a pre-norm."""
        return not isinstance(getattr(model, "norm_pre", nn.Identity()), nn.Identity)

    def embed_parts(self, model: nn.Module, images: Tensor) -> Embedding:
        """Tokens and positions apart."""
        vit: Any = model
        patches = vit.patch_embed(images)
        return self.parts_of(model, patches)

    def parts_of(self, model: nn.Module, patches: Tensor, rest: Context | None = None) -> Embedding:
        """Tokens and positions apart, of patches [batch patch d_model] or [batch row column d_model]."""
        vit: Any = model
        batch, n_prefix = patches.shape[0], vit.num_prefix_tokens
        grid = patches.shape[1:3] if patches.ndim == 4 else None
        patches = patches.reshape(batch, -1, patches.shape[-1])
        prefix = [
            token.expand(batch, -1, -1)
            for token in (vit.cls_token, getattr(vit, "dist_token", None), getattr(vit, "reg_token", None))
            if token is not None
        ]
        tokens = torch.cat([*prefix, patches], dim=1) if prefix else patches
        position = vit.pos_embed
        if position is None:
            return Embedding(tokens, None, rest or {})
        apart = getattr(vit, "no_embed_class", False)
        if grid is not None:
            position = resample_abs_pos_embed(
                position,
                new_size=list(grid),
                old_size=list(vit.patch_embed.grid_size),
                num_prefix_tokens=0 if apart else n_prefix,
            )
        if apart and n_prefix:
            zeros = position.new_zeros(1, n_prefix, position.shape[-1])
            position = torch.cat([zeros, position], dim=1)
        # Repeated rather than expanded: a hook may write, and the parameter must not change.
        return Embedding(tokens, position.repeat(batch, 1, 1), rest or {})

    def final_norm(self, model: nn.Module) -> tuple[nn.Module | None, bool]:
        """`norm` on every token, or `fc_norm` on the pooled feature."""
        vit: Any = model
        if not isinstance(vit.norm, nn.Identity):
            return vit.norm, False
        if not isinstance(vit.fc_norm, nn.Identity):
            return vit.fc_norm, True
        return None, False

    def pool(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Timm's pooling."""
        vit: Any = model
        pooled: Tensor = vit.pool(tokens)
        return pooled

    def pool_linear(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """The class token, or the mean."""
        vit: Any = model
        if getattr(vit, "attn_pool", None) is not None or vit.global_pool not in ("token", "avg"):
            raise HookError(
                f"This model pools by '{vit.global_pool or 'nothing'}', which is no sum over tokens.",
                expected="pooling by the class token or the mean",
                remedy="Attribute to hook_pooled instead, the feature after pooling.",
            )
        return self.pool(model, tokens)

    def head(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The classifier's weights and bias."""
        vit: Any = model
        if not isinstance(vit.head, nn.Linear):
            raise HookError(
                "This model has no classifier.",
                expected="a linear head",
                remedy="Load the classifier's weights with the model.",
            )
        bias = vit.head.bias
        return vit.head.weight.t(), vit.head.weight.new_zeros(vit.head.out_features) if bias is None else bias

    def classify(self, model: nn.Module, pooled: Tensor) -> Tensor:
        """The head."""
        vit: Any = model
        logits: Tensor = vit.head(vit.head_drop(pooled))
        return logits

    def readout(self, model: nn.Module, resid: Tensor) -> Tensor:
        """Timm's own norm and head, on the tokens that the head reads."""
        vit: Any = model
        if vit.global_pool == "token" and getattr(vit, "attn_pool", None) is None:
            resid = resid[:, :1]
        logits: Tensor = vit.forward_head(vit.norm(resid))
        return logits


def open_block(block: nn.Module, *, is_rotary: bool) -> Opened:
    """The opened form of a block, by its exact class."""
    if type(block) in PARALLEL_BLOCKS:
        return OpenedParallelBlock(block)
    if type(block) in SIDE_BY_SIDE_BLOCKS:
        return OpenedThingsBlock(block)
    return OpenedBlock(block, is_rotary=is_rotary)


def check_block(block: nn.Module, name: str) -> None:
    """Raise `FamilyError` where a block, or its attention or MLP, cannot be opened."""
    part: Any = block
    _check_class(block, (*BLOCKS, *PARALLEL_BLOCKS, *SIDE_BY_SIDE_BLOCKS), name)
    if type(block) in BLOCKS:
        _check_class(part.attn, tuple(ATTENTIONS), f"{name}.attn")
        _check_class(part.mlp, MLPS, f"{name}.mlp")
    if type(block) in SIDE_BY_SIDE_BLOCKS:
        for index, (attention, mlp) in enumerate(zip(part.attns, part.ffns, strict=True)):
            _check_class(attention.attn, tuple(ATTENTIONS)[:1], f"{name}.attns.{index}.attn")
            _check_class(mlp.mlp, MLPS[:1], f"{name}.ffns.{index}.mlp")


def _check_class(part: nn.Module, known: Sequence[type[nn.Module]], name: str) -> None:
    # The exact class: a subclass may change what happens inside, and the hooks would not know.
    if type(part) not in known:
        raise FamilyError(
            f"{name} is a {type(part).__name__}, which vitlens cannot open.",
            expected=f"timm's {', '.join(dict.fromkeys(cls.__name__ for cls in known))}",
            remedy=_REMEDY,
        )


def _inner_sizes(block: Any) -> tuple[int, int, int]:
    """Heads of a block, the width of a head's output, and the width of the MLP's hidden layer."""
    if type(block) in PARALLEL_BLOCKS:
        return block.num_heads, block.in_split[1] // block.num_heads, block.in_split[0]
    if type(block) in SIDE_BY_SIDE_BLOCKS:
        attention, mlp, n_branches = block.attns[0].attn, block.ffns[0].mlp, len(block.attns)
        n_heads = n_branches * attention.num_heads
        return n_heads, attention.head_dim, n_branches * mlp.fc2.in_features
    attention, mlp = block.attn, block.mlp
    return attention.num_heads, attention.proj.in_features // attention.num_heads, mlp.fc2.in_features


__all__ = ["Context", "Embedding", "Entry", "TimmFamily", "check_block", "open_block"]
