"""Which parameters train, named by what they are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from timm.layers import RmsNorm, RmsNormFp32, SimpleNorm, SimpleNormFp32
from timm.layers.pos_embed_sincos import RotaryEmbeddingMixed
from torch import nn

from ..errors import TrainingError
from ..models import HookedViT
from ..models.opened import ATTENTIONS
from ..names import nearest

_NORMS = (nn.LayerNorm, nn.RMSNorm, RmsNorm, RmsNormFp32, SimpleNorm, SimpleNormFp32)


def set_trainable(model: HookedViT, what: str | Sequence[str] = "all") -> list[str]:
    """Let some parameters require gradients, and no others.

    What does not require them gets no update, no weight decay and no place in timm's optimizers. Parts are
    told by their class and by timm's own methods, never by the model's name.

    Args:
        model: its parameters' `requires_grad` is set; nothing else is touched.
        what: one or several of

            - `"all"`;
            - `"head"`: the classifier (both of a distilled model);
            - `"attention"`: the attention modules of all blocks, with their q/k-norms and position biases;
            - `"norm"`: every norm of the model, q/k-norms, the pre-norm and the final one among them;
            - `"embed"`: patch and position embedding, class, distillation and register tokens;
            - `"pool"`: the attention pool before the head;
            - `"blocks.10"`: a whole block, and so on.

    Returns:
        The names of the parameters that train, as in the timm module's `state_dict`, in its order.

    Raises:
        TrainingError: a word is unknown, or the model has no parameter of the kind.

    Example:
        >>> import timm
        >>> model = HookedViT(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=10))
        >>> set_trainable(model, "head")
        ['head.weight', 'head.bias']
        >>> len(set_trainable(model, ("norm", "blocks.1")))
        18
    """
    if not isinstance(model, HookedViT):
        raise TrainingError(
            f"model is a {type(model).__name__}.",
            expected="a HookedViT",
            remedy="Wrap it: vitlens.HookedViT(model).",
        )
    words = (what,) if isinstance(what, str) else tuple(what)
    if not words:
        raise TrainingError(
            "Nothing shall train: trainable is empty.",
            expected="'all', or some of the model's parts",
            remedy="Write trainable='all', or ('norm', 'head'), say.",
        )
    vit: Any = model.model
    opened: Any = model.blocks
    blocks = nn.ModuleList(each.native for each in opened)
    parts: Mapping[str, Callable[[], Iterable[nn.Parameter]]] = {
        "all": vit.parameters,
        "head": partial(_head, vit),
        "attention": partial(_of_class, blocks, tuple(ATTENTIONS)),
        "norm": partial(_of_class, vit, _NORMS),
        "embed": partial(_embedding, vit),
        "pool": partial(_of_module, getattr(vit, "attn_pool", None)),
        **{f"blocks.{layer}": block.parameters for layer, block in enumerate(blocks)},
    }
    chosen: set[int] = set()
    for word in words:
        if word not in parts:
            raise TrainingError(
                f"trainable names {word!r}.",
                expected=f"'all', 'head', 'attention', 'norm', 'embed', 'pool', or 'blocks.0' to "
                f"'blocks.{model.cfg.n_layers - 1}' (nearest: {nearest(str(word), parts)})",
                remedy="Correct the word.",
            )
        found = {id(parameter) for parameter in parts[word]()}
        if not found:
            raise TrainingError(
                f"trainable names {word!r}, and this {type(vit).__name__} has none of their own.",
                expected="a part that the model has",
                remedy="Leave the word out, or name whole blocks: 'blocks.0'.",
            )
        chosen |= found
    names = []
    for name, parameter in vit.named_parameters():
        parameter.requires_grad_(id(parameter) in chosen)
        if parameter.requires_grad:
            names.append(name)
    return names


def _head(vit: Any) -> Iterator[nn.Parameter]:
    classifier: Any = getattr(vit, "get_classifier", tuple)()
    for each in classifier if isinstance(classifier, tuple) else (classifier,):
        yield from _of_module(each)


def _embedding(vit: Any) -> Iterator[nn.Parameter]:
    """What timm counts to the stem but the norm after it, and rotary frequencies that are learned."""
    groups: Mapping[str, Any] = getattr(vit, "group_matcher", dict)()
    stem = groups.get("stem")
    for name, parameter in vit.named_parameters():
        child = getattr(vit, name.split(".")[0])
        if stem is not None and re.match(stem, name) and not isinstance(child, _NORMS):
            yield parameter
    yield from _of_class(vit, (RotaryEmbeddingMixed,))


def _of_class(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> Iterator[nn.Parameter]:
    for each in module.modules():
        if isinstance(each, classes):
            yield from each.parameters()


def _of_module(module: nn.Module | None) -> Iterator[nn.Parameter]:
    if module is not None:
        yield from module.parameters()
