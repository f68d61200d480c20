"""Self-attention in timm's four forms: plain, rotary, with relative position bias, differential."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float
from timm.layers import Attention, AttentionRope, DiffAttention, apply_rot_embed_cat
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from torch import Tensor, nn

from ..hook_point import HookPoint
from .base import Opened, native_or

Gain = Callable[[], Tensor | None]
"""The LayerScale of a branch, asked for each time, since parameters may be replaced; None without one."""


def scaled(x: Tensor, gain: Tensor | None) -> Tensor:
    """`x` after LayerScale."""
    return x if gain is None else x * gain


class OpenedAttention(Opened):
    """Self-attention and its LayerScale, with hooks from `hook_q` to `hook_result`.

    Attention stays fused unless somebody listens to scores or pattern. `hook_result` stands after
    LayerScale, so that the heads' results and the scaled bias sum to what the block adds; it is not there
    where a norm mixes the heads.

    Args:
        native: timm's attention.
        gain: the LayerScale that follows it.
        has_result: whether nothing but LayerScale stands between the heads' sum and the residual stream.
    """

    def __init__(self, native: nn.Module, gain: Gain, *, has_result: bool = True) -> None:
        super().__init__(native)
        self.gain = gain
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        if has_result and isinstance(getattr(native, "norm", nn.Identity()), nn.Identity):
            self.hook_result = HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"], **context: Any) -> Tensor:
        """What attention adds to the residual stream, but for drop path."""
        attention = self.native
        gain = self.gain()
        if not self.listens():
            return scaled(attention(x, **context), gain)
        gate = attention.gate(x).sigmoid() if getattr(attention, "gate", None) is not None else None
        flat = self.mixed(x, **context)
        if hasattr(attention, "norm"):
            flat = attention.norm(flat)
        if gate is not None:
            flat = flat * gate
        if hasattr(self, "hook_result") and self.hook_result.listens():
            return self._sum_of_results(flat, gain)
        return scaled(attention.proj_drop(attention.proj(flat)), gain)

    def mixed(self, x: Tensor, **context: Any) -> Float[Tensor, "batch pos head_d_head"]:
        """The heads' outputs side by side, after every hook up to `hook_z`."""
        q, k, v = self.project(x)
        q, k, v = (
            fire_heads(point, heads)
            for point, heads in ((self.hook_q, q), (self.hook_k, k), (self.hook_v, v))
        )
        z = self.attend(*self.rotate(q, k, v, **context), **context)
        return fire_heads(self.hook_z, z).transpose(1, 2).flatten(2)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values as [batch head pos d_head], after q/k-norm."""
        attention = self.native
        if attention.qkv is None:
            q, k, v = (
                projection(x).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
        else:
            qkv = _joint(attention, x)
            q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        if hasattr(attention, "q_norm"):
            q, k = attention.q_norm(q), attention.k_norm(k)
        return q, k, v

    def rotate(self, q: Tensor, k: Tensor, v: Tensor, **context: Any) -> tuple[Tensor, Tensor, Tensor]:
        """What happens to the heads between their hooks and the scores: nothing here."""
        return q, k, v

    def bias(self, **context: Any) -> Tensor | None:
        """What is added to the scores: nothing here."""
        return None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **context: Any) -> Tensor:
        """Values mixed by attention, as [batch head pos d_head]."""
        attention = self.native
        bias = self.bias(**context)
        if self.is_fused():
            dropout = attention.attn_drop.p if attention.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        pattern = self.pattern(q, k, bias)
        mixed: Tensor = attention.attn_drop(pattern) @ v
        return mixed

    def is_fused(self) -> bool:
        """Whether the fused kernel runs."""
        looked_at = self.hook_attn_scores.listens() or self.hook_pattern.listens()
        return bool(self.native.fused_attn) and not looked_at

    def pattern(self, q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
        """The attention pattern [batch head query key], after its hooks."""
        scores = (q * self.native.scale) @ k.transpose(-2, -1)
        scores = scores if bias is None else scores + bias
        if self.hook_attn_scores.listens():
            return self.hook_pattern.fire(self.hook_attn_scores.fire(scores).softmax(dim=-1))
        return self.hook_pattern.fire(softmax_of_own(scores))

    def _sum_of_results(self, flat: Tensor, gain: Tensor | None) -> Tensor:
        """Fire `hook_result` beside the native projection; what a hook wrote is summed in its place."""
        attention = self.native
        heads = rearrange(flat, "batch pos (head d_head) -> batch pos head d_head", head=attention.num_heads)
        result = einsum(
            heads, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos head d_model"
        )
        result, written = self.hook_result.fire_and_tell(scaled(result, gain))
        bias = attention.proj.bias
        replaced = result.sum(2) if bias is None else result.sum(2) + scaled(bias, gain)
        projected = attention.proj(flat)
        # One draw of dropout serves both sums.
        dropped = attention.proj_drop(torch.ones_like(projected))
        return native_or(scaled(projected * dropped, gain), replaced * dropped, written=written)

    # ------------------------------------------------------------------ weights

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        """Query weights, a view of the live parameter."""
        return self._weight(0)

    @property
    def W_K(self) -> Float[Tensor, "kv_head d_model d_head"]:
        """Key weights, a view of the live parameter; fewer heads where keys are shared."""
        return self._weight(1)

    @property
    def W_V(self) -> Float[Tensor, "kv_head d_model d_head"]:
        """Value weights, a view of the live parameter; fewer heads where values are shared."""
        return self._weight(2)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """Output weights before LayerScale, a view of the live parameter."""
        weight: Tensor = self.native.proj.weight.t().unflatten(0, (self.native.num_heads, -1))
        return weight

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"] | None:
        """Query bias, a view of the live parameter; None without one."""
        return self._bias(0)

    @property
    def b_K(self) -> Float[Tensor, "kv_head d_head"] | None:
        """Key bias, a view of the live parameter; None without one."""
        return self._bias(1)

    @property
    def b_V(self) -> Float[Tensor, "kv_head d_head"] | None:
        """Value bias, a view of the live parameter; None without one."""
        return self._bias(2)

    @property
    def b_O(self) -> Float[Tensor, " d_model"] | None:
        """Output bias before LayerScale, the live parameter; None without one."""
        bias: Tensor | None = self.native.proj.bias
        return bias

    def _weight(self, which: int) -> Tensor:
        attention = self.native
        if attention.qkv is None:
            apart = (attention.q_proj, attention.k_proj, attention.v_proj)[which].weight
            weight: Tensor = apart.unflatten(0, (-1, attention.head_dim))
        else:
            weight = attention.qkv.weight.unflatten(0, (3, self._n_maps(which), -1))[which]
        return weight.transpose(1, 2)

    def _bias(self, which: int) -> Tensor | None:
        attention = self.native
        if attention.qkv is None:
            bias = (attention.q_proj, attention.k_proj, attention.v_proj)[which].bias
        elif getattr(attention, "q_bias", None) is not None:
            bias = (attention.q_bias, attention.k_bias, attention.v_bias)[which]
        else:
            bias = attention.qkv.bias
            bias = None if bias is None else bias.unflatten(0, (3, -1))[which]
        return None if bias is None else bias.unflatten(0, (self._n_maps(which), -1))

    def _n_maps(self, which: int) -> int:
        """Heads among the queries (0), keys (1) or values (2)."""
        if which and hasattr(self.native, "num_kv_heads"):
            return int(self.native.num_kv_heads)
        return int(self.native.num_heads)


class OpenedRotaryAttention(OpenedAttention):
    """Attention of the Eva family: rotary embedding where there is one, shared keys and values."""

    def __init__(self, native: nn.Module, gain: Gain, *, is_rotary: bool, has_result: bool = True) -> None:
        super().__init__(native, gain, has_result=has_result)
        if is_rotary:
            self.hook_rot_q = HookPoint()
            self.hook_rot_k = HookPoint()

    def rotate(
        self, q: Tensor, k: Tensor, v: Tensor, *, rope: Tensor | None = None, **context: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Rotate queries and keys of patches, then repeat shared keys and values for each query head."""
        attention = self.native
        if rope is not None:
            n_prefix, half = attention.num_prefix_tokens, getattr(attention, "rotate_half", False)
            q, k = (
                torch.cat(
                    [heads[:, :, :n_prefix], apply_rot_embed_cat(heads[:, :, n_prefix:], rope, half=half)],
                    dim=2,
                ).type_as(v)
                for heads in (q, k)
            )
            q, k = fire_heads(self.hook_rot_q, q), fire_heads(self.hook_rot_k, k)
        n_shared = getattr(attention, "num_kv_groups", 1)
        if n_shared > 1:
            k, v = k.repeat_interleave(n_shared, dim=1), v.repeat_interleave(n_shared, dim=1)
        return q, k, v


