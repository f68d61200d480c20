"""What a corruption is: a frozen spec of its operation, its five strengths and what it needs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...errors import ConditionError
from ..values import is_real, is_whole

SEVERITIES = range(1, 6)
"""Mildest to strongest."""


@dataclass(frozen=True)
class Corruption:
    """What a corruption is: its operation and its five strengths.

    Attributes:
        name: what it is called in conditions: letters, digits and underscores.
        parameters: the operation's parameters at severities 1 to 5.
        parameter_names: what they are called; `_pixels` are lengths, at the image's own size.
        family: corruptions of one family are near-duplicates; "unseen" means another family.
        apply: the operation before its last step, clipping: called with [batch 3 height width], for a
            stochastic one with one `torch.Generator` for each image, and with the parameters.
        stochastic: whether it draws from a random stream for each image.
        differentiable: whether gradients of the result with respect to the pixels mean something.
        needs_assets: whether it needs files that the user names, as frost does.
        assets: SHA-256 of those files, once they are there.
        source: where the definition stands.

    Raises:
        ConditionError: the name cannot stand in a condition, or there are not five rows of parameters with
            a value for each name.

    Example:
        >>> from vitlens.images import CORRUPTIONS
        >>> spec = CORRUPTIONS["defocus_blur"]
        >>> dict(zip(spec.parameter_names, spec.parameters[2], strict=True))
        {'radius_pixels': 6, 'alias_sigma_pixels': 0.5}
    """

    name: str
    parameters: tuple[tuple[float, ...], ...]
    parameter_names: tuple[str, ...]
    family: str
    apply: Callable[..., Tensor]
    stochastic: bool = False
    differentiable: bool = True
    needs_assets: bool = False
    assets: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ConditionError(
                f"A corruption is called {self.name!r}.",
                expected="letters, digits and underscores, as in 'gaussian_blur'",
                remedy="Rename it: conditions add '@' and a severity to the name.",
            )
        rows = [row if isinstance(row, tuple | list) else None for row in self.parameters]
        widths = [None if row is None else len(row) for row in rows]
        if (
            widths != [len(self.parameter_names)] * len(SEVERITIES)
            or not isinstance(self.parameter_names, tuple | list)
            or not all(is_real(value) for row in rows for value in row or ())
        ):
            raise ConditionError(
                f"'{self.name}' has the parameters {self.parameters} for the names {self.parameter_names}.",
                expected="five rows of numbers, for severities 1 to 5, with a value for each name",
                remedy="Give parameters=((1.0,), (2.0,), (3.0,), (4.0,), (5.0,)), say; rows may be equal.",
            )
        if not callable(self.apply):
            raise ConditionError(
                f"The operation of '{self.name}' is {self.apply!r}.",
                expected="a function (pixels, *parameters) -> pixels",
                remedy="Give apply=function.",
            )
        # As tuples, a spec can be compared and hashed.
        object.__setattr__(self, "parameters", tuple(tuple(row or ()) for row in rows))
        object.__setattr__(self, "parameter_names", tuple(self.parameter_names))

    @property
    def is_ready(self) -> bool:
        """Whether nothing is missing to apply it."""
        return self.assets is not None or not self.needs_assets


def check_severity(name: str, severity: Any) -> int:
    """The severity, if it is one.

    Raises:
        ConditionError: it is no whole number from 1 to 5.

    Example:
        >>> check_severity("contrast", 5)
        5
    """
    if is_whole(severity) and severity in SEVERITIES:
        return operator.index(severity)
    raise ConditionError(
        f"The severity of '{name}' is {severity!r}.",
        expected="a whole number from 1 (mildest) to 5",
        remedy=f"See vitlens.CORRUPTIONS['{name}'].parameters for what each means.",
    )
