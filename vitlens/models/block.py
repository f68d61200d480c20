"""The opened form of a pre-norm transformer block."""

from __future__ import annotations

from functools import cached_property

from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor

from .components import Opened, OpenedAttention, OpenedMlp, OpenedNorm
from .hook_point import HookPoint


class OpenedBlock(Opened):
    """timm's `Block` with TransformerLens's hook points.

    `hook_attn_out` and `hook_mlp_out` stand after LayerScale and drop path, so that
    `resid_mid == resid_pre + attn_out` and `resid_post == resid_mid + mlp_out` exactly.
    """

    def __init__(self, native: Block) -> None:
        super().__init__(native)
        self.hook_resid_pre = HookPoint()
        self.ln1 = OpenedNorm(native.norm1)
        self.attn = OpenedAttention(native.attn, native.ls1)
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.ln2 = OpenedNorm(native.norm2)
        self.mlp = OpenedMlp(native.mlp)
        self.hook_mlp_out = HookPoint()
        self.hook_resid_post = HookPoint()

    @cached_property
    def _inner_points(self) -> tuple[HookPoint, ...]:
        ends = (self.hook_resid_pre, self.hook_resid_post)
        return tuple(point for point in self.points if point not in ends)

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Run the block; while nobody listens inside, the block is timm's own."""
        x = self.hook_resid_pre.fire(x)
        opened = any(point.listens() for point in self._inner_points)
        x = self._inside(x) if opened else self.native(x)
        return self.hook_resid_post.fire(x)

    def _inside(self, x: Tensor) -> Tensor:
        block = self.native
        assert isinstance(block, Block)
        attn_out = self.hook_attn_out.fire(block.drop_path1(self.attn(self.ln1(x))))
        x = self.hook_resid_mid.fire(x + attn_out)
        mlp_out = self.hook_mlp_out.fire(block.drop_path2(block.ls2(self.mlp(self.ln2(x)))))
        return x + mlp_out
