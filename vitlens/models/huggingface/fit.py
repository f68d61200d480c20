"""Whether every tensor has found its place, and what to say where one has not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import nn

from ...errors import CheckpointError
from ...names import some
from .model_type import ModelType
from .relations import Outcome, Relation, Shapes, expand

_SHOWN = 4  # names in an error message


def table_of(model_type: ModelType, module: nn.Module) -> list[Relation]:
    """A model type's relations, written out for the layers of a timm module."""
    vit: Any = module
    return expand(model_type.relations, len(getattr(vit, "blocks", ())))


def check_fit(outcome: Outcome, wanted: Shapes, surplus: Sequence[str], what: str, where: str) -> None:
    """Raise where a tensor is missing, has no place, or has another shape.

    Args:
        outcome: what was moved.
        wanted: what the taking side needs.
        surplus: names of the giving side that nothing read.
        what: the weights, for the message.
        where: the taking side, for the message.

    Raises:
        CheckpointError: something does not fit: which, and how many.
    """
    # What came in another shape is not missing as well.
    missing = sorted(wanted.keys() - outcome.moved.keys() - {*chain.from_iterable(outcome.misfits)})
    complaints = [
        *some("missing", missing),
        *some("without a place there", [*surplus, *outcome.unplaced]),
        *some("of another shape", list(outcome.misfits.values())),
    ]
    if complaints:
        raise CheckpointError(
            f"{what} do not fit {where}: {'; '.join(complaints)}.",
            expected=f"its {len(wanted)} tensors, by name and shape",
            remedy="Check that class, configuration and number of classes are those of the weights.",
        )
