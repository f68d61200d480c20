"""timm's `VisionTransformer` and its distilled form with two heads."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .family import Context, Entry
from .timm_parts import TimmFamily


class VisionTransformerFamily(TimmFamily):
    """ViT, DeiT, DINO, CLIP, SigLIP and whatever else timm builds from `VisionTransformer`."""

    name = "VisionTransformer"
    classes = (VisionTransformer, VisionTransformerDistilled)

    def embed(self, model: nn.Module, images: Tensor) -> Entry:
        """Timm's own embedding: patches, prefix tokens, positions, dropouts, pre-norm."""
        vit: Any = model
        return Entry(vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images)))))

    def enter(self, model: nn.Module, embedded: Tensor, rest: Context) -> Entry:
        """Position dropout, patch dropout and pre-norm."""
        vit: Any = model
        # timm leaves position dropout out where there is no position embedding.
        dropped = embedded if vit.pos_embed is None else vit.pos_drop(embedded)
        return Entry(vit.norm_pre(vit.patch_drop(dropped)))

    def final_norm(self, model: nn.Module) -> tuple[nn.Module | None, bool]:
        """As in timm; the distilled form never uses a norm after pooling."""
        norm, after_pool = super().final_norm(model)
        return (None, False) if _is_distilled(model) and after_pool else (norm, after_pool)

    def pool(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Timm's pooling; with two heads both tokens are kept: [batch 2 d_model]."""
        return tokens[:, :2] if _is_distilled(model) else super().pool(model, tokens)

    def head(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The classifier's weights and bias; of two heads the mean, side by side."""
        weight, bias = super().head(model)
        if not _is_distilled(model):
            return weight, bias
        vit: Any = model
        weight = torch.cat([weight, vit.head_dist.weight.t()]) / 2
        return weight, (bias + vit.head_dist.bias) / 2

    def classify(self, model: nn.Module, pooled: Tensor) -> Tensor:
        """The head, or the mean of the two heads."""
        if not _is_distilled(model):
            return super().classify(model, pooled)
        vit: Any = model
        logits = vit.head(vit.head_drop(pooled[:, 0]))
        distilled = vit.head_dist(vit.head_drop(pooled[:, 1]))
        if vit.distilled_training and vit.training:
            pair: Tensor = (logits, distilled)  # type: ignore[assignment]  # as timm does in this mode
            return pair
        mean: Tensor = (logits + distilled) / 2
        return mean

    def readout(self, model: nn.Module, resid: Tensor) -> Tensor:
        """Timm's own norm and head, on the tokens that the head reads."""
        if not _is_distilled(model):
            return super().readout(model, resid)
        vit: Any = model
        logits: Tensor = vit.forward_head(vit.norm(resid[:, :2]))
        return logits


def _is_distilled(model: nn.Module) -> bool:
    return isinstance(model, VisionTransformerDistilled)
