"""Blocks of several attentions side by side, then several MLPs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import rearrange
from timm.models.vision_transformer import ParallelThingsBlock
from torch import Tensor, nn

from ..hook_point import HookPoint
from .attention import OpenedAttention, scaled
from .base import Opened, native_or
from .block import OpenedStep
from .mlp import OpenedMlp
from .norm import OpenedNorm, apply_gain

SIDE_BY_SIDE_BLOCKS: tuple[type[nn.Module], ...] = (ParallelThingsBlock,)
"""The blocks of parallel branches that can be opened, by exact class."""


class OpenedThingsBlock(OpenedStep):
    """Several attentions in parallel, then several MLPs in parallel.

    Attentions that are added are one attention with the heads of all: the hooks show them side by side on
    the `head` axis, and the MLPs side by side on the `d_mlp` axis. With dropout on, listening inside draws
    its numbers in another order than timm does.
    """

    def __init__(self, native: nn.Module) -> None:
        super().__init__(native)
        block = self.native
        self.ln1 = SharedNorm([branch.norm for branch in block.attns])
        self.attn = ParallelAttention(block)
        self.hook_attn_out = HookPoint()
        self.hook_resid_mid = HookPoint()
        self.ln2 = SharedNorm([branch.norm for branch in block.ffns])
        self.mlp = ParallelMlp(block)
        self.hook_mlp_out = HookPoint()

    def inside(self, x: Tensor, **context: Any) -> Tensor:
        """The attentions, then the MLPs."""
        attended = self.attn.each(self.ln1.each(x))
        x = self.hook_resid_mid.fire(x + self.hook_attn_out.fire(torch.stack(attended).sum(dim=0)))
        computed = self.mlp.each(self.ln2.each(x))
        return x + self.hook_mlp_out.fire(torch.stack(computed).sum(dim=0))


class SharedNorm(OpenedNorm):
    """The norms of parallel branches: one scale and one normalized value, gains and biases of their own."""

    def __init__(self, natives: list[nn.Module]) -> None:
        super().__init__(natives[0])
        self._branches = tuple(natives)

    def each(self, x: Tensor) -> list[Tensor]:
        """What each branch reads."""
        natives = [norm(x) for norm in self._branches]
        if not self.listens():
            return natives
        normalized, written = self.normalize(x)
        return [
            native_or(native, apply_gain(norm, normalized), written=written)
            for norm, native in zip(self._branches, natives, strict=True)
        ]


class ParallelAttention(Opened):
    """The attentions of a block, their heads side by side."""

    def __init__(self, native: nn.Module) -> None:
        super().__init__(native)
        # Each for its arithmetic; their own hook points are not shown.
        self._attentions = tuple(OpenedAttention(branch.attn, lambda: None) for branch in self.native.attns)
        self.hook_q = HookPoint()
        self.hook_k = HookPoint()
        self.hook_v = HookPoint()
        self.hook_attn_scores = HookPoint()
        self.hook_pattern = HookPoint()
        self.hook_z = HookPoint()
        if all(hasattr(attention, "hook_result") for attention in self._attentions):
            self.hook_result = HookPoint()

    def each(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """What each branch adds, after LayerScale and drop path."""
        branches = self.native.attns
        if not self.listens():
            # One branch to its end before the next, as timm draws its dropout.
            pairs = zip(branches, inputs, strict=True)
            return [branch.drop_path(branch.ls(branch.attn(x))) for branch, x in pairs]
        attended = self._opened(inputs)
        return [branch.drop_path(out) for branch, out in zip(branches, attended, strict=True)]

    def _opened(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        projected = [attention.project(x) for attention, x in zip(self._attentions, inputs, strict=True)]
        queries, keys, values = (
            self._shown(point, [heads[which] for heads in projected], pos_first=True)
            for which, point in enumerate((self.hook_q, self.hook_k, self.hook_v))
        )
        mixed = self._shown(self.hook_z, self._mixed(queries, keys, values), pos_first=True)
        flats = []
        for attention, heads in zip(self._attentions, mixed, strict=True):
            flat = rearrange(heads, "batch head pos d_head -> batch pos (head d_head)")
            flats.append(attention.native.norm(flat))
        return self._outputs(flats)

    def _mixed(self, queries: list[Tensor], keys: list[Tensor], values: list[Tensor]) -> list[Tensor]:
        looked_at = self.hook_attn_scores.listens() or self.hook_pattern.listens()
        triples = list(zip(self._attentions, queries, keys, values, strict=True))
        if not looked_at:
            return [attention.attend(q, k, v) for attention, q, k, v in triples]
        scores = [(q * attention.native.scale) @ k.transpose(-2, -1) for attention, q, k, _ in triples]
        scores = self._shown(self.hook_attn_scores, scores)
        patterns = self._shown(self.hook_pattern, [score.softmax(dim=-1) for score in scores])
        return [
            attention.native.attn_drop(pattern) @ v
            for (attention, _, _, v), pattern in zip(triples, patterns, strict=True)
        ]

    def _outputs(self, flats: list[Tensor]) -> list[Tensor]:
        branches = self.native.attns
        natives = []
        for branch, flat in zip(branches, flats, strict=True):
            natives.append(branch.ls(branch.attn.proj_drop(branch.attn.proj(flat))))
        if not (hasattr(self, "hook_result") and self.hook_result.listens()):
            return natives
        results = [
            scaled(torch.einsum("bphd,hdm->bphm", flat.unflatten(-1, W_O.shape[:2]), W_O), _gain(branch))
            for branch, flat, W_O in zip(
                branches, flats, (attention.W_O for attention in self._attentions), strict=True
            )
        ]
        joined, written = self.hook_result.fire_and_tell(torch.cat(results, dim=2))
        parts = joined.split([result.shape[2] for result in results], dim=2)
        outputs = []
        for branch, native, part in zip(branches, natives, parts, strict=True):
            bias = branch.attn.proj.bias
            replaced = part.sum(2) if bias is None else part.sum(2) + scaled(bias, _gain(branch))
            outputs.append(native_or(native, replaced, written=written))
        return outputs

    def _shown(self, point: HookPoint, parts: list[Tensor], *, pos_first: bool = False) -> list[Tensor]:
        """Show [batch head ...] parts as one activation; with `pos_first` as [batch pos head d_head]."""
        if not point.listens():
            return parts
        joined = torch.cat(parts, dim=1)
        joined = point.fire(joined.transpose(1, 2)).transpose(1, 2) if pos_first else point.fire(joined)
        return list(joined.split([part.shape[1] for part in parts], dim=1))

    def __getattr__(self, name: str) -> Any:
        # Weights of all heads; copies, since each attention has a tensor of its own.
        if name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
            each = [getattr(attention, name) for attention in self._attentions]
            return None if each[0] is None else torch.cat(each)
        if name == "b_O":
            return sum(attention.b_O for attention in self._attentions)
        return super().__getattr__(name)


class ParallelMlp(Opened):
    """The MLPs of a block, their hidden layers side by side."""

    def __init__(self, native: nn.Module) -> None:
        super().__init__(native)
        self._mlps = tuple(OpenedMlp(branch.mlp) for branch in self.native.ffns)
        self.hook_pre = HookPoint()
        self.hook_post = HookPoint()

    def each(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """What each branch adds, after LayerScale and drop path."""
        branches = self.native.ffns
        if not self.listens():
            pairs = zip(branches, inputs, strict=True)
            return [branch.drop_path(branch.ls(branch.mlp(x))) for branch, x in pairs]
        pre = [branch.mlp.fc1(x) for branch, x in zip(branches, inputs, strict=True)]
        pre = self._shown(self.hook_pre, pre)
        post = [branch.mlp.act(x) for branch, x in zip(branches, pre, strict=True)]
        post = self._shown(self.hook_post, post)
        outputs = []
        for branch, hidden in zip(branches, post, strict=True):
            mlp = branch.mlp
            computed = mlp.drop2(mlp.fc2(mlp.norm(mlp.drop1(hidden))))
            outputs.append(branch.drop_path(branch.ls(computed)))
        return outputs

    @staticmethod
    def _shown(point: HookPoint, parts: list[Tensor]) -> list[Tensor]:
        if not point.listens():
            return parts
        shown = point.fire(torch.cat(parts, dim=-1)).split([part.shape[-1] for part in parts], dim=-1)
        # Contiguous as timm's own are: on strided rows the matrix product rounds differently.
        return [part.contiguous() for part in shown]

    def __getattr__(self, name: str) -> Any:
        if name in ("W_in", "b_in", "W_out", "b_out"):
            each = [getattr(mlp, name) for mlp in self._mlps]
            if name == "b_out":
                return sum(each)
            return torch.cat(each, dim=0 if name == "W_out" else -1)
        return super().__getattr__(name)


def _gain(branch: Any) -> Tensor | None:
    return getattr(branch.ls, "gamma", None)
