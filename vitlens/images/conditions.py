"""Conditions: under what the images are shown, as strings such as "clean" and "gaussian_blur@3"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from ..errors import ConditionError
from .corruption import CORRUPTIONS, check_severity, corrupt, find_corruption
from .pixels import BATCH_AXES, pixel_fault

_SEVERITY = re.compile(r"([1-5])(?:-([1-5]))?")
_ATTACK = re.compile(r"[a-z_0-9]+:|(?:fgsm|pgd)\b")


@dataclass(frozen=True)
class WhiteBox:
    """An operation that looks inside the model, such as an attack: each checkpoint gets pixels of its own.

    Analyses that pair the activations of two checkpoints refuse it.

    Attributes:
        operation: (model, pixels [batch 3 height width] in [0, 1], labels [batch]) -> the same pixels'
            shape, in [0, 1]. It is called without gradients; enable them inside.

    Example:
        >>> parse_condition({"mine": WhiteBox(lambda model, pixels, labels: pixels / 2)}).shares_pixels
        False
    """

    operation: Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Condition:
    """Something that is done to the images before a model sees them.

    Attributes:
        name: what it is called in tables: the string itself, such as "gaussian_blur@3".
        corruption: a key of `CORRUPTIONS`, one's own operation on a batch, a `WhiteBox`, or None for clean
            images.
        severity: 1 to 5 for a key of `CORRUPTIONS`, else None.

    Raises:
        ConditionError: `corruption` is a string that is no key of `CORRUPTIONS`, or lacks its severity.

    Example:
        >>> import torch
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> parse_condition({"dark": lambda pixels: pixels / 2}).apply(grey, ["a"]).unique()
        tensor([0.2500])
    """

    name: str
    corruption: str | Callable[[Tensor], Tensor] | WhiteBox | None = None
    severity: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.corruption, str):
            find_corruption(self.corruption)
            check_severity(self.corruption, self.severity)

    @property
    def shares_pixels(self) -> bool:
        """Whether all checkpoints see the same pixels."""
        return not isinstance(self.corruption, WhiteBox)

    def apply(
        self,
        pixels: Tensor,
        image_ids: Sequence[str],
        *,
        seed: int = 0,
        step: int | None = None,
        model: Any = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The images under this condition.

        Args:
            pixels: [batch 3 height width] in [0, 1].
            image_ids: one for each image.
            seed: the study's seed.
            step: the training step, where each step shall draw anew.
            model: the model that will see them; a white-box condition asks it.
            labels: [batch] the correct classes; a white-box condition may want them.

        Returns:
            The same shape, in [0, 1]; clean images are handed back as they are.

        Raises:
            ConditionError: one's own operation gave something else.
            PixelError: the pixels cannot be corrupted.
        """
        if self.corruption is None:
            return pixels
        if isinstance(self.corruption, str):
            severity = check_severity(self.corruption, self.severity)
            return corrupt(pixels, self.corruption, severity, image_ids=image_ids, seed=seed, step=step)
        # A copy: an operation that writes in place must not reach the clean images.
        own = pixels.clone()
        if isinstance(self.corruption, WhiteBox):
            if model is None or labels is None:
                raise ConditionError(
                    f"The condition '{self.name}' looks inside the model, and there is none here.",
                    expected="a condition that changes pixels alone",
                    remedy="Use it with vitlens.run, which has a model and labels.",
                )
            changed = self.corruption.operation(model, own, labels)
        else:
            changed = self.corruption(own)
        fault = pixel_fault(changed, BATCH_AXES)
        given = None if fault is None else fault.given
        if given is None and (changed.shape, changed.dtype) != (pixels.shape, pixels.dtype):
            given = f"have shape {list(changed.shape)} and are {changed.dtype}"
        if given is not None:
            raise ConditionError(
                f"The pixels that condition '{self.name}' returned {given}.",
                expected=f"{pixels.dtype} in [0, 1] of shape {list(pixels.shape)}",
                remedy="Correct the operation; end it with .clamp(0, 1) if it leaves the range.",
            )
        return changed


ConditionSpec: TypeAlias = str | Condition | Mapping[str, Callable[[Tensor], Tensor] | WhiteBox]
"""What names a condition: "clean", "gaussian_blur@3", {"name": callable or WhiteBox}, or a `Condition`."""


