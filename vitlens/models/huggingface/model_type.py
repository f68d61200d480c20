"""What a Hugging Face model type has to say so that its weights can be carried."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.layers import GELUTanh, LayerNorm, QuickGELU
from torch import Tensor, nn

from ...errors import ArchitectureError
from .relations import Relation

Settings = Mapping[str, Any]
"""The plain values of a configuration, and `n_classes`: outputs of the head, 0 where there is none."""

State = dict[str, Tensor]


def unchanged(state: State) -> State:
    """The state dict as it is."""
    return state


@dataclass(frozen=True)
class ModelType:
    """One of Hugging Face's model types; one small file each.

    Args:
        names: values of `config.model_type`.
        classes: the class that is built for a checkpoint which names no class, then the others.
        loads_as: classes of whole checkpoints -> the class of `classes` that reads their vision part.
        anchor: a weight that every model has; what stands before it in the state dict is the prefix.
        relations: the table, in the current spelling and without that prefix.
        build: (class, settings, keywords for timm's class) -> timm's module of that shape, fresh.
        older: patterns and replacements that turn older spellings into the current one, in order.
        unused: patterns of names that timm's module has no use for, such as mask tokens.
        before_timm: a change to Hugging Face's tensors before the table is read.
        after_timm: a change to timm's tensors before the table is read backward.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    anchor: str
    relations: tuple[Relation, ...]
    build: Callable[[str, Settings, Mapping[str, Any]], nn.Module]
    loads_as: Mapping[str, str] | None = None
    older: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    before_timm: Callable[[State], State] = unchanged
    after_timm: Callable[[State], State] = unchanged

    def spell(self, names: list[str]) -> dict[str, str]:
        """Hugging Face's names -> the table's spelling of them."""
        prefix = next((name.removesuffix(self.anchor) for name in names if name.endswith(self.anchor)), "")
        spelled = {}
        for name in names:
            current = name.removeprefix(prefix)
            for pattern, replacement in self.older:
                current = re.sub(pattern, replacement, current)
            spelled[name] = current
        return spelled

    def is_unused(self, spelled: str) -> bool:
        """Whether timm's module has no use for a name."""
        return any(re.match(pattern, spelled) for pattern in self.unused)


# ---------------------------------------------------------------------- reading settings

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": GELUTanh,
    "gelu_pytorch_tanh": GELUTanh,
    "quick_gelu": QuickGELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
}


def shape_arguments(settings: Settings) -> dict[str, Any]:
    """The arguments that all of timm's classes share.

    Raises:
        ArchitectureError: the heads do not share the width evenly.
    """
    width, n_heads = settings["hidden_size"], settings["num_attention_heads"]
    d_head = settings.get("head_dim", width // n_heads)
    if d_head * n_heads != width:
        raise ArchitectureError(
            f"The configuration has {n_heads} heads, head_dim {d_head} and hidden_size {width}.",
            expected="heads that share hidden_size evenly, as in timm's modules",
            remedy="Such a model cannot be carried over to timm.",
        )
    return {
        "img_size": _two(settings["image_size"]),
        "patch_size": _two(settings["patch_size"]),
        "in_chans": settings["num_channels"],
        "num_classes": settings["n_classes"],
        "embed_dim": width,
        "depth": settings["num_hidden_layers"],
        "num_heads": n_heads,
        "norm_layer": partial(LayerNorm, eps=settings["layer_norm_eps"]),
    }


def activation(settings: Settings) -> type[nn.Module]:
    """The MLP's activation.

    Raises:
        ArchitectureError: timm's modules have none that computes the same.
    """
    name = settings["hidden_act"]
    if name not in _ACTIVATIONS:
        raise unsupported_activation(name, _ACTIVATIONS)
    return _ACTIVATIONS[name]


def unsupported_activation(name: object, supported: Iterable[str]) -> ArchitectureError:
    """The error for an activation that timm's module does not have."""
    return ArchitectureError(
        f"The configuration's hidden_act is {name!r}.",
        expected=f"one of {', '.join(supported)}, which timm's module of this shape can have",
        remedy="Such a model cannot be carried over to timm.",
    )


def mlp_ratio(settings: Settings, d_mlp: int | None = None) -> float:
    """The ratio from which timm computes exactly `d_mlp`, by default `intermediate_size`."""
    width, wanted = settings["hidden_size"], d_mlp or settings["intermediate_size"]
    ratio: float = wanted / width
    # timm takes int(width * ratio), and a quotient that was rounded down would lose one.
    return ratio if int(width * ratio) == wanted else (wanted + 0.5) / width


def _two(size: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])
