"""Numbers that overflowed: noticed as they stream by, kept with the rows, said once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool
from torch import Tensor

from ..models import HookedViT

NOT_FINITE = "not_finite"
"""The attribute of a run's rows that says what was not finite; rows without it are of finite numbers."""

_N_NAMED = 3
"""Images that are named where more were found."""

Notice: TypeAlias = Callable[[str, Bool[Tensor, " image"]], None]
"""Takes a place and which of a batch's images are not finite there."""


class Watch:
    """What is looked at in one pass over a batch.

    Nothing is copied to the CPU before `tell`: on a GPU the pass is not held up.

    Args:
        n_images: images in the batch.
    """

    def __init__(self, n_images: int) -> None:
        self._n_images = n_images
        self._sums: dict[str, Tensor] = {}

    def look(self, place: str, values: Tensor) -> None:
        """Look at the values of a place; the first axis is `batch`, or of length 1 for all images."""
        wide = torch.promote_types(values.dtype, torch.float32)
        # A sum is finite where all of its terms are, and reads them once.
        sums = values.detach().flatten(1).sum(1, dtype=wide)
        self._sums[place] = sums if len(sums) == self._n_images else sums.sum().expand(self._n_images)

    def tell(self, notice: Notice) -> None:
        """Hand on each image that is not finite, with the first place at which it was not."""
        if not self._sums:
            return
        bad = ~torch.stack([sums.isfinite().cpu() for sums in self._sums.values()])
        if not bool(bad.any()):
            return
        first = bad.int().argmax(0)
        for number, place in enumerate(self._sums):
            here = bad[number] & (first == number)
            if bool(here.any()):
                notice(place, here)


class NotFinite:
    """Where some images had numbers that are not finite, and how many.

    Args:
        records: as `records` gave them.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self._found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for record in records:
            self._add(dict(record))

    def notices(self, checkpoint: str, condition: str, image_ids: Sequence[str]) -> Notice:
        """Where a `Watch` tells what it has seen of a batch."""

        def notice(place: str, bad: Tensor) -> None:
            names = [image_ids[index] for index in bad.nonzero().flatten().tolist()]
            self._add(
                {
                    "checkpoint": checkpoint,
                    "condition": condition,
                    "place": place,
                    "n_images": len(names),
                    "image_ids": names,
                }
            )

        return notice

    def records(self) -> list[dict[str, Any]]:
        """For each checkpoint, condition and place: how many images, and the first few of them."""
        return list(self._found.values())

    def _add(self, record: dict[str, Any]) -> None:
        key = (record["checkpoint"], record["condition"], record["place"])
        known = self._found.setdefault(key, {**record, "n_images": 0, "image_ids": []})
        known["n_images"] += record["n_images"]
        known["image_ids"] = [*known["image_ids"], *record["image_ids"]][:_N_NAMED]


def joined_records(attrs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The attribute of several parts' rows as one; empty where all numbers are finite.

    Example:
        >>> part = {"checkpoint": "a", "condition": "clean", "place": "logits"}
        >>> parts = [{NOT_FINITE: [part | {"n_images": 1, "image_ids": [image]}]} for image in "xy"]
        >>> joined_records([{}, *parts])[NOT_FINITE][0]["image_ids"]
        ['x', 'y']
    """
    records = NotFinite(record for each in attrs for record in each.get(NOT_FINITE, ())).records()
    return {NOT_FINITE: records} if records else {}


class Saying:
    """Says once, in a warning, that numbers were not finite.

    Args:
        models: what was run.
        precision: as in `run`.
    """

    def __init__(self, models: Iterable[HookedViT], precision: str | None) -> None:
        dtypes = {str(model.dtype).removeprefix("torch.") for model in models}
        self._half = ({precision} if precision else dtypes) & {"float16", "bfloat16"}
        self._said = False

    def say(self, records: Sequence[Mapping[str, Any]], stacklevel: int) -> None:
        """Warn of the first record, unless a warning was given.

        Args:
            records: from `NotFinite.records`.
            stacklevel: of the caller whom the warning is for, 1 being this method's.
        """
        if self._said or not records:
            return
        self._said = True
        first = records[0]
        named = ", ".join(map(repr, first["image_ids"])) + (
            ", ..." if first["n_images"] > len(first["image_ids"]) else ""
        )
        if "float16" in self._half:
            why = "float16 ends at 65504. Measure with precision='bfloat16' or in float32"
        elif self._half:
            why = "Measure in float32"
        else:
            why = "Look for damaged weights, or weights that are too large"
        warnings.warn(
            f"'{first['checkpoint']}' under '{first['condition']}' has NaN or infinity at {first['place']} "
            f"for {some_images(first['n_images'])} ({named}). What follows from it is no number either; in "
            f"the rows of a run the attribute '{NOT_FINITE}' counts all such images. {why}.",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def some_images(n: int) -> str:
    """A number of images in words.

    Example:
        >>> some_images(1), some_images(1200)
        ('1 image', '1,200 images')
    """
    return f"{n:,} image{'' if n == 1 else 's'}"


def place_of(name: str, readers: Sequence[str]) -> str:
    """A hook and who reads it, in words.

    Example:
        >>> place_of("hook_embed", ["Representation", "CKA"])
        "'hook_embed' (read by Representation, CKA)"
    """
    return f"'{name}' (read by {', '.join(dict.fromkeys(readers))})"


def watched(watch: Watch | None, place: str, observe: Callable[[Tensor], None]) -> Callable[[Tensor], None]:
    """An observer that is looked at by a watch as well."""
    return observe if watch is None else partial(_look_and, watch, place, observe)


def _look_and(watch: Watch, place: str, observe: Callable[[Tensor], None], activation: Tensor) -> None:
    watch.look(place, activation)
    observe(activation)
