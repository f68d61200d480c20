"""Blocks in which one joint projection feeds attention and MLP, which are added together."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from timm.models.vision_transformer import DiffParallelScalingBlock, ParallelScalingBlock
from torch import Tensor, nn

from ..hook_point import HookPoint
from .attention import (
    OpenedAttention,
    OpenedDifferentialAttention,
    fire_heads,
    scaled,
    split_maps,
)
from .base import Opened, native_or
from .block import OpenedStep
from .norm import open_norm

PARALLEL_BLOCKS: tuple[type[nn.Module], ...] = (ParallelScalingBlock, DiffParallelScalingBlock)
"""Blocks with one joint projection for attention and MLP, by exact class."""


class _JointAttention(OpenedAttention):
    """Attention inside a block with a joint projection; the block is its native module."""

    def heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the joint projection as [batch head pos d_head]."""
        block = self.native
        q, k, v = (x.unflatten(-1, (block.num_heads, block.head_dim)) for x in (q, k, v))
        return block.q_norm(q).transpose(1, 2), block.k_norm(k).transpose(1, 2), v.transpose(1, 2)

    def mixed_heads(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The heads' outputs side by side, [batch pos head*d_head], after every hook."""
        q, k, v = self.heads(q, k, v)
        q, k, v = (
            fire_heads(point, x) for point, x in ((self.hook_q, q), (self.hook_k, k), (self.hook_v, v))
        )
        z = fire_heads(self.hook_z, self.attend(q, k, v))
        return rearrange(z, "batch head pos d_head -> batch pos (head d_head)")

    @property
    def W_O(self) -> Tensor:
        """Output weights before LayerScale, a view of the live parameter."""
        block = self.native
        if block.out_proj is None:
            weight: Tensor = block.attn_out_proj.weight
        else:
            weight = block.out_proj.weight[:, : block.in_split[1]]
        split: Tensor = weight.t().unflatten(0, (block.num_heads, -1))
        return split

    @property
    def b_O(self) -> Tensor | None:
        """Output bias; None where one bias serves both branches."""
        block = self.native
        bias: Tensor | None = None if block.out_proj is not None else block.attn_out_proj.bias
        return bias

    def _weight(self, which: int) -> Tensor:
        block = self.native
        part = block.in_proj.weight.split(block.in_split, dim=0)[which + 1]
        weight: Tensor = part.unflatten(0, (self._n_maps(which), -1)).transpose(1, 2)
        return weight

    def _bias(self, which: int) -> Tensor | None:
        block = self.native
        if block.in_proj.bias is None:
            return None
        part: Tensor = block.in_proj.bias.split(block.in_split, dim=0)[which + 1]
        bias: Tensor = part.unflatten(0, (self._n_maps(which), -1))
        return bias


class _JointDifferentialAttention(OpenedDifferentialAttention, _JointAttention):
    def heads(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return split_maps(self.native, q, k, v)


class _JointMlp(Opened):
    """The MLP inside a block with a joint projection."""

    def __init__(self, native: nn.Module) -> None:
        super().__init__(native)
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def hidden(self, pre: Tensor) -> Tensor:
        """The hidden layer after its hooks and dropout."""
        block = self.native
        pre = self.hook_pre.fire(pre)
        post: Tensor = block.mlp_drop(self.hook_post.fire(block.mlp_act(pre)))
        return post

    @property
    def W_in(self) -> Tensor:
        """Input weights, a view of the live parameter."""
        block = self.native
        weight: Tensor = block.in_proj.weight[: block.in_split[0]]
        return weight.t()

    @property
    def b_in(self) -> Tensor | None:
        """Input bias; None without one."""
        block = self.native
        bias: Tensor | None = block.mlp_bias
        return block.in_proj.bias[: block.in_split[0]] if bias is None else bias

    @property
    def W_out(self) -> Tensor:
        """Output weights before LayerScale, a view of the live parameter."""
        block = self.native
        if block.out_proj is None:
            weight: Tensor = block.mlp_out_proj.weight
        else:
            weight = block.out_proj.weight[:, block.in_split[1] :]
        return weight.t()

    @property
    def b_out(self) -> Tensor | None:
        """Output bias; where one bias serves both branches, it is counted here."""
        block = self.native
        projection = block.mlp_out_proj if block.out_proj is None else block.out_proj
        bias: Tensor | None = projection.bias
        return bias


class OpenedParallelBlock(OpenedStep):
    """Attention and MLP on one norm, added together: there is no residual stream between them.

    `hook_attn_out` and `hook_mlp_out` are the two branches after LayerScale and drop path; they sum to what
    the block adds, to rounding. One bias that serves both branches is counted in `hook_mlp_out`.
    """

    def __init__(self, native: nn.Module) -> None:
        super().__init__(native)
        block = self.native
        self.ln1 = open_norm(block.in_norm)
        joint = (
            _JointDifferentialAttention if isinstance(native, DiffParallelScalingBlock) else _JointAttention
        )
        self.attn = joint(native, self._gain)
        self.hook_attn_out = HookPoint()
        self.mlp = _JointMlp(native)
        self.hook_mlp_out = HookPoint()

    def _gain(self) -> Tensor | None:
        return getattr(self.native.ls, "gamma", None)

    def neuron_weights(self) -> Tensor:
        """What each neuron writes, [d_mlp d_model], after LayerScale."""
        return scaled(self.mlp.W_out, self._gain())

    def inside(self, x: Tensor, **context: Any) -> Tensor:
        """Both branches."""
        block = self.native
        pre, q, k, v = torch.split(block.in_proj(self.ln1(x)), block.in_split, dim=-1)
        if block.mlp_bias is not None:
            pre = pre + block.mlp_bias
        flat = self.attn.mixed_heads(q, k, v)
        hidden = self.mlp.hidden(pre)
        if block.out_proj is not None:
            projected = block.out_proj(torch.cat((flat, hidden), dim=-1))
        else:
            projected = block.attn_out_proj(flat) + block.mlp_out_proj(hidden)
        native = scaled(projected, self._gain())
        if not self._branches_listen():
            added: Tensor = block.drop_path(native)
            return x + added
        # Drop path draws one number an image: one draw serves the sum and its parts.
        kept = block.drop_path(torch.ones_like(native[:, :1, :1]))
        attn_out, attn_written = self._attn_out(flat, kept)
        bias = self.mlp.b_out
        mlp_out = hidden @ self.mlp.W_out + (0.0 if bias is None else bias)
        mlp_out, mlp_written = self.hook_mlp_out.fire_and_tell(scaled(mlp_out, self._gain()) * kept)
        return x + native_or(native * kept, attn_out + mlp_out, written=attn_written or mlp_written)

    def _branches_listen(self) -> bool:
        return any(
            point.listens() for point in (self.hook_attn_out, self.hook_mlp_out, self.attn.hook_result)
        )

    def _attn_out(self, flat: Tensor, kept: Tensor) -> tuple[Tensor, bool]:
        """The attention branch after its hooks, and whether one of them wrote."""
        heads = flat.unflatten(-1, (self.native.num_heads, -1))
        gain = self._gain()
        written = False
        if self.attn.hook_result.listens():
            result = torch.einsum("bphd,hdm->bphm", heads, self.attn.W_O)
            result, written = self.attn.hook_result.fire_and_tell(scaled(result, gain))
            out = result.sum(2)
        else:
            out = scaled(flat @ self.attn.W_O.flatten(0, 1), gain)
        if self.attn.b_O is not None:
            out = out + scaled(self.attn.b_O, gain)
        out, out_written = self.hook_attn_out.fire_and_tell(out * kept)
        return out, written or out_written
