"""The opened forms of timm's norm, attention and MLP: its own submodules, in its own order, with hooks.

Each stands beside a live timm module, owns no parameter, and calls the module itself while nobody listens
inside, so that what is not looked at runs exactly as timm wrote it.
"""

from __future__ import annotations

from functools import cached_property

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from timm.layers import Attention, Mlp
from torch import Tensor, nn

from .hook_point import HookPoint


class Opened(nn.Module):
    """A timm module seen from inside.

    Args:
        native: the live module. It is referred to, not registered: its parameters belong to its own tree.
    """

    def __init__(self, native: nn.Module) -> None:
        super().__init__()
        # A tuple hides the module from nn.Module's registration.
        self._native = (native,)

    @property
    def native(self) -> nn.Module:
        """The live timm module."""
        return self._native[0]

    @cached_property
    def points(self) -> tuple[HookPoint, ...]:
        """Every hook point inside."""
        return tuple(module for module in self.modules() if isinstance(module, HookPoint))

    def listens(self) -> bool:
        """Whether anybody listens inside."""
        return any(point.listens() for point in self.points)


class OpenedNorm(Opened):
    """LayerNorm with `hook_scale` and `hook_normalized`, both before gain and bias.

    Reading leaves the native operation in place; it is replaced only by what a hook wrote.
    """

    def __init__(self, native: nn.LayerNorm) -> None:
        super().__init__(native)
        self.hook_scale = HookPoint()
        self.hook_normalized = HookPoint()

    def forward(self, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_model"]:
        """Normalize each row of `x`."""
        norm = self.native
        assert isinstance(norm, nn.LayerNorm)
        native: Tensor = norm(x)
        if not self.listens():
            return native
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        centered = wide - wide.mean(-1, keepdim=True)
        scale = (centered.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        scale, scale_written = self.hook_scale.fire_and_tell(scale)
        normalized, normalized_written = self.hook_normalized.fire_and_tell((centered / scale).to(x.dtype))
        replaced = normalized if norm.weight is None else normalized * norm.weight
        replaced = replaced if norm.bias is None else replaced + norm.bias
        return _native_or(native, replaced, written=scale_written or normalized_written)


class OpenedAttention(Opened):
    """Self-attention and its LayerScale, with hooks from `hook_q` to `hook_result`.

    Attention stays fused unless somebody listens to scores or pattern. `hook_result` stands after
    LayerScale, so that the heads' results and the scaled bias sum to what the block adds.
    """

    def __init__(self, native: Attention, layer_scale: nn.Module) -> None:
        super().__init__(native)
        self._layer_scale = (layer_scale,)
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        if isinstance(native.norm, nn.Identity):  # a norm over all heads leaves no sum over heads
            self.hook_result = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What attention adds to the residual stream, but for drop path."""
        attention = self.native
        assert isinstance(attention, Attention)
        scale = self._layer_scale[0]
        if not self.listens():
            scaled: Tensor = scale(attention(x))
            return scaled
        gate = attention.gate(x).sigmoid() if getattr(attention, "gate", None) is not None else None
        q, k, v = self._heads(attention, x)
        z = self._fire_heads(self.hook_z, self._attend(attention, q, k, v))
        flat = rearrange(z, "batch head pos d_head -> batch pos (head d_head)")
        flat = attention.norm(flat)
        if gate is not None:
            flat = flat * gate
        if hasattr(self, "hook_result") and self.hook_result.listens():
            return self._sum_of_results(attention, scale, flat)
        out: Tensor = scale(attention.proj_drop(attention.proj(flat)))
        return out

    def _heads(self, attention: Attention, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as [batch head pos d_head], after their hooks."""
        batch, pos, _ = x.shape
        qkv = attention.qkv(x).reshape(batch, pos, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = attention.q_norm(q), attention.k_norm(k)
        return (
            self._fire_heads(self.hook_q, q),
            self._fire_heads(self.hook_k, k),
            self._fire_heads(self.hook_v, v),
        )

    @staticmethod
    def _fire_heads(point: HookPoint, x: Tensor) -> Tensor:
        """Show [batch head pos d_head] as TransformerLens has it, [batch pos head d_head]."""
        return point.fire(x.transpose(1, 2)).transpose(1, 2) if point.listens() else x

    def _attend(self, attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        fused = attention.fused_attn and not (self.hook_attn_scores.listens() or self.hook_pattern.listens())
        if fused:
            dropout = attention.attn_drop.p if attention.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        scores = (q * attention.scale) @ k.transpose(-2, -1)
        pattern = self.hook_pattern.fire(self.hook_attn_scores.fire(scores).softmax(dim=-1))
        del scores
        mixed: Tensor = attention.attn_drop(pattern) @ v
        return mixed

    def _sum_of_results(self, attention: Attention, scale: nn.Module, flat: Tensor) -> Tensor:
        """Fire `hook_result` beside the native projection; what a hook wrote is summed in its place."""
        gamma = getattr(scale, "gamma", 1.0)
        W_O = rearrange(
            attention.proj.weight, "d_model (head d_head) -> head d_head d_model", head=attention.num_heads
        )
        heads = rearrange(flat, "batch pos (head d_head) -> batch pos head d_head", head=attention.num_heads)
        result = gamma * einsum(
            heads, W_O, "batch pos head d_head, head d_head d_model -> batch pos head d_model"
        )
        result, written = self.hook_result.fire_and_tell(result)
        replaced = result.sum(2) + (0.0 if attention.proj.bias is None else gamma * attention.proj.bias)
        projected = attention.proj(flat)
        # One draw of dropout serves both sums.
        dropped = attention.proj_drop(torch.ones_like(projected))
        out: Tensor = scale(projected * dropped)
        return _native_or(out, replaced * dropped, written=written)


class OpenedMlp(Opened):
    """The MLP with `hook_pre` before and `hook_post` after its activation function."""

    def __init__(self, native: Mlp) -> None:
        super().__init__(native)
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP computes, before LayerScale and drop path."""
        mlp = self.native
        assert isinstance(mlp, Mlp)
        if not self.listens():
            whole: Tensor = mlp(x)
            return whole
        pre = self.hook_pre.fire(mlp.fc1(x))
        if self.hook_pre.guard.holds(pre) and getattr(mlp.act, "inplace", False):
            pre = pre.clone()
        hidden = mlp.norm(mlp.drop1(self.hook_post.fire(mlp.act(pre))))
        out: Tensor = mlp.drop2(mlp.fc2(hidden))
        return out


def _native_or(native: Tensor, replaced: Tensor, *, written: bool) -> Tensor:
    """What a hook wrote, else the native values; their gradients then pass through the hook points."""
    if written or not replaced.requires_grad:
        return replaced if written else native
    return native.detach() + (replaced - replaced.detach())  # the difference is zero
