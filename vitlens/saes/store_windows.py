"""Shuffled reading of a store: blocks in random order, cut into windows, rows permuted within each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .store_selection import Selection, ahead

Piece = TypeVar("Piece")

_N_RUN_BYTES, _MOST_RUN_ROWS = 4096, 4


class _Window(NamedTuple):
    """What is permuted together: blocks (shard, condition, number, wanted rows), and a seed."""

    blocks: Int[np.ndarray, "block 4"]
    seed: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Permuted:
    """Rows in random order, by their addresses: first the runs, then those that stand alone.

    Attributes:
        runs: the address of each run's first row.
        alone: the address of each other row.
        n_run_rows: rows of a run.
    """

    runs: Int[np.ndarray, " run"]
    alone: Int[np.ndarray, " row"]
    n_run_rows: int

    def __len__(self) -> int:
        return len(self.runs) * self.n_run_rows + len(self.alone)

    def __getitem__(self, rows: slice) -> Permuted:
        """Some of the rows; those of a run that is cut stand alone."""
        start, stop, _ = rows.indices(len(self))
        n, end = self.n_run_rows, len(self.runs) * self.n_run_rows
        in_runs = np.arange(min(start, end), min(stop, end))
        first, last = -(-min(start, end) // n), min(stop, end) // n
        is_cut = (in_runs < first * n) | (in_runs >= last * n)
        cut_off = self.runs[in_runs[is_cut] // n] + in_runs[is_cut] % n
        alone = self.alone[max(0, start - end) : max(0, stop - end)]
        return Permuted(self.runs[first:last], np.concatenate([cut_off, alone]), n)


class Windows:
    """The epochs of a selection, each a permutation of all its rows.

    Rows lie permuted in their shard, so that a block is already a random sample of it, and reads are long.
    An epoch is a permutation of blocks, cut into windows; in a window the rows are permuted, small ones in
    runs of a few: one by one, the memory would be waited for more than it is read.

    Args:
        selection: the rows.
        memory_bytes: two windows together have about so much.
    """

    def __init__(self, selection: Selection, memory_bytes: int) -> None:
        self._selection, self._memory_bytes = selection, memory_bytes
        self._n_run_rows = min(_MOST_RUN_ROWS, math.ceil(_N_RUN_BYTES / selection.n_row_bytes))

    def batches(self, seed: int, batch_size: int, start_batch: int) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Epochs laid end to end, without end, from a batch on; windows before it are not read."""
        epoch, n_before = divmod(start_batch * batch_size, self._selection.n_rows)
        windows = itertools.chain.from_iterable(self._of_epoch(seed, each) for each in itertools.count(epoch))
        for window in windows:
            n_here = int(window.blocks[:, 3].sum())
            if n_before < n_here:
                break
            n_before -= n_here
        return self._read(itertools.chain([window], windows), batch_size, n_before)

    def epoch(self, seed: int, batch_size: int, epoch: int) -> Iterator[Float[Tensor, "batch d_in"]]:
        """The rows of one epoch."""
        return self._read(self._of_epoch(seed, epoch), batch_size)

    def _of_epoch(self, seed: int, epoch: int) -> Iterator[_Window]:
        permuted = np.random.default_rng([seed, epoch]).permutation(len(self._blocks))
        for number, blocks in enumerate(np.array_split(permuted, self._n_windows)):
            # One more than the number: to the generator, trailing zeros of a seed are nothing.
            yield _Window(self._blocks[np.sort(blocks)], (seed, epoch, number + 1))

    @cached_property
    def _blocks(self) -> Int[np.ndarray, "block 4"]:
        """Shard, condition, number and wanted rows of each block that has any."""
        selection, layout = self._selection, self._selection.shards.layout
        n_full = layout.n_rows_per_block
        found = []
        for number in range(len(selection.shards)):
            n_rows = int((place := selection.place(number)).size) * layout.n_positions
            if selection.images is None:
                # Told without opening the shard.
                counts = [min(n_full, n_rows - start) for start in range(0, n_rows, n_full)]
            elif (place >= 0).any():
                counts = np.bincount(selection.wanted(number) // n_full).tolist()
            else:
                counts = []
            for condition in selection.conditions:
                found += [(number, condition, block, n) for block, n in enumerate(counts) if n]
        return np.array(found)

    @property
    def _n_windows(self) -> int:
        n_bytes = len(self._blocks) * self._selection.shards.layout.n_rows_per_block
        n_bytes *= self._selection.n_row_bytes
        return min(len(self._blocks), math.ceil(2 * n_bytes / self._memory_bytes))

    def _read(
        self, windows: Iterator[_Window], batch_size: int, n_before: int = 0
    ) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Batches; the next window is asked for in a thread while one is used."""
        permuted = ahead(partial(self._permuted, window) for window in windows)
        return map(self._batch, cut(permuted, batch_size, n_before))

    def _permuted(self, window: _Window) -> Permuted:
        """Have the blocks of a window brought into memory, and put their rows into an order."""
        selection, n = self._selection, self._n_run_rows
        n_full = selection.shards.layout.n_rows_per_block
        blocks = window.blocks.tolist()
        selection.ask((number, condition, block) for number, condition, block, _ in blocks)
        found = []
        wanted: dict[int, Any] = {}
        for number, condition, block, n_rows in blocks:
            first = block * n_full
            if selection.images is None:
                rows = np.arange(first, first + n_rows)
            else:
                if number not in wanted:
                    wanted = {number: selection.wanted(number)}
                low, high = np.searchsorted(wanted[number], [first, first + n_full])
                rows = wanted[number][low:high]
            found.append(selection.address(number, condition, rows))
        every = np.concatenate(found)
        random = np.random.default_rng(window.seed)
        # Runs begin elsewhere in every window, so that rows do not have the same companions in all epochs.
        starts, ends = every[: max(0, len(every) - n + 1)], every[n - 1 :]
        begins = np.flatnonzero((starts % n == random.integers(n)) & (ends - starts == n - 1))
        is_alone = np.ones(len(every), dtype=bool)
        is_alone[begins[:, None] + np.arange(n)] = False
        return Permuted(random.permutation(every[begins]), random.permutation(every[is_alone]), n)

    def _batch(self, parts: list[Permuted]) -> Float[Tensor, "batch d_in"]:
        runs = np.concatenate([part.runs for part in parts])
        alone = np.concatenate([part.alone for part in parts])
        end = len(runs) * self._n_run_rows
        rows = torch.empty(end + len(alone), self._selection.d_in, dtype=self._selection.dtype)
        self._selection.copy(runs, self._n_run_rows, rows[:end])
        self._selection.copy(alone, 1, rows[end:])
        return rows


def cut(pieces: Iterable[Any], batch_size: int, n_before: int = 0) -> Iterator[list[Any]]:
    """The parts of pieces that make up each batch; the last may be smaller.

    Args:
        pieces: what has a length and can be sliced.
        batch_size: rows in a batch.
        n_before: rows of the first piece to leave out.

    Example:
        >>> list(cut([range(0, 5), range(5, 10)], 4, n_before=1))
        [[range(1, 5)], [range(5, 9)], [range(9, 10)]]
    """
    parts: list[Any] = []
    n_missing, start = batch_size, n_before
    for piece in pieces:
        while start < len(piece):
            stop = min(len(piece), start + n_missing)
            parts.append(piece[start:stop])
            n_missing -= stop - start
            start = stop
            if not n_missing:
                yield parts
                parts, n_missing = [], batch_size
        start = 0
    if parts:
        yield parts
