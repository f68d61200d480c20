"""What interventions share: the components of a model, blocks one at a time, activations put in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import AnalysisError
from ..models import HookedViT
from ..names import nearest

BLOCK_PARTS = {
    "resid": "hook_resid_post",
    "attn": "hook_attn_out",
    "mlp": "hook_mlp_out",
    "head": "attn.hook_z",
}
"""Kinds of component that every block has, and the hook inside the block at which each stands."""

KINDS = (*BLOCK_PARTS, "feature", "classifier")
"""Kinds of component. `feature` is what enters the classifier; `classifier` is what reads it."""


@dataclass(frozen=True)
class Component:
    """A part of a model that can be exchanged by itself.

    Attributes:
        label: as it stands on a table's axis: `3_resid_post`, `3_attn_out`, `3_mlp_out`, `L3H0`,
            `feature`, `classifier`.
        kind: one of `KINDS`.
        layer: its block; -1 outside the blocks.
        head: its head; -1 where it is none.
    """

    label: str
    kind: str
    layer: int = -1
    head: int = -1


def components_of(model: HookedViT, kinds: Sequence[str]) -> list[Component]:
    """The components of a model, kind by kind in the order given, layer by layer within each.

    Args:
        model: whose blocks and heads are counted.
        kinds: of `KINDS`.
    """
    layers = range(model.cfg.n_layers)
    found = []
    for kind in kinds:
        if kind == "head":
            found += [
                Component(f"L{layer}H{head}", kind, layer, head)
                for layer in layers
                for head in range(model.cfg.n_heads)
            ]
        elif kind in BLOCK_PARTS:
            place = BLOCK_PARTS[kind].removeprefix("hook_")
            found += [Component(f"{layer}_{place}", kind, layer) for layer in layers]
        else:
            found.append(Component(kind, kind))
    return found


def check_kinds(kinds: Sequence[str], known: Sequence[str], who: str) -> None:
    """Raise `AnalysisError` where `kinds` is empty, repeats itself or names what is not `known`."""
    wrong = [kind for kind in kinds if kind not in known]
    if isinstance(kinds, str) or not kinds or wrong or len(set(kinds)) < len(kinds):
        near = f" Nearest to '{wrong[0]}': {nearest(wrong[0], known)}." if wrong else ""
        raise AnalysisError(
            f"The components of {who} are {kinds!r}.",
            expected=f"a tuple of some of {', '.join(known)}, each once",
            remedy=f"Leave it out for the usual ones.{near}",
        )


@dataclass(frozen=True, eq=False)
class BlockPass:
    """One block's pass over a batch.

    Attributes:
        layer: which block.
        resid_pre: [batch pos d_model] that enters it.
        resid_post: [batch pos d_model] that leaves it.
        parts: the other activations asked for, by their hook's name inside the block.
    """

    layer: int
    resid_pre: Tensor
    resid_post: Tensor
    parts: dict[str, Tensor]


def block_by_block(model: HookedViT, images: Tensor, parts: Sequence[str] = ()) -> Iterator[BlockPass]:
    """Run a model one block at a time, so that no more than one block's activations are alive.

    Args:
        model: the model.
        images: normalized, as the model takes them.
        parts: hooks inside a block, such as `attn.hook_z`.
    """
    resid = model(images, stop_at_layer=0)
    for layer in range(model.cfg.n_layers):
        kept: dict[str, Tensor] = {}
        observers = {f"blocks.{layer}.{part}": _keeping(model, kept, part) for part in parts}
        with model.observing(observers):
            after = model(images, start_at_layer=layer, resid=resid, stop_at_layer=layer + 1)
        yield BlockPass(layer, resid, after, kept)
        resid = after


def _keeping(model: HookedViT, kept: dict[str, Tensor], part: str) -> Callable[[Tensor], None]:
    def observe(activation: Tensor) -> None:
        kept[part] = model.keep(activation)

    return observe


def logits_with(
    model: HookedViT,
    images: Tensor,
    block: BlockPass,
    part: str,
    by: Tensor,
    heads: Sequence[int] | None = None,
) -> Tensor:
    """The logits with an activation inside a block replaced; the blocks before it are not run again.

    Args:
        model: the model.
        images: normalized, as the model takes them.
        block: the model's own pass over the block.
        part: the hook inside the block.
        by: what takes its place, broadcast to its shape.
        heads: of a [batch pos head d_head] activation, only these.

    Returns:
        [batch n_classes].
    """
    name = f"blocks.{block.layer}.{part}"
    with model.hooks(fwd_hooks=[(name, replacing(by, heads))]):
        logits: Tensor = model(images, start_at_layer=block.layer, resid=block.resid_pre)
    return logits


def replacing(by: Tensor, heads: Sequence[int] | None = None, head_axis: int = 2) -> Callable[..., Tensor]:
    """A hook that puts `by` in the activation's place, for all heads or some.

    Args:
        by: broadcast to the activation's shape.
        heads: None replaces everything.
        head_axis: where the heads stand.
    """

    def hook(activation: Tensor, hook: Any) -> Tensor:
        try:
            whole = by.to(activation).expand_as(activation)
        except RuntimeError as error:
            raise AnalysisError(
                f"{tuple(by.shape)} was to replace '{hook.name}', which is {tuple(activation.shape)}.",
                expected="an activation of the same tokens, heads and width",
                remedy="Take it from images of the same size.",
            ) from error
        if heads is None:
            return whole
        index = torch.as_tensor(list(heads), device=activation.device)
        return activation.index_copy(head_axis, index, whole.index_select(head_axis, index))

    return hook
