"""The activation store: activations of images on disk, written once and read in any order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import HookError, SAEError
from ..files import as_path
from ..images import BAD_IMAGES, ImageDataset, OnBadImage, check, parse_conditions
from ..images.bad_images import check_on_bad_image, refuse_kept, warn_of
from ..models import HookedViT
from ..names import nearest
from ..running import same_architecture
from ..running.checkpoints import as_models
from ..running.ranks import ranks
from .checks import check_batch_size
from .shards import DTYPES
from .store_manifest import (
    begin,
    compare,
    complete,
    is_complete,
    kept_bad_images,
    layout,
    missing,
    read_manifest,
)
from .store_selection import Selection, Shards
from .store_writing import Writing
from .stored_tokens import StoredTokens

MEMORY_BYTES = 2**28
"""What shuffled reading has in use at a time, where nothing else is said."""


class ActivationStore:
    """Activations at some hooks of one model, or of several checkpoints in step, in a folder.

    Made by `write` and `open`. `store[hook_name]` is a source for `train`, `figures` and `match`. The
    format is specified in the documentation, under *The activation store*.

    Attributes:
        path: the folder.
        manifest: what `manifest.json` says.

    Example:
        >>> import tempfile, timm, torch, vitlens as vl
        >>> from vitlens.saes.store import ActivationStore
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(6)]
        >>> name = "blocks.9.hook_resid_post"
        >>> store = ActivationStore.write(
        ...     tempfile.mkdtemp(), model, images, hook_names=[name], progress=False
        ... )
        >>> store[name].n_tokens, store[name].d_in, [len(batch) for batch in store.batches(name, 16)]
        (24, 192, [16, 8])
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self.path, self.manifest = path, dict(manifest)
        self._shards = Shards(path, layout(manifest), manifest["shards"])

    # ------------------------------------------------------------------ making and opening

    @classmethod
    def write(
        cls,
        path: str | os.PathLike[str],
        model: HookedViT | Mapping[str, HookedViT],
        dataset: ImageDataset,
        *,
        hook_names: Sequence[str],
        tokens: str = "patch",
        conditions: Sequence[Any] = ("clean",),
        dtype: str = "float32",
        batch_size: int = 32,
        shard_images: int | None = None,
        seed: int = 0,
        num_workers: int = 0,
        on_bad_image: OnBadImage = "skip",
        progress: bool = True,
    ) -> ActivationStore:
        """Store activations, or go on with a store that was begun.

        One forward pass per batch, condition and checkpoint serves all hooks, and ends at the last of them.
        A shard stands there whole or not at all: a call that was killed goes on where it stopped when it is
        made again, and ends with the same files, byte for byte. In memory are two shards, one being filled
        while the other is written. Under `torchrun` or `accelerate launch` each process writes its share of
        the shards, in a folder that all of them see.

        Args:
            path: the folder; made if need be.
            model: the model, or checkpoint name -> model, all of one architecture: row t is then the same
                token of the same image in each. Each is run in evaluation mode and left as it was.
            dataset: items as in `vitlens.run`.
            hook_names: hooks whose activation is [batch pos d_in].
            tokens: which positions: `patch`, `cls`, `register`, `distillation` or `all`.
            conditions: what is done to the images first, as in `vitlens.run`. An attack without `on=` and a
                `WhiteBox` give each checkpoint its own pixels: refused where there are several.
            dtype: the stored precision: `float32`, `bfloat16` or `float16`.
            batch_size: images in a forward pass.
            shard_images: images in a shard, rounded down to whole batches; by default about 128 MiB of
                them, at most 1,024. Twice as many are run again after a kill, at most: the
                shard being filled and the one being written.
            seed: of the corruptions, and of the order of rows in a shard.
            num_workers: processes that load images ahead of the model; with 0 they are loaded in between.
            on_bad_image: as in `vitlens.run`; `bad_images` says what was left out. The shards are cut as if
                nothing had been.
            progress: show a bar with images (times conditions).

        Returns:
            The store.

        Raises:
            BusyError: another process is writing there.
            SAEError: a setting is none, an activation is not [batch pos d_in] or not finite in this
                precision, or the folder holds other activations.
            SpaceError: there is no space left.
            HookError, ArchitectureError, ConditionError, DatasetError, LabelError, PixelError: what is asked
                for or given cannot be used.
            CheckpointError: a file in the folder is damaged.
        """
        folder = as_path(path, "path")
        models = as_models(model)
        same_architecture(models)
        asked = parse_conditions(conditions)
        _check_settings(hook_names, dtype, batch_size, shard_images, seed)
        check_on_bad_image(on_bad_image)
        own = [condition.name for condition in asked if not condition.shares_pixels]
        if own and len(models) > 1:
            raise SAEError(
                f"The condition '{own[0]}' shows each of {len(models)} checkpoints pixels of its own.",
                expected="conditions that show all checkpoints the same pixels",
                remedy="Store each checkpoint by itself, or attack one and show its pixels to all: "
                f"'pgd:on={next(iter(models))}'.",
            )
        for condition in asked:
            condition.check(models)
        check(dataset)
        writing = Writing(
            models,
            dataset,
            hook_names,
            tokens,
            asked,
            dtype,
            batch_size,
            shard_images,
            seed,
            num_workers,
            on_bad_image,
        )
        with ranks() as shared, shared.claiming(None if is_complete(folder) else folder):
            with shared.together("beginning the activation store"):
                if shared.rank == 0:
                    with writing.space(folder):
                        begin(folder, writing.manifest)
            with shared.together("comparing the activation store"):
                manifest = compare(folder, writing.manifest)
                if on_bad_image == "raise":
                    refuse_kept(kept_bad_images(folder), folder)
            if missing(folder, manifest):
                with shared.together("storing activations"):
                    writing.write(folder, shared, progress)
                with shared.together("completing the activation store"):
                    if shared.rank == 0:
                        with writing.space(folder):
                            complete(folder)
        store = cls.open(folder)
        if shared.rank == 0:
            warn_of(store.bad_images, store.n_images)
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, check: bool = False) -> ActivationStore:
        """Open a complete store.

        Args:
            path: its folder.
            check: read everything now and compare all checksums; otherwise a block is compared when it is
                first read.

        Returns:
            The store.

        Raises:
            SAEError: the store is not complete.
            CheckpointError: there is none, it is damaged, or of another protocol.
        """
        folder = as_path(path, "path")
        manifest = read_manifest(folder)
        if lacking := missing(folder, manifest):
            raise SAEError(
                f"{os.fspath(folder)} is not complete: {lacking}.",
                expected="a store that was written to its end",
                remedy="Call ActivationStore.write as before: it goes on where it stopped.",
            )
        store = cls(folder, manifest)
        if check:
            for number in tqdm(
                range(len(store._shards)), desc="checking", unit="shard", delay=1, leave=False
            ):
                store._shards[number].check()
        return store

    # ------------------------------------------------------------------ what is in it

    @property
    def hook_names(self) -> tuple[str, ...]:
        """The hooks."""
        return self._names("hooks")

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The checkpoints; `model` where a single model was given."""
        return self._names("checkpoints")

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions."""
        return tuple(self.manifest["conditions"])

    @property
    def n_images(self) -> int:
        """How many images there are; those that could not be read are not."""
        return sum(int(shard["n_images"]) for shard in self.manifest["shards"])

    @property
    def bad_images(self) -> dict[str, str]:
        """Images that could not be read when the store was written: id or position -> reason."""
        return dict(self.manifest.get(BAD_IMAGES, ()))

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images, in the order of the data set."""
        return self._shards.image_ids

    @property
    def positions(self) -> tuple[int, ...]:
        """Where the tokens of an image stand on the `pos` axis."""
        return tuple(self.manifest["positions"])

    @property
    def position_kinds(self) -> tuple[str, ...]:
        """The kind of token at each of `positions`: `cls`, `distillation`, `register` or `patch`."""
        return tuple(self.manifest["position_kinds"])

    # ------------------------------------------------------------------ reading

    def __getitem__(self, hook_name: str) -> StoredTokens:
        """The tokens of a hook under all conditions; of the first checkpoint where there are several."""
        return self.tokens(hook_name)

    def tokens(
        self,
        hook_name: str,
        *,
        checkpoint: str | None = None,
        conditions: Sequence[str] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> StoredTokens:
        """The tokens of a hook, to train on or to evaluate with.

        Args:
            hook_name: one of `hook_names`.
            checkpoint: one of `checkpoints`; by default the first.
            conditions: some of `conditions`; by default all.
            memory_bytes: what shuffled reading has of the rows in use at a time, about: so much of the files
                should find room in memory beside all else.

        Returns:
            Rows, read from the disk as they are wanted.

        Raises:
            HookError: the hook is not stored.
            SAEError: a checkpoint or a condition is not stored, or there is no condition.
        """
        if hook_name not in self.hook_names:
            raise HookError(
                f"'{hook_name}' is not in the store {os.fspath(self.path)}.",
                expected=f"one of its {len(self.hook_names)} hooks (nearest: "
                f"{nearest(hook_name, self.hook_names)})",
                remedy="See store.hook_names; another hook needs a store of its own.",
            )
        name = self.checkpoints[0] if checkpoint is None else checkpoint
        number = _index(name, self.checkpoints, "checkpoint")
        shown = self.conditions if conditions is None else tuple(conditions)
        numbers = tuple(_index(each, self.conditions, "condition") for each in shown)
        if not numbers or memory_bytes < 1:
            raise SAEError(
                f"conditions is {list(shown)} and memory_bytes is {memory_bytes}.",
                expected="at least one condition and one byte",
                remedy="Leave them out for all conditions and 256 MiB.",
            )
        described = self.manifest["checkpoints"][number]
        origin = {
            "hook_name": hook_name,
            "tokens": self.manifest["tokens"],
            "checkpoint": name,
            "conditions": list(shown),
            "model": {key: described[key] for key in ("config", "provenance", "weights_sha256")},
        }
        return StoredTokens(Selection(self._shards, hook_name, number, numbers), origin, memory_bytes)

    def batches(
        self,
        hook_name: str,
        batch_size: int = 4096,
        seed: int = 0,
        *,
        epoch: int = 0,
        checkpoint: str | None = None,
        conditions: Sequence[str] | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> Iterator[Float[Tensor, "batch d_in"]]:
        """Shuffled batches of one epoch: every token of a hook once.

        Args:
            hook_name: one of `hook_names`.
            batch_size: tokens in a batch; the last may have fewer.
            seed: of the order.
            epoch: its number; each has an order of its own. `store[hook_name].shuffled` lays them end to
                end.
            checkpoint: as for `tokens`.
            conditions: as for `tokens`.
            memory_bytes: as for `tokens`.

        Returns:
            Batches in the stored precision, on the CPU.

        Raises:
            HookError, SAEError: as for `tokens`; or `batch_size` is below 1, `seed` or `epoch` negative.
            CheckpointError: a shard is missing or damaged.
        """
        tokens = self.tokens(
            hook_name, checkpoint=checkpoint, conditions=conditions, memory_bytes=memory_bytes
        )
        return tokens.epoch(batch_size, seed=seed, epoch=epoch)

    def _names(self, key: str) -> tuple[str, ...]:
        return tuple(each["name"] for each in self.manifest[key])


def _check_settings(
    hook_names: Sequence[str], dtype: str, batch_size: int, shard_images: int | None, seed: int
) -> None:
    names = [hook_names] if isinstance(hook_names, str) else list(hook_names)
    if isinstance(hook_names, str) or not names or len(set(names)) < len(names):
        raise SAEError(
            f"hook_names is {hook_names!r}.",
            expected="a list of hooks, each once",
            remedy='Pass hook_names=["blocks.9.hook_resid_post"].',
        )
    if dtype not in DTYPES:
        raise SAEError(
            f"dtype is {dtype!r}.",
            expected=f"one of {', '.join(map(repr, DTYPES))}",
            remedy="Leave it out for 'float32'.",
        )
    check_batch_size(batch_size)
    if seed < 0 or (shard_images is not None and shard_images < 1):
        raise SAEError(
            f"seed is {seed} and shard_images is {shard_images}.",
            expected="a seed of 0 or more, and None or at least one image",
            remedy="Leave them out for 0 and about 128 MiB.",
        )


def _index(name: str, names: tuple[str, ...], what: str) -> int:
    if name not in names:
        raise SAEError(
            f"The store has no {what} '{name}'.",
            expected=f"one of {', '.join(map(repr, names))}",
            remedy=f"Name one of them, or store the {what} too.",
        )
    return names.index(name)
