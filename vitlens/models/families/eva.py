"""timm's `Eva`: EVA, EVA-02, DINOv3 and others, with rotary position embedding where they have one."""

from __future__ import annotations

from typing import Any

from timm.layers import apply_keep_indices_nlc
from timm.models.eva import Eva
from torch import Tensor, nn

from .family import Context, Embedding, Entry
from .timm_parts import TimmFamily


class EvaFamily(TimmFamily):
    """Models built from `Eva`; each block gets the rotary embedding beside the residual stream."""

    name = "Eva"
    classes = (Eva,)

    def embed(self, model: nn.Module, images: Tensor) -> Entry:
        """Timm's own embedding, and the rotary embedding for each block."""
        vit: Any = model
        resid, rope = vit._pos_embed(vit.patch_embed(images))
        return Entry(vit.norm_pre(resid), _by_block(vit, rope))

    def embed_parts(self, model: nn.Module, images: Tensor) -> Embedding:
        """Tokens, positions and the rotary embedding."""
        vit: Any = model
        patches = vit.patch_embed(images)
        return self.parts_of(model, patches, {"rope": _rotary(vit, patches)})

    def enter(self, model: nn.Module, embedded: Tensor, rest: Context) -> Entry:
        """Position dropout, patch dropout (of the rotary embedding as well), and pre-norm."""
        vit: Any = model
        rope = rest["rope"]
        resid = vit.pos_drop(embedded)
        if vit.patch_drop is not None:
            resid, kept = vit.patch_drop(resid)
            if rope is not None and kept is not None:
                rope = apply_keep_indices_nlc(resid, rope, kept)
                rope = rope.transpose(0, 1) if vit.rope_mixed else rope.unsqueeze(1)
        return Entry(vit.norm_pre(resid), _by_block(vit, rope))


def _rotary(vit: Any, patches: Tensor) -> Tensor | None:
    """The rotary embedding for a grid of patches."""
    if vit.rope is None:
        return None
    if vit.dynamic_img_size:
        rope: Tensor = vit.rope.get_embed(shape=tuple(patches.shape[1:3]))
    elif hasattr(vit.rope, "feat_shape"):
        rope = vit.rope.get_embed()
    else:
        rope = vit.rope.get_embed(shape=vit.patch_embed.grid_size)
    return rope


def _by_block(vit: Any, rope: Tensor | None) -> list[Context]:
    """What each block gets: the same embedding, or its own where the model mixes them."""
    mixed = getattr(vit, "rope_mixed", False) and rope is not None
    return [{"rope": rope[layer] if mixed and rope is not None else rope} for layer in range(len(vit.blocks))]
