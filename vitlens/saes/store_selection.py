"""Which rows of a store are meant, how many they are, and copying them from mapped files."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .shards import DTYPES, Layout, Shard

Result = TypeVar("Result")

_N_ROW_BITS = 32
"""The low bits of an address are the row in its shard, the high ones its shard and condition."""


class Shards:
    """All shards of a store; each is opened when it is first asked for.

    Args:
        folder: the store's.
        layout: the store's.
        described: of each shard, `n_images` and `sha256`.
    """

    def __init__(self, folder: Path, layout: Layout, described: Sequence[Mapping[str, Any]]) -> None:
        self.folder, self.layout = folder, layout
        self._described = described
        self._opened: dict[int, Shard] = {}
        sizes = [each["n_images"] for each in described]
        self.starts: Int[np.ndarray, " shard"] = np.cumsum([0, *sizes])
        """The number of each shard's first image; last, that of all images."""

    def __len__(self) -> int:
        return len(self._described)

    def __getitem__(self, number: int) -> Shard:
        if number not in self._opened:
            each = self._described[number]
            self._opened[number] = Shard(self.folder, number, self.layout, each["n_images"], each["sha256"])
        return self._opened[number]

    def __iter__(self) -> Iterator[Shard]:
        return (self[number] for number in range(len(self)))

    @cached_property
    def image_ids(self) -> tuple[str, ...]:
        """The images, in the order of the data set."""
        return tuple(itertools.chain.from_iterable(shard.image_ids for shard in self))


@dataclass(frozen=True, eq=False)
class Selection:
    """Rows of one hook and checkpoint: image by image, in each condition by condition, position by position.

    Attributes:
        shards: the store's.
        hook_name: the hook.
        checkpoint: the checkpoint's number.
        conditions: the conditions' numbers.
        images: the images' numbers, ascending; None for all.
    """

    shards: Shards
    hook_name: str
    checkpoint: int
    conditions: tuple[int, ...]
    images: Int[np.ndarray, " image"] | None = None

    def of(self, images: Int[np.ndarray, " image"]) -> Selection:
        """The rows of these images."""
        return replace(self, images=np.sort(images))

    @property
    def n_images(self) -> int:
        """How many images the rows belong to."""
        return int(self.shards.starts[-1]) if self.images is None else len(self.images)

    @property
    def n_rows_per_image(self) -> int:
        """Rows of an image, conditions together."""
        return len(self.conditions) * self.shards.layout.n_positions

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self.n_images * self.n_rows_per_image

    @property
    def d_in(self) -> int:
        """How wide a row is."""
        return self.shards.layout.widths[self.hook_name]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of a row."""
        return DTYPES[self.shards.layout.dtype]

    @property
    def n_row_bytes(self) -> int:
        """How long a row is on the disk."""
        return self.d_in * self.dtype.itemsize

    def place(self, number: int) -> Int[np.ndarray, " image"]:
        """Where each image of shard `number` stands among those of the shard that are meant; or -1."""
        start, stop = self.shards.starts[number : number + 2]
        if self.images is None:
            return np.arange(stop - start)
        low, high = np.searchsorted(self.images, [start, stop])
        place = np.full(stop - start, -1)
        place[self.images[low:high] - start] = np.arange(high - low)
        return place

    def wanted(self, number: int) -> Int[np.ndarray, " row"]:
        """The stored rows of shard `number` that are meant, under any condition, ascending."""
        return np.flatnonzero(
            self.place(number)[self.shards[number].order // self.shards.layout.n_positions] >= 0
        )

    def address(self, number: int, condition: int, rows: Any) -> Any:
        """One number for a stored row of shard `number`; neighbors differ by one."""
        return (number * self.shards.layout.n_conditions + condition << _N_ROW_BITS) + rows

    def ask(self, blocks: Iterable[tuple[int, int, int]]) -> None:
        """Have blocks (shard, condition, number) brought into memory, sorted by shard.

        Raises:
            CheckpointError: a shard is missing or damaged.
        """
        for number, of_shard in itertools.groupby(blocks, key=itemgetter(0)):
            self.shards[number].ask(self.hook_name, self.checkpoint, (block[1:] for block in of_shard))

    def in_order(self) -> Iterator[Int[np.ndarray, " row"]]:
        """The addresses of all rows in order, those of a shard at a time, which are brought into memory.

        Raises:
            CheckpointError: a shard is missing or damaged.
        """
        here = (n for n in range(len(self.shards)) if (self.place(n) >= 0).any())
        return ahead(partial(self._in_order, number) for number in here)

    def _in_order(self, number: int) -> Int[np.ndarray, " row"]:
        layout = self.shards.layout
        stored = np.argsort(self.shards[number].order).reshape(-1, layout.n_positions)
        stored = stored[self.place(number) >= 0]
        blocks = np.unique(stored // layout.n_rows_per_block).tolist()
        self.ask((number, condition, block) for condition in self.conditions for block in blocks)
        by_condition = [self.address(number, condition, stored) for condition in self.conditions]
        return np.stack(by_condition, axis=1).reshape(-1)

    def rows(self, addresses: Int[np.ndarray, " row"]) -> Float[Tensor, "row d_in"]:
        """The rows with these addresses."""
        rows = torch.empty(len(addresses), self.d_in, dtype=self.dtype)
        order = self.copy(addresses, 1, rows)
        if (order[1:] > order[:-1]).all():
            return rows
        return rows.index_select(0, torch.from_numpy(np.argsort(order)))

    def copy(
        self, first: Int[np.ndarray, " run"], n_run_rows: int, into: Float[Tensor, "row d_in"]
    ) -> Int[np.ndarray, " run"]:
        """Copy runs of rows, told by the address of their first, and say which comes where.

        Those of a file come together: they are taken from where it is mapped by one call.
        """
        # Sixteen bits are sorted in linear time. What is cut off makes more calls and no mistake.
        order = np.argsort((first >> _N_ROW_BITS).astype(np.uint16), kind="stable")
        grouped = first[order]
        slabs = grouped >> _N_ROW_BITS
        rows = torch.from_numpy(grouped - (slabs << _N_ROW_BITS))
        into = into.view(len(first), n_run_rows * self.d_in)
        ends = [*(np.flatnonzero(slabs[1:] != slabs[:-1]) + 1).tolist(), len(first)]
        for start, stop in itertools.pairwise([0, *ends]):
            if start < stop:
                number, condition = divmod(int(slabs[start]), self.shards.layout.n_conditions)
                runs = self.shards[number].runs(self.hook_name, self.checkpoint, condition, n_run_rows)
                torch.index_select(runs, 0, rows[start:stop], out=into[start:stop])
        return order


def ahead(jobs: Iterable[Callable[[], Result]]) -> Iterator[Result]:
    """The results of jobs; the next one is worked on in a thread while one is used.

    Example:
        >>> list(ahead([lambda: 1, lambda: 2]))
        [1, 2]
    """
    with ThreadPoolExecutor(1) as pool:
        begun = (pool.submit(job) for job in jobs)
        coming = next(begun, None)
        while coming is not None:
            result = coming.result()
            coming = next(begun, None)
            yield result
