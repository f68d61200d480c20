"""How conditions are written: as strings such as "clean" and "gaussian_blur@3", or as named operations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from torch import Tensor

from ..errors import ConditionError
from .attacks import Attack
from .conditions import Condition, WhiteBox
from .corruptions import CORRUPTIONS, find_corruption
from .corruptions.groups import GROUP_NAMES, group
from .fourier import FourierNoise
from .options import Options

_SEVERITY = re.compile(r"([1-5])(?:-([1-5]))?")
_WITHOUT_SEVERITY = {
    "clean": "clean",
    "fgsm": "fgsm:eps=4/255",
    "fourier": "fourier:band=0-1/8,rms=0.1",
    "pgd": "pgd:eps=4/255,steps=10",
}
"""What has no severity, and how it is written."""

ConditionSpec: TypeAlias = str | Condition | Mapping[str, Callable[[Tensor], Tensor] | WhiteBox | Attack]
"""What names a condition: "clean", "gaussian_blur@3", "pgd:eps=4/255", {"name": callable, WhiteBox or
Attack}, or a `Condition`."""


def parse_condition(spec: ConditionSpec) -> Condition:
    """The condition that `spec` names.

    Args:
        spec: "clean"; a corruption with its severity ("gaussian_blur@3"), stored as JPEG afterwards
            ("fog@3:jpeg_quality=85"); noise in a band of frequencies ("fourier:band=0-1/8,rms=0.1"); an
            attack ("fgsm:eps=8/255", "pgd:eps=4/255,steps=10,on=base"); a mapping of one name to an
            `Attack` or an operation of one's own ([batch 3 height width] -> the same, in [0, 1]); or a
            `Condition`.

    Returns:
        One condition.

    Raises:
        ConditionError: it names none, or several.

    Example:
        >>> parse_condition("gaussian_blur@3")
        Condition(name='gaussian_blur@3', corruption='gaussian_blur', severity=3, jpeg_quality=None)
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
        specs: what `parse_condition` takes; besides, "gaussian_blur@1-5" names five conditions,
            "removes_high_frequency@3" one for each corruption of the group (`frequency_groups`, "imagenet_c",
            "imagenet_c_extra"), and a mapping as many as it has entries.

    Returns:
        At least one condition, each name once.

    Raises:
        ConditionError: a spec names none, a name comes twice, or there is none at all.

    Example:
        >>> [condition.name for condition in parse_conditions(["clean", "contrast@4-5"])]
        ['clean', 'contrast@4', 'contrast@5']
    """
    if not isinstance(specs, Iterable):
        raise ConditionError(
            f"conditions is {specs!r}.",
            expected="a list of conditions",
            remedy='Write ["clean", "gaussian_blur@3"], say.',
        )
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
            "No conditions were given."
            if twice is None
            else f"The condition '{twice}' is given twice, by itself or in a group or range.",
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
    head, _, options = spec.partition(":")
    if head == "fourier":
        return (Condition(spec, FourierNoise.from_options(Options(spec, options, FourierNoise.OPTIONS))),)
    if head in Attack.OPTIONS:
        read = Options(spec, options, Attack.OPTIONS[head])
        return (Condition(spec, Attack.from_options(head, read)),)
    name, at, severity = head.partition("@")
    if at and name in _WITHOUT_SEVERITY:
        raise ConditionError(
            f"The condition '{spec}' has the severity '{severity}'.",
            expected=f"'{name}' without one",
            remedy=f"Write {_WITHOUT_SEVERITY[name]!r}, say.",
        )
    # The name first: of a misspelt one, options and severity say nothing.
    names = group(name) or (find_corruption(name).name,)
    return _corruptions(spec, name, names, severity, Options(spec, options, ["jpeg_quality"]))


def _corruptions(
    spec: str, name: str, names: tuple[str, ...], severity: str, options: Options
) -> tuple[Condition, ...]:
    """What a corruption or a group of them stands for, at one severity or a range."""
    matched = _SEVERITY.fullmatch(severity)
    first, last = (int(matched[1]), int(matched[2] or matched[1])) if matched else (1, 0)
    if first > last:
        raise ConditionError(
            f"The condition '{spec}' has " + (f"the severity '{severity}'." if severity else "no severity."),
            expected=f'"{name}@1" (mildest) to "{name}@5", or a range such as "{name}@1-5"',
            remedy=f'Write "{name}@3", say.',
        )
    quality = options.whole("jpeg_quality", 0) if options.given else None
    suffix = "" if quality is None else f":jpeg_quality={quality}"
    return tuple(
        Condition(f"{each}@{level}{suffix}", each, level, quality)
        for each in names
        for level in range(first, last + 1)
    )


def _own(name: Any, operation: Any) -> Condition:
    words = {"clean", "fourier", *Attack.OPTIONS, *CORRUPTIONS, *GROUP_NAMES}
    taken = isinstance(name, str) and re.split("[@:]", name)[0] in words
    if (
        not isinstance(name, str)
        or not name
        or taken
        or not (callable(operation) or isinstance(operation, WhiteBox | Attack))
    ):
        raise ConditionError(
            f"A condition of your own is {name!r}: {operation!r}.",
            expected="a name that no condition of vitlens has, and a callable or an Attack",
            remedy='Write {"name": operation}, with operation(pixels) -> pixels.',
        )
    return Condition(name, operation)