def parse_condition(spec: ConditionSpec) -> Condition:
    """The condition that `spec` names.

    Args:
        spec: "clean", a corruption with its severity ("gaussian_blur@3"), a mapping of one name to an
            operation of one's own ([batch 3 height width] -> the same, in [0, 1]), or a `Condition`.

    Returns:
        One condition.

    Raises:
        ConditionError: it names none, or several.

    Example:
        >>> parse_condition("gaussian_blur@3")
        Condition(name='gaussian_blur@3', corruption='gaussian_blur', severity=3)
    """
    conditions = _expanded(spec)
    if len(conditions) != 1:
        raise ConditionError(
            f"{spec!r} names {len(conditions)} conditions.",
            expected="one",
            remedy="Name one severity, or one operation.",
        )
    return conditions[0]


def parse_conditions(specs: Iterable[ConditionSpec]) -> tuple[Condition, ...]:
    """The conditions that `specs` name, in their order.

    Args:
        specs: what `parse_condition` takes; besides, "gaussian_blur@1-5" names five conditions, and a mapping
            as many as it has entries.

    Returns:
        At least one condition, each name once.

    Raises:
        ConditionError: a spec names none, a name comes twice, or there is none at all.

    Example:
        >>> [condition.name for condition in parse_conditions(["clean", "contrast@4-5"])]
        ['clean', 'contrast@4', 'contrast@5']
    """
    if isinstance(specs, str):
        raise ConditionError(
            f"The conditions are one string, {specs!r}.",
            expected="a list of conditions",
            remedy=f"Write [{specs!r}].",
        )
    conditions = tuple(condition for spec in specs for condition in _expanded(spec))
    names = [condition.name for condition in conditions]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not names:
        raise ConditionError(
            "No conditions were given." if twice is None else f"The condition '{twice}' is given twice.",
            expected="at least one condition, each once",
            remedy='Name each once, such as ["clean", "gaussian_blur@3"].',
        )
    return conditions


def _expanded(spec: Any) -> tuple[Condition, ...]:
    if isinstance(spec, Condition):
        return (spec,)
    if isinstance(spec, str):
        return _from_string(spec)
    if isinstance(spec, Mapping):
        return tuple(_own(name, operation) for name, operation in spec.items())
    raise ConditionError(
        f"A condition is given as a {type(spec).__name__}.",
        expected='a string, a mapping {"name": callable}, or a Condition',
        remedy='Write "clean" or "gaussian_blur@3", or give your operation a name: {"name": operation}.',
    )


def _from_string(spec: str) -> tuple[Condition, ...]:
    if spec == "clean":
        return (Condition("clean"),)
    if _ATTACK.match(spec):
        raise ConditionError(
            f"'{spec}' looks like an attack, and this version of vitlens has none.",
            expected='"clean", or a corruption such as "gaussian_blur@3"',
            remedy='Attack the images yourself and give the operation: {"name": callable}.',
        )
    name, _, severity = spec.partition("@")
    find_corruption(name)
    matched = _SEVERITY.fullmatch(severity)
    first, last = (int(matched[1]), int(matched[2] or matched[1])) if matched else (1, 0)
    if first > last:
        raise ConditionError(
            f"The condition '{spec}' has " + (f"the severity '{severity}'." if severity else "no severity."),
            expected=f'"{name}@1" (mildest) to "{name}@5", or a range such as "{name}@1-5"',
            remedy=f'Write "{name}@3", say.',
        )
    return tuple(Condition(f"{name}@{level}", name, level) for level in range(first, last + 1))


def _own(name: Any, operation: Any) -> Condition:
    taken = isinstance(name, str) and (name == "clean" or name.partition("@")[0] in CORRUPTIONS)
    if (
        not isinstance(name, str)
        or not name
        or taken
        or not (callable(operation) or isinstance(operation, WhiteBox))
    ):
        raise ConditionError(
            f"A condition of your own is {name!r}: {operation!r}.",
            expected="a name that no condition of vitlens has, and a callable",
            remedy='Write {"name": operation}, with operation(pixels) -> pixels.',
        )
    return Condition(name, operation)
