"""Which of timm's tensors hold which of Hugging Face's: one table, read in both directions.

A relation says that two groups of tensors, each joined along its first axis, hold the same numbers: `qkv`
and `q, k, v`; `in_proj` and `q, kv`; most often one tensor and one tensor. Axes of length 1 do not count
where one tensor meets one tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Relation:
    """Two groups of tensors that hold the same numbers.

    Args:
        timm: names in timm's state dict; `{}` stands for the layer.
        hf: names in Hugging Face's, without the base model's prefix.
    """

    timm: tuple[str, ...]
    hf: tuple[str, ...]

    def of_layer(self, layer: int) -> Relation:
        """The same relation in one layer."""
        return Relation(
            tuple(name.format(layer) for name in self.timm), tuple(name.format(layer) for name in self.hf)
        )


@dataclass
class Outcome:
    """What moving tensors through a table gave, and what it could not place.

    Args:
        moved: the tensors under their new names.
        filled: those of them that the giving side does not have: biases of zero.
        used: names that were read, or need not be: biases of zero that the taking side does not have.
        unplaced: names whose numbers are not zero and have no place on the other side.
        misfits: names that are wanted in other shapes -> a phrase that names both sides' shapes.
    """

    moved: dict[str, Tensor] = field(default_factory=dict)
    filled: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    unplaced: list[str] = field(default_factory=list)
    misfits: dict[tuple[str, ...], str] = field(default_factory=dict)


def one(timm: str, hf: str) -> Relation:
    """One tensor here, the same tensor there."""
    return Relation((timm,), (hf,))


def parameters(timm: str, *hf: str) -> tuple[Relation, Relation]:
    """The weight and the bias of one timm module, and of the Hugging Face modules that it joins."""
    weight, bias = (
        Relation((f"{timm}.{kind}",), tuple(f"{module}.{kind}" for module in hf))
        for kind in ("weight", "bias")
    )
    return weight, bias


def expand(relations: Iterable[Relation], n_layers: int) -> list[Relation]:
    """Write out the relations that hold in every layer."""
    expanded: list[Relation] = []
    for relation in relations:
        if "{}" in relation.timm[0]:
            expanded.extend(relation.of_layer(layer) for layer in range(n_layers))
        else:
            expanded.append(relation)
    return expanded


def move(
    pairs: Iterable[tuple[Sequence[str], Sequence[str]]], given: Mapping[str, Tensor], wanted: Shapes
) -> Outcome:
    """Move tensors from one side of a table to the other.

    A bias that the giving side does not have is zero. A bias that the taking side does not have must be zero.

    Args:
        pairs: names that give, names that take.
        given: the giving side's tensors.
        wanted: the taking side's names and shapes; a pair none of whose names is among them is passed over.

    Returns:
        What moved and what did not fit.
    """
    outcome = Outcome()
    pairs = list(pairs)
    for giving, taking in pairs:
        _move(giving, taking, given, wanted, outcome)
    for name in {name for _, taking in pairs for name in taking}:
        if name in wanted and name not in outcome.moved and name.endswith("bias"):
            outcome.moved[name] = next(iter(given.values())).new_zeros(wanted[name])
            outcome.filled.add(name)
    for name in sorted({name for giving, _ in pairs for name in giving} & given.keys() - outcome.used):
        if name.endswith("bias") and not given[name].any():
            outcome.used.add(name)
    return outcome


def _move(
    giving: Sequence[str],
    taking: Sequence[str],
    given: Mapping[str, Tensor],
    wanted: Shapes,
    outcome: Outcome,
) -> None:
    present = {name: tuple(given[name].shape) for name in giving if name in given}
    takers = {name: wanted[name] for name in taking if name in wanted}
    if not present or not takers:
        return
    outcome.used.update(present)
    misfit = f"{_listed(present)} for {_listed(takers)}"
    if len(giving) == len(taking) == 1:
        shape = takers[taking[0]]
        if _bare(present[giving[0]]) == _bare(shape):
            outcome.moved[taking[0]] = given[giving[0]].reshape(shape).clone()
        else:
            outcome.misfits[tuple(takers)] = misfit
        return

    rows_given = {name: shape[0] for name, shape in present.items()}
    rows_taken = {name: shape[0] for name, shape in takers.items()}
    # One side is whole, and says how long what the other side lacks would be.
    total = sum(rows_given.values()) if len(present) == len(giving) else sum(rows_taken.values())
    rows_given = _complete(giving, rows_given, total)
    rows_taken = _complete(taking, rows_taken, total)
    tails = {shape[1:] for shape in (*present.values(), *takers.values())}
    lacking = {*giving, *taking} - {*present, *takers}
    fits = (
        sum(rows_given.values()) == sum(rows_taken.values()) == total
        and min(*rows_given.values(), *rows_taken.values()) > 0
        and len(tails) == 1
        and all(name.endswith("bias") for name in lacking)
    )
    if not fits:
        outcome.misfits[tuple(takers)] = misfit
        return
    like = given[next(iter(present))]
    # Only biases can be lacking, and they have one axis.
    whole = torch.cat([given[name] if name in given else like.new_zeros(rows_given[name]) for name in giving])
    for name, part in zip(taking, whole.split([rows_taken[name] for name in taking]), strict=True):
        if name in wanted:
            outcome.moved[name] = part.clone()
        elif part.any():
            outcome.unplaced.extend(present)


def _complete(names: Sequence[str], rows: dict[str, int], total: int) -> dict[str, int]:
    """The first axis's length of every name; those that are lacking share what is left of `total`."""
    n_lacking = len(names) - len(rows)
    share = (total - sum(rows.values())) // n_lacking if n_lacking else 0
    return {name: rows.get(name, share) for name in names}


def _bare(shape: Sequence[int]) -> list[int]:
    return [length for length in shape if length != 1]


def _listed(shapes: Shapes) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
