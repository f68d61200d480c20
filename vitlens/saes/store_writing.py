"""Writing an activation store: one forward pass per batch, condition and checkpoint fills shards."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import SAEError, SpaceError
from ..files import is_full
from ..images import (
    BAD_IMAGES,
    Batch,
    Condition,
    ImageDataset,
    OnBadImage,
    collate,
    first_readable,
    known,
    n_images,
    numbered_batches,
)
from ..images.items import empty
from ..models import HookedViT, weights_sha256
from ..running import measuring
from ..running.ranks import Ranks
from ..running.showing import shown
from .shards import DTYPES, Layout, described_shard, shard_path, write_shard, written_shards
from .store_forward import Taking
from .store_manifest import ids_sha256, layout

N_SHARD_BYTES = 2**27
"""What a shard shall have, about, where the caller does not say."""

_MOST_IMAGES = 1024
_LEAST_BLOCK_BYTES, _MOST_BLOCK_BYTES = 2**16, 2**19


class Writing:
    """One store in the making.

    Args:
        models: checkpoint name -> model.
        dataset: the images.
        hook_names: where activations are taken.
        tokens: which positions.
        conditions: what is done to the images first.
        dtype: a key of `DTYPES`.
        batch_size: images in a forward pass.
        shard_images: images in a shard, rounded down to whole batches; None for about `N_SHARD_BYTES`.
        seed: of corruptions and of the order of rows.
        num_workers: processes that load images.
        on_bad_image: what becomes of an image that cannot be read.

    Attributes:
        manifest: what the store's manifest shall say.

    Raises:
        HookError, ArchitectureError, DatasetError: a hook, the tokens or the images are not there.
        SAEError: an activation is not [batch pos d_in].
    """

    def __init__(
        self,
        models: Mapping[str, HookedViT],
        dataset: ImageDataset,
        hook_names: Sequence[str],
        tokens: str,
        conditions: Sequence[Condition],
        dtype: str,
        batch_size: int,
        shard_images: int | None,
        seed: int,
        num_workers: int,
        on_bad_image: OnBadImage,
    ) -> None:
        self._on_bad_image: OnBadImage = on_bad_image
        self._models, self._conditions = models, conditions
        self._seed, self._num_workers, self._batch_size = seed, num_workers, batch_size
        self._n_images, ids = n_images(dataset), known(dataset, "image_ids")
        first = next(iter(models.values()))
        self._dataset, self._image_size = _sized(dataset, first)
        self._taking = Taking(first, hook_names, tokens, self._image_size)
        widths, positions = self._taking.widths, self._taking.positions
        if shard_images is None:
            n_values = len(models) * len(conditions) * len(positions) * sum(widths.values())
            shard_images = min(_MOST_IMAGES, N_SHARD_BYTES // (n_values * DTYPES[dtype].itemsize))
        self._n_batches_per_shard = max(1, shard_images // batch_size)
        n_full = self._n_batches_per_shard * batch_size
        # A row from about every image of the shard, as far as that makes reads of a sensible length.
        n_row_bytes = max(widths.values()) * DTYPES[dtype].itemsize
        least, most = (max(1, n_bytes // n_row_bytes) for n_bytes in (_LEAST_BLOCK_BYTES, _MOST_BLOCK_BYTES))
        self.manifest: dict[str, Any] = {
            "checkpoints": [_described(name, model) for name, model in models.items()],
            "conditions": [condition.name for condition in conditions],
            "condition_identities": [condition.identity for condition in conditions],
            "hooks": [{"name": name, "d_in": width} for name, width in widths.items()],
            "tokens": tokens,
            "positions": positions,
            "position_kinds": self._taking.position_kinds,
            "image_size": list(self._image_size),
            "dtype": dtype,
            "seed": seed,
            "batch_size": batch_size,
            "n_images_per_shard": n_full,
            "n_rows_per_block": max(least, min(most, n_full)),
            "n_images": self._n_images,
            "image_ids_sha256": ids_sha256(ids) if ids else None,
        }
        self._layout = layout(self.manifest)

    @contextlib.contextmanager
    def space(self, folder: Path) -> Iterator[None]:
        """Say what is needed where the disk is full in the block, or already too small for all at its end.

        Raises:
            SpaceError: there is too little space.
        """
        try:
            yield
            needed, free = self._n_bytes_to_write(folder), shutil.disk_usage(folder).free
        except OSError as error:
            if not is_full(error):
                raise
            raise _no_space(folder, self._n_bytes_to_write(folder), "it is full") from error
        if needed is not None and needed > free:
            raise _no_space(folder, needed, f"{free / 1e9:.3g} GB are free")

    def write(self, folder: Path, shared: Ranks, progress: bool) -> None:
        """Write the shards that are this process's and not yet there."""
        done = set(written_shards(folder))
        before = [described_shard(shard_path(folder, number)) for number in done if shared.has(number)]
        n_bad = sum(len(each.get(BAD_IMAGES, ())) for each in before)

        def is_mine(batch_number: int) -> bool:
            shard = batch_number // self._n_batches_per_shard
            return shared.has(shard) and shard not in done

        n_conditions, n_full = len(self._conditions), self.manifest["n_images_per_shard"]
        bar = tqdm(
            total=None if self._n_images is None else self._n_images * n_conditions // shared.n_ranks,
            initial=sum(map(shared.has, done)) * n_full * n_conditions,
            desc="storing activations",
            unit="image",
            disable=not progress or shared.rank > 0,
        )
        batches = numbered_batches(
            self._dataset,
            self._batch_size,
            wanted=is_mine,
            image_size=self._image_size,
            num_workers=self._num_workers,
            on_bad_image=self._on_bad_image,
            n_read=n_bad + sum(len(each["image_ids"]) for each in before),
            n_bad=n_bad,
        )
        pending: Future[None] | None = None
        filling, shard = _Filling(self._layout, n_full), 0
        # The pool is left last: what was computed is written even where the next image cannot be loaded.
        models = list(self._models.values())
        with ThreadPoolExecutor(1) as pool, bar, contextlib.closing(batches), measuring(models):

            def keep() -> Future[None]:
                if pending is not None:
                    pending.result()
                return pool.submit(self._keep, folder, shard, filling)

            for number, batch, bad_images in batches:
                shard = number // self._n_batches_per_shard
                filling.bad_images |= bad_images
                if batch is not None:
                    self._take(batch, filling, bar)
                if pending is not None and pending.done():
                    pending.result()  # a full disk is noticed here
                if filling.n_read == n_full:
                    pending = keep()
                    filling = _Filling(self._layout, n_full)
            if filling.n_read:
                pending = keep()
            if pending is not None:
                pending.result()

    def _take(self, batch: Batch, filling: _Filling, bar: Any) -> None:
        """The activations of one batch under all conditions and checkpoints."""
        for at, condition in enumerate(self._conditions):
            seen = shown(condition, batch, self._models, seed=self._seed)
            for number, (checkpoint, model) in enumerate(self._models.items()):
                into = filling.room(number, at, len(batch))
                self._taking.take(model, seen[checkpoint].pixels, into)
                for hook_name, rows in into.items():
                    self._check_finite(rows, hook_name, condition.name, checkpoint, batch.image_ids)
            bar.update(len(batch))
        filling.image_ids.extend(batch.image_ids)

    def _check_finite(
        self, rows: Tensor, hook_name: str, condition: str, checkpoint: str, image_ids: Sequence[str]
    ) -> None:
        if bool(rows.isfinite().all()):
            return
        bad = (~rows.isfinite()).flatten(1).any(dim=1)
        named = [repr(image_ids[index]) for index in bad.nonzero().flatten().tolist()]
        dtype = self.manifest["dtype"]
        raise SAEError(
            f"'{hook_name}' of checkpoint '{checkpoint}' under '{condition}' holds NaN or infinity "
            f"in {dtype} for {len(named)} of {len(image_ids)} images of a batch ({', '.join(named[:3])}"
            f"{', ...' if len(named) > 3 else ''}).",
            expected="finite activations",
            remedy="Store them as float32 or bfloat16, whose range is larger."
            if dtype == "float16"
            else "Look for overflow in the model (half precision?) or for damaged weights.",
        )

    def _keep(self, folder: Path, shard: int, filling: _Filling) -> None:
        n_rows = len(filling.image_ids) * self._layout.n_positions
        order = np.random.default_rng([self._seed, shard]).permutation(n_rows).astype(np.int32)
        with self.space(folder):
            rows, bad = filling.rows(), filling.bad_images
            write_shard(folder, shard, self._layout, filling.image_ids, order, rows, bad)

    def _n_bytes_to_write(self, folder: Path) -> int | None:
        """Bytes that are still to come, for all processes; None where the number of images is not known."""
        if self._n_images is None:
            return None
        full = self.manifest["n_images_per_shard"]
        done = sum(min(full, self._n_images - number * full) for number in written_shards(folder))
        # A hundredth for checksums, names and the order of rows.
        return int(1.01 * (self._n_images - done) * (self._layout.n_bytes_per_image + 200))


