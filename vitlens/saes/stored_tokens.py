"""The tokens of one hook of a store: read in order, or in an order drawn anew for every epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from .checks import check_batch_size
from .store_selection import Selection
from .store_windows import Windows, cut


class StoredTokens:
    """Activations of one hook and checkpoint as `Tokens`: a row a token, read from the disk as it is wanted.

    In order, rows go image by image, in each image condition by condition, and then by position. It is what
    `ActivationStore.tokens` returns.

    Args:
        selection: the rows.
        origin: what is known of where they come from.
        memory_bytes: what `shuffled` has of them in use at a time, about; and the most that a part which
            `split` held out may keep in memory.

    Example:
        See `ActivationStore`, whose `tokens` gives one.
    """

    def __init__(self, selection: Selection, origin: Mapping[str, Any], memory_bytes: int) -> None:
        self._selection, self._origin, self._memory_bytes = selection, dict(origin), memory_bytes
        self._windows = Windows(selection, memory_bytes)

    @property
    def n_tokens(self) -> int:
        """How many rows there are."""
        return self._selection.n_rows

    @property
    def n_images(self) -> int:
        """How many images they belong to."""
        return self._selection.n_images

    @property
    def n_tokens_per_image(self) -> int:
        """Rows of an image, conditions together; in order they stand together."""
        return self._selection.n_rows_per_image

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images: row t of `in_order` belongs to number t // n_tokens_per_image."""
        every, images = self._selection.shards.image_ids, self._selection.images
        return every if images is None else tuple(every[image] for image in images)

    @property
    def d_in(self) -> int:
        """How wide a row is."""
        return self._selection.d_in

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which rows are stored and arrive."""
        return self._selection.dtype

    @property
    def device(self) -> torch.device:
        """Rows arrive on the CPU."""
        return torch.device("cpu")

    @property
    def origin(self) -> Mapping[str, Any]:
        """`hook_name`, `tokens`, `checkpoint`, `conditions`; `model`: config, provenance, weights_sha256."""
        return self._origin

    def n_not_finite(self) -> int:
        """None: a store refuses NaN and infinity when it is written."""
        return 0

    def in_order(self, batch_size: int) -> Iterator[Float[Tensor, "batch d_in"]]:
        """One pass, image by image; the last batch may be smaller.

        Args:
            batch_size: rows in a batch.

        Returns:
            Rows in their stored precision. The hook's rows of two shards are in use at a time.

        Raises:
            SAEError: `batch_size` is below 1.
            CheckpointError: a shard is missing or damaged.
        """
        check_batch_size(batch_size)
        selection = self._selection
        is_small = self.n_tokens * selection.n_row_bytes <= self._memory_bytes
        if selection.images is not None and is_small:
            return (torch.cat(parts) for parts in cut(self._kept, batch_size))
        return (selection.rows(np.concatenate(parts)) for parts in cut(selection.in_order(), batch_size))

    @cached_property
    def _kept(self) -> list[Tensor]:
        # A few images lie scattered over all blocks of their shards: read once, not in every pass.
        return [self._selection.rows(addresses) for addresses in self._selection.in_order()]

    def shuffled(
        self, batch_size: int, *, seed: int, start_batch: int = 0
    ) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Whole batches without end, cut from shuffled epochs laid end to end.

        An epoch is a permutation of blocks, cut into windows of half of `memory_bytes`, and in each window
        a permutation of rows, small ones in runs of up to four; the next window is brought into memory in a
        thread while one is used. Rows are copied once, from where the files are mapped, those of a file
        together.

        Args:
            batch_size: rows in a batch.
            seed: of the order; not negative.
            start_batch: number of the first batch. Reading begins with its window.

        Returns:
            Batches in their stored precision; batch number i is the same whatever `start_batch` was.

        Raises:
            SAEError: `batch_size` is below 1, or `seed` or `start_batch` is negative.
            CheckpointError: a shard is missing or damaged.
        """
        check_batch_size(batch_size)
        _check_not_negative(seed=seed, start_batch=start_batch)
        return self._windows.batches(seed, batch_size, start_batch)

    def epoch(self, batch_size: int, *, seed: int, epoch: int = 0) -> Iterator[Float[Tensor, "batch d_in"]]:
        """One of the epochs that `shuffled` lays end to end: every row once; the last batch may be smaller.

        Args:
            batch_size: rows in a batch.
            seed: of the order; not negative.
            epoch: its number.

        Returns:
            Batches in their stored precision.

        Raises:
            SAEError, CheckpointError: as for `shuffled`.
        """
        check_batch_size(batch_size)
        _check_not_negative(seed=seed, epoch=epoch)
        return self._windows.epoch(seed, batch_size, epoch)

    def split(self, n_holdout_tokens: int, *, seed: int) -> tuple[StoredTokens, StoredTokens]:
        """The tokens to train on, and those of enough other images.

        Args:
            n_holdout_tokens: how many to hold out; rounded up to whole images.
            seed: of the choice of images.

        Returns:
            Two parts that have no image in common.

        Raises:
            SAEError: no image would be left to train on.
        """
        images = self._selection.images
        images = np.arange(self.n_images) if images is None else images
        n_held = math.ceil(n_holdout_tokens / self.n_tokens_per_image)
        if n_held >= len(images):
            raise SAEError(
                f"{n_holdout_tokens} tokens to hold out are {n_held} of {len(images)} images.",
                expected="at least one image to train on",
                remedy="Store more images, or hold out fewer tokens.",
            )
        permuted = np.random.default_rng([seed, 2**32]).permutation(images)
        used, held = (
            StoredTokens(self._selection.of(part), self._origin, self._memory_bytes)
            for part in (permuted[n_held:], permuted[:n_held])
        )
        return used, held


def _check_not_negative(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 0:
            raise SAEError(f"{name} is {number}.", expected="0 or more", remedy=f"Pass {name}=0.")
