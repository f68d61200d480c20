"""A model's weights by TransformerLens's names and shapes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import HookError
from .families import Family

_STACKED = (
    "W_Q",
    "W_K",
    "W_V",
    "W_O",
    "b_Q",
    "b_K",
    "b_V",
    "b_O",
    "W_in",
    "W_gate",
    "W_out",
    "b_in",
    "b_out",
)


class NamedWeights(nn.Module):
    """The weights of a hooked model: by layer as views (`model.blocks[3].attn.W_Q`), here as copies."""

    family: Family
    model: nn.Module
    blocks: nn.ModuleList

    @property
    def W_U(self) -> Float[Tensor, "d_pooled n_classes"]:
        """The classifier's weights, a view of the live parameter; of two heads half of each, side by side."""
        return self.family.head(self.model)[0]

    @property
    def b_U(self) -> Float[Tensor, " n_classes"]:
        """The classifier's bias."""
        return self.family.head(self.model)[1]

    def stacked(self, name: str) -> Tensor:
        """One kind of weight over all layers, as a copy; `model.W_Q` is `model.stacked("W_Q")`.

        Args:
            name: `W_Q`, `W_K`, `W_V`, `W_O`, `b_Q`, ... of attention, or `W_in`, `W_out`, ... of the MLP.

        Returns:
            [layer ...].

        Raises:
            HookError: the blocks have no such weight.

        Example:
            >>> from vitlens import HookedViT
            >>> HookedViT.from_timm("vit_tiny_patch16_224").stacked("W_Q").shape
            torch.Size([12, 3, 192, 64])
        """
        each = [weight for block in self.blocks if (weight := _weight(block, name)) is not None]
        if len(each) < len(self.blocks):
            raise HookError(
                f"The blocks have no weight '{name}'.",
                expected=f"one of {', '.join(_STACKED)}",
                remedy="See model.blocks[0].attn and .mlp for what this architecture has.",
            )
        return torch.stack(each)

    def __getattr__(self, name: str) -> Any:
        # model.W_Q and its like, as in TransformerLens.
        return self.stacked(name) if name in _STACKED else super().__getattr__(name)


def _weight(block: Any, name: str) -> Tensor | None:
    for part in (block.attn, block.mlp):
        weight: Tensor | None = getattr(part, name, None)
        if weight is not None:
            return weight
    return None