class _Filling:
    """The activations of one shard in image order, as they come."""

    def __init__(self, layout: Layout, n_images: int) -> None:
        self.image_ids: list[str] = []
        self.bad_images: dict[str, str] = {}
        before = (layout.n_checkpoints, layout.n_conditions, n_images, layout.n_positions)
        # Memory that is never written to is never taken: a shard may turn out smaller.
        self._rows = {
            name: torch.empty(*before, width, dtype=DTYPES[layout.dtype])
            for name, width in layout.widths.items()
        }

    @property
    def n_read(self) -> int:
        """Images so far, those that could not be read included."""
        return len(self.image_ids) + len(self.bad_images)

    def room(self, checkpoint: int, condition: int, n_images: int) -> dict[str, Tensor]:
        """Hook name -> where the next images' activations belong, [batch positions d_in]."""
        start = len(self.image_ids)
        return {
            name: rows[checkpoint, condition, start : start + n_images] for name, rows in self._rows.items()
        }

    def rows(self) -> dict[str, Tensor]:
        """Hook name -> [checkpoint condition row d_in]."""
        return {name: rows[:, :, : len(self.image_ids)].flatten(2, 3) for name, rows in self._rows.items()}


def _sized(dataset: Any, model: HookedViT) -> tuple[Any, tuple[int, int]]:
    """The data set, and the (height, width) of its images; an iterable is given back with its first item."""
    if model.cfg.required_image_size is not None:
        return dataset, model.cfg.required_image_size
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        item = first_readable(dataset)
    else:
        items = iter(dataset)
        if (item := next(items, None)) is None:
            raise empty()
        dataset = itertools.chain([item], items)
    height, width = collate([item]).pixels.shape[2:]
    return dataset, (height, width)


def _described(name: str, model: HookedViT) -> dict[str, Any]:
    normalization = {key: list(model.data_config[key]) for key in ("mean", "std")}
    config = asdict(model.cfg)
    return {
        "name": name,
        "weights_sha256": weights_sha256(model),
        "config": {key: list(each) if isinstance(each, tuple) else each for key, each in config.items()},
        "normalization": normalization,
        "provenance": model.provenance,
    }


def _no_space(folder: Path, needed: int | None, why: str) -> SpaceError:
    return SpaceError(
        f"There is no space left for {os.fspath(folder)}: {why}.",
        expected=f"{'some' if needed is None else f'{needed / 1e9:.3g} GB of'} space for the shards to come",
        remedy="Make room and call write again with the same arguments: what has been written is kept. "
        "dtype='bfloat16' takes half the space, in another folder.",
    )