class OpenedBiasedAttention(OpenedAttention):
    """BEiT's attention, with a relative position bias of its own, of the model, or both."""

    def bias(self, *, shared_rel_pos_bias: Tensor | None = None, **context: Any) -> Tensor | None:
        """The relative position bias [1 head query key], where there is one."""
        if self.native.relative_position_bias_table is None:
            return shared_rel_pos_bias
        own: Tensor = self.native._get_rel_pos_bias()
        return own if shared_rel_pos_bias is None else own + shared_rel_pos_bias


class OpenedDifferentialAttention(OpenedAttention):
    """Differential attention: two maps a head, one subtracted from the other.

    `hook_q`, `hook_k`, `hook_attn_scores` and `hook_pattern` have 2 × `n_heads` heads; the maps 2h and
    2h + 1 belong to head h. `hook_v` and `hook_z` have `n_heads`; `hook_z` stands after the norm by head.
    """

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys of both maps, values of the heads."""
        q, k, v = self.native.qkv(x).chunk(3, dim=2)
        return split_maps(self.native, q, k, v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **context: Any) -> Tensor:
        """The difference of the two maps, applied to the values and normalized by head."""
        attention = self.native
        share = attention._compute_lambda().type_as(q)
        if self.is_fused():
            dropout = attention.attn_drop_p if attention.training else 0.0
            (q1, q2), (k1, k2) = (heads.unflatten(1, (-1, 2)).unbind(2) for heads in (q, k))
            first = F.scaled_dot_product_attention(q1, k1, v, dropout_p=dropout)
            mixed = first - share * F.scaled_dot_product_attention(q2, k2, v, dropout_p=dropout)
        else:
            maps = attention.attn_drop(self.pattern(q, k, None)).unflatten(1, (-1, 2))
            mixed = (maps[:, :, 0] - share * maps[:, :, 1]) @ v
        normed: Tensor = attention.sub_norm(mixed) * (1 - attention.lambda_init)
        return normed

    def _n_maps(self, which: int) -> int:
        return super()._n_maps(which) * (1 if which == 2 else 2)


def open_attention(native: nn.Module, gain: Gain, *, is_rotary: bool, has_result: bool) -> OpenedAttention:
    """The opened form of an attention module, by its exact class.

    Args:
        native: one of `ATTENTIONS`.
        gain: the LayerScale that follows it.
        is_rotary: whether the model hands it a rotary embedding.
        has_result: as for `OpenedAttention`.
    """
    if type(native) in (AttentionRope, EvaAttention):
        return OpenedRotaryAttention(native, gain, is_rotary=is_rotary, has_result=has_result)
    return ATTENTIONS[type(native)](native, gain, has_result=has_result)


ATTENTIONS: dict[type[nn.Module], type[OpenedAttention]] = {
    Attention: OpenedAttention,
    AttentionRope: OpenedRotaryAttention,
    EvaAttention: OpenedRotaryAttention,
    BeitAttention: OpenedBiasedAttention,
    DiffAttention: OpenedDifferentialAttention,
}
"""The attention modules that can be opened."""


def softmax_of_own(scores: Tensor) -> Tensor:
    """Softmax over the last axis of scores that nobody else reads, which it may overwrite.

    On a CPU, fresh memory for a second tensor of this size costs more time than the softmax. Where gradients
    may be asked for, or mixed precision chooses another type for the result, the scores are left alone.
    """
    fresh = torch.is_grad_enabled() or scores.device.type != "cpu" or torch.is_autocast_enabled("cpu")
    return scores.softmax(dim=-1) if fresh else torch.softmax(scores, dim=-1, out=scores)


def fire_heads(point: HookPoint, x: Float[Tensor, "batch head pos d_head"]) -> Tensor:
    """Show heads as TransformerLens has them, [batch pos head d_head]."""
    return point.fire(x.transpose(1, 2)).transpose(1, 2) if point.listens() else x


def split_maps(module: Any, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heads of differential attention, after q/k-norm: two maps a head for queries and keys."""
    q, k = (x.unflatten(-1, (2 * module.num_heads, module.head_dim)).transpose(1, 2) for x in (q, k))
    v = v.unflatten(-1, (module.num_heads, 2 * module.head_dim)).transpose(1, 2)
    return module.q_norm(q), module.k_norm(k), v


def _joint(attention: Any, x: Tensor) -> Tensor:
    """The joint projection of queries, keys and values, with its bias as timm applies it."""
    if getattr(attention, "q_bias", None) is None:
        joint: Tensor = attention.qkv(x)
        return joint
    bias = torch.cat((attention.q_bias, attention.k_bias, attention.v_bias))
    if attention.qkv_bias_separate:
        joint = attention.qkv(x)
        joint += bias
        return joint
    return F.linear(x, weight=attention.qkv.weight, bias=bias)
