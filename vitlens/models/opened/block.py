"""Blocks with one branch after the other: norm before (most models) or after each branch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import Float
from timm.models.beit import Block as BeitBlock
from timm.models.eva import EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, ResPostBlock
from torch import Tensor, nn

from ..hook_point import HookPoint
from .attention import Gain, open_attention, scaled
from .base import Opened
from .mlp import OpenedMlp
from .norm import open_norm

BLOCKS: tuple[type[nn.Module], ...] = (Block, ResPostBlock, EvaBlock, EvaBlockPostNorm, BeitBlock)
"""The sequential blocks that can be opened, by exact class."""

_POST_NORM = (ResPostBlock, EvaBlockPostNorm)


class OpenedStep(Opened):
    """What every block has: the residual stream before and after, and timm's own call in between."""

    def __init__(self, native: nn.Module) -> None:
        super().__init__(native)
        self.hook_resid_pre = HookPoint()
        self.hook_resid_post = HookPoint()

    @cached_property
    def _inner_points(self) -> tuple[HookPoint, ...]:
        ends = (self.hook_resid_pre, self.hook_resid_post)
        return tuple(point for point in self.points if point not in ends)

    def forward(self, x: Float[Tensor, "batch pos d_model"], **context: Any) -> Tensor:
        """Run the block; while nobody listens inside, the block is timm's own."""
        x = self.hook_resid_pre.fire(x)
        opened = any(point.listens() for point in self._inner_points)
        x = self.inside(x, **context) if opened else self.native(x, **context)
        return self.hook_resid_post.fire(x)

    def inside(self, x: Tensor, **context: Any) -> Tensor:
        """The block step by step, with its hooks."""
        raise AssertionError  # every block has its own


@dataclass(frozen=True)
class Gains:
    """The LayerScales of a block's two branches."""

    attn: Gain
    mlp: Gain


def gains(block: Any) -> Gains:
    """Where a block keeps its LayerScales: modules `ls1`, `ls2`, or parameters `gamma_1`, `gamma_2`."""
    if hasattr(block, "gamma_1"):
        return Gains(lambda: block.gamma_1, lambda: block.gamma_2)
    return Gains(
        lambda: getattr(getattr(block, "ls1", None), "gamma", None),
        lambda: getattr(getattr(block, "ls2", None), "gamma", None),
    )


class OpenedBlock(OpenedStep):
    """A block that adds attention, then an MLP, with TransformerLens's hook points.

    `hook_attn_out` and `hook_mlp_out` stand after LayerScale (or the norm after the branch) and drop path,
    so that `resid_mid == resid_pre + attn_out` and `resid_post == resid_mid + mlp_out` exactly.

    Args:
        native: one of `BLOCKS`.
        is_rotary: whether the model hands its attention a rotary embedding.
    """

    def __init__(self, native: nn.Module, *, is_rotary: bool = False) -> None:
        super().__init__(native)
        block = self.native
        self._norm_after = isinstance(native, _POST_NORM)
        self._gains = gains(block)
        self.ln1 = open_norm(block.norm1)
        self.attn = open_attention(
            block.attn, self._gains.attn, is_rotary=is_rotary, has_result=not self._norm_after
        )
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.ln2 = open_norm(block.norm2)
        self.mlp = OpenedMlp(block.mlp)
        self.hook_mlp_out = HookPoint()

    def neuron_weights(self) -> Tensor | None:
        """What each neuron writes, [d_mlp d_model], after LayerScale; None where a norm stands after it."""
        if self._norm_after or not isinstance(self.native.mlp.norm, nn.Identity):
            return None
        return scaled(self.mlp.W_out, self._gains.mlp())

    def inside(self, x: Tensor, **context: Any) -> Tensor:
        """Attention, then the MLP."""
        block = self.native
        if self._norm_after:
            attended = self.ln1(self.attn(x, **context))
        else:
            attended = self.attn(self.ln1(x), **context)
        x = self.hook_resid_mid.fire(x + self.hook_attn_out.fire(block.drop_path1(attended)))
        if self._norm_after:
            computed = self.ln2(self.mlp(x))
        else:
            computed = scaled(self.mlp(self.ln2(x)), self._gains.mlp())
        return x + self.hook_mlp_out.fire(block.drop_path2(computed))
