"""timm's `Beit`: BEiT and BEiT v2, with relative position bias of each block or of the model."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.beit import Beit
from torch import Tensor, nn

from .family import Context, Entry
from .timm_parts import TimmFamily


class BeitFamily(TimmFamily):
    """Models built from `Beit`."""

    name = "Beit"
    classes = (Beit,)
    repeated = ("forward", "forward_features", "forward_head")

    def embed(self, model: nn.Module, images: Tensor) -> Entry:
        """Patches, class token and positions, in timm's order."""
        vit: Any = model
        patches = vit.patch_embed(images)
        tokens = torch.cat((vit.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)
        tokens = tokens if vit.pos_embed is None else tokens + vit.pos_embed
        return self.enter(model, tokens, {})

    def enter(self, model: nn.Module, embedded: Tensor, rest: Context) -> Entry:
        """Position dropout, and the shared position bias where there is one."""
        vit: Any = model
        shared = vit.rel_pos_bias() if vit.rel_pos_bias is not None else None
        return Entry(vit.pos_drop(embedded), [{"shared_rel_pos_bias": shared}] * len(vit.blocks))

    def pool(self, model: nn.Module, tokens: Tensor) -> Tensor:
        """Mean of the patches, or the class token."""
        vit: Any = model
        if not vit.global_pool:
            return tokens
        return tokens[:, vit.num_prefix_tokens :].mean(dim=1) if vit.global_pool == "avg" else tokens[:, 0]
