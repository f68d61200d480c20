"""The kinds of SAE that can be trained: sae-lens's class of each, and what may be set."""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import SAEError
from ..names import nearest
from ._sae_lens import (
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    StandardTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
    TrainingSAE,
    TrainingSAEConfig,
)
from .lean import LeanStandardTrainingSAE
from .sparse import SparseBatchTopKTrainingSAE

_OURS = {
    *("d_in", "d_sae", "k", "l1_coefficient"),  # arguments of train
    *("dtype", "device", "metadata"),  # train sets them itself
    *("normalize_activations", "reshape_activations"),  # tokens are scaled by one factor
    "use_sparse_activations",  # has no gradient in sae-lens with the torch of today; codes are the same
}


@dataclass(frozen=True)
class Kind:
    """One kind of SAE.

    Attributes:
        sae: the class that is trained.
        config: its configuration.
        settings: fields of the configuration that an argument of `vitlens.saes.train` gives: field ->
            argument.
        warm_up: the field with the number of steps over which its penalty warms up, if it has one.
        sets_threshold: for inference, it gets the one threshold at which mean L0 is k.
    """

    sae: type[TrainingSAE[Any]]
    config: type[TrainingSAEConfig]
    settings: Mapping[str, str]
    warm_up: str | None = None
    sets_threshold: bool = False


KINDS: Mapping[str, Kind] = {
    "batch_topk": Kind(
        SparseBatchTopKTrainingSAE,
        BatchTopKTrainingSAEConfig,
        {"k": "k_per_token"},
        sets_threshold=True,
    ),
    "vanilla": Kind(
        LeanStandardTrainingSAE,
        StandardTrainingSAEConfig,
        {"l1_coefficient": "l1_coefficient"},
        warm_up="l1_warm_up_steps",
    ),
    "topk": Kind(TopKTrainingSAE, TopKTrainingSAEConfig, {"k": "k_per_token"}),
    "jumprelu": Kind(JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig, {}, warm_up="l0_warm_up_steps"),
    "matryoshka": Kind(
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
        {"k": "k_per_token"},
        sets_threshold=True,
    ),
}


def check_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of one kind, as JSON gives them back.

    Args:
        kind: a name among `KINDS`.
        options: fields of sae-lens's configuration of that kind.

    Raises:
        SAEError: a field that it has not, or that has an argument of its own, or a value of another type.

    Example:
        >>> check_options("jumprelu", {"l0_coeficient": 2.0})
        Traceback (most recent call last):
        vitlens.errors.SAEError: 'l0_coeficient' is no option of kind 'jumprelu'. Expected: fields of ...
    """
    config = KINDS[kind].config
    types_of = get_type_hints(config)
    names = {field.name for field in fields_of(config)} - _OURS
    for name, value in options.items():
        if name not in names:
            raise SAEError(
                f"{name!r} is no option of kind {kind!r}.",
                expected=f"fields of sae-lens's {config.__name__} that train has no argument for",
                remedy=f"The nearest are {nearest(name, names)}.",
            )
        if not _fits(value, types_of[name]):
            raise SAEError(
                f"The option {name!r} is {value!r}.",
                expected=f"a value of the type {_spelled(types_of[name])}, finite if a number",
                remedy=f"See sae-lens's {config.__name__}.",
            )
    as_json: dict[str, Any] = json.loads(json.dumps(dict(options)))
    return as_json


def _fits(value: Any, annotation: Any) -> bool:
    """Whether a value has an annotated type; the types that sae-lens's configurations use."""
    origin = get_origin(annotation)
    if origin is Literal:
        return value in get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(annotation))
    if origin is list:
        (element,) = get_args(annotation)
        return isinstance(value, list | tuple) and all(_fits(each, element) for each in value)
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))


def _spelled(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
