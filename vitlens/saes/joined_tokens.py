"""Two checkpoints' activations of the same tokens, side by side in one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from .passes import blocks
from .stored_tokens import StoredTokens
from .survey import survey
from .tokens import Activations, Tokens, as_tokens

N_PROBES = 8
"""Rows whose places are looked up, of those to train on and of those held out, to see that orders agree."""

_OF_BOTH = ("hook_name", "tokens", "conditions")


class Joined:
    """The activations of two or more checkpoints as `Tokens`, each times its scale.

    Args:
        parts: checkpoint -> its tokens, finite and in step: see `in_step` and `check_orders`.
        scales: a factor for each.

    Example:
        >>> from vitlens.saes.tokens import InMemory
        >>> parts = {"base": InMemory(torch.ones(3, 2)), "tuned": InMemory(torch.ones(3, 2))}
        >>> next(Joined(parts, (1.0, 0.5)).in_order(1))
        tensor([[1.0000, 1.0000, 0.5000, 0.5000]])
    """

    def __init__(self, parts: Mapping[str, Tokens], scales: Sequence[float]) -> None:
        self._parts, self._scales = dict(parts), tuple(scales)

    @property
    def n_tokens(self) -> int:
        """How many rows there are."""
        return next(iter(self._parts.values())).n_tokens

    @property
    def d_in(self) -> int:
        """How wide the checkpoints' rows are together."""
        return sum(part.d_in for part in self._parts.values())

    @property
    def device(self) -> torch.device:
        """Where the first checkpoint's rows arrive; the others' are brought there."""
        return next(iter(self._parts.values())).device

    @property
    def origin(self) -> Mapping[str, Any]:
        """What the parts agree on, and `origins`: checkpoint -> what is known of its own."""
        origins = {name: dict(part.origin) for name, part in self._parts.items()}
        first = next(iter(origins.values()))
        return {name: first[name] for name in _OF_BOTH if name in first} | {"origins": origins}

    def n_not_finite(self) -> int:
        """None: the parts were asked when they became tokens."""
        return 0

    def in_order(self, batch_size: int) -> Iterator[Float[Tensor, "batch d_in"]]:
        """One pass in a fixed order; the last batch may be smaller."""
        return self._side_by_side([part.in_order(batch_size) for part in self._parts.values()])

    def shuffled(
        self, batch_size: int, *, seed: int, start_batch: int = 0
    ) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Whole batches without end, cut from shuffled epochs laid end to end."""
        return self._side_by_side(
            [part.shuffled(batch_size, seed=seed, start_batch=start_batch) for part in self._parts.values()]
        )

    def split(self, n_holdout_tokens: int, *, seed: int) -> tuple[Joined, Joined]:
        """The tokens to train on, and at least `n_holdout_tokens` others."""
        halves = {name: part.split(n_holdout_tokens, seed=seed) for name, part in self._parts.items()}
        used, held = (
            Joined({name: half[which] for name, half in halves.items()}, self._scales) for which in (0, 1)
        )
        return used, held

    def _side_by_side(
        self, streams: Sequence[Iterator[Float[Tensor, "batch part"]]]
    ) -> Iterator[Float[Tensor, "batch d_in"]]:
        for batch in zip(*streams, strict=True):
            scaled = [
                rows.to(self.device).float() * scale for rows, scale in zip(batch, self._scales, strict=True)
            ]
            yield torch.cat(scaled, dim=1)


def in_step(activations: Mapping[str, Activations]) -> dict[str, Tokens]:
    """Finite tokens of several checkpoints whose rows are the same tokens.

    That row t of each is the same token of the same image cannot be seen in tensors; what can be seen is
    checked.

    Args:
        activations: checkpoint -> its activations.

    Raises:
        SAEError: a checkpoint's activations are not finite rows; or two differ in width, in number, in where
            they come from or in their images.

    Example:
        >>> in_step({"base": torch.zeros(4, 2), "tuned": torch.zeros(3, 2)})
        Traceback (most recent call last):
        vitlens.errors.SAEError: The activations of 'base' and 'tuned' differ in their number of tokens: ...
    """
    parts = {name: as_tokens(each, f"The activations of {name!r}") for name, each in activations.items()}
    (first, its), *others = parts.items()
    for name, part in others:
        seen = {
            "width": (its.d_in, part.d_in),
            "number of tokens": (its.n_tokens, part.n_tokens),
            **{key: (its.origin.get(key), part.origin.get(key)) for key in _OF_BOTH},
        }
        differ = [
            f"{what}: {one!r} and {other!r}"
            for what, (one, other) in seen.items()
            if one != other and None not in (one, other)  # a tensor does not say where it comes from
        ]
        if (
            isinstance(its, StoredTokens)
            and isinstance(part, StoredTokens)
            and its.image_ids != part.image_ids
        ):
            differ.append("images")
        if differ:
            raise SAEError(
                f"The activations of {first!r} and {name!r} differ in their {differ[0]}.",
                expected="the same tokens of the same images through either checkpoint",
                remedy="Take both of the same images, or write one store for both.",
            )
    return parts


def fitted_scale(tokens: Tokens) -> float:
    """The factor at which the mean squared deviation from the mean is the width of a row.

    Raises:
        SAEError: all tokens have the same activation.

    Example:
        >>> from vitlens.saes.tokens import InMemory
        >>> fitted_scale(InMemory(torch.tensor([[5.0], [9.0]])))
        0.5
    """
    mean = survey(tokens, checksum=False).mean
    squares = sum(float((block.double() - mean).square().sum()) for block in blocks(tokens))
    return float((tokens.n_tokens * tokens.d_in / squares) ** 0.5)


def check_orders(parts: Mapping[str, Tokens], seed: int) -> None:
    """Refuse tokens that are in step as they stand, but not when they are shuffled and split.

    Args:
        parts: checkpoint -> its tokens, as from `in_step`.
        seed: one with which an order is tried.

    Raises:
        SAEError: two are not shuffled or split alike.
    """
    if next(iter(parts.values())).n_tokens < 3:
        return  # too few to split; a training refuses them
    places = {}
    for name, part in parts.items():
        used, held = part.split(2, seed=seed)
        probes = [next(used.shuffled(N_PROBES, seed=seed)), next(held.in_order(N_PROBES))]
        places[name] = _places(part, torch.cat(probes))
    (first, its), *others = places.items()
    for name, theirs in others:
        agree = len(its) == len(theirs) and all(a & b for a, b in zip(its, theirs, strict=True))
        if not agree:
            raise SAEError(
                f"The tokens of {first!r} and {name!r} are not shuffled and split alike.",
                expected="tokens that one seed puts into one order",
                remedy="Give tensors for both, or the same hook of one store that was written for both "
                "checkpoints in step.",
            )


def _places(tokens: Tokens, probes: Float[Tensor, "probe d_in"]) -> list[set[int]]:
    """Numbers of the rows, in order, that equal each probe."""
    found: list[set[int]] = [set() for _ in probes]
    columns = probes.abs().argmax(dim=1).tolist()
    start = 0
    for block in blocks(tokens):
        for probe, column, where in zip(probes, columns, found, strict=True):
            candidates = (block[:, column] == probe[column]).nonzero().flatten()
            same = (block[candidates] == probe).all(dim=1)
            where.update((start + candidates[same]).tolist())
        start += len(block)
    return found
