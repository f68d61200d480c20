"""Shards: the rows of some images in one safetensors file, permuted, with a checksum for every block."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int32, UInt8
from torch import Tensor

from ..errors import CheckpointError
from ..files import whole, write_json
from ..images import BAD_IMAGES

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""The precisions in which activations are stored."""

ORDER = "order"
"""The tensor that says which row stands where; no hook is called so."""

_N_ALIGNED_BYTES = 64
"""The first hook's rows begin at a multiple of a cache line."""

_N_ADVISED_BYTES = 2**17
"""Linux brings no more at a request than it reads ahead, 128 KiB unless it is told otherwise."""

_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int32: "I32"}


@dataclass(frozen=True)
class Layout:
    """What all shards of a store have in common.

    Attributes:
        widths: hook name -> d_in.
        n_checkpoints: checkpoints stored in step.
        n_conditions: conditions stored in step.
        n_positions: tokens stored of an image under one condition.
        dtype: a key of `DTYPES`.
        n_rows_per_block: rows with a checksum of their own; the last block of a shard may have fewer.
    """

    widths: Mapping[str, int]
    n_checkpoints: int
    n_conditions: int
    n_positions: int
    dtype: str
    n_rows_per_block: int

    @property
    def n_bytes_per_image(self) -> int:
        """Bytes of an image's activations at all hooks, under all checkpoints and conditions."""
        n_rows = self.n_checkpoints * self.n_conditions * self.n_positions
        return n_rows * sum(self.widths.values()) * DTYPES[self.dtype].itemsize

    def n_blocks(self, n_rows: int) -> int:
        """Blocks in which `n_rows` rows lie."""
        return math.ceil(n_rows / self.n_rows_per_block)

    def tensors(self, n_rows: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Name -> dtype and shape of a shard's tensors, in the order in which they lie."""
        before = (self.n_checkpoints, self.n_conditions, n_rows)
        hooks = {name: (DTYPES[self.dtype], (*before, width)) for name, width in self.widths.items()}
        return {ORDER: (torch.int32, (n_rows,)), **hooks}


def shard_path(folder: Path, number: int) -> Path:
    """The file of shard `number`; its description has the suffix `.json`."""
    return folder / f"shard-{number:06d}.safetensors"


def written_shards(folder: Path) -> list[int]:
    """The numbers of the shards that are there. One without its description does not count."""
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("shard-[0-9]*[0-9].json"))


def write_shard(
    folder: Path,
    number: int,
    layout: Layout,
    image_ids: Sequence[str],
    order: Int32[np.ndarray, " row"],
    rows: Mapping[str, Float[Tensor, "checkpoint condition row d_in"]],
    bad_images: Mapping[str, str],
) -> None:
    """Write one shard, whole or not at all, and then its description.

    Args:
        folder: the store's.
        number: the shard's.
        layout: the store's.
        image_ids: of the shard's images.
        order: stored row -> number of the row in image order, image by image and position by position.
        rows: hook name -> activations in image order.
        bad_images: images of the shard that could not be read: id or position -> reason.
    """
    chosen = torch.from_numpy(order)
    slabs = (
        (name, slab.index_select(0, chosen)) for name in layout.widths for slab in rows[name].flatten(0, 1)
    )
    digests: dict[str, list[str]] = {}
    path = shard_path(folder, number)
    # One statement, so that the file is closed before it takes its place.
    with whole(path) as temporary, temporary.open("wb") as file:
        file.write(_header(layout, len(order)))
        for name, tensor in itertools.chain([(ORDER, chosen)], slabs):
            file.write(as_bytes(tensor))
            blocks = tensor.split(layout.n_rows_per_block)
            digests.setdefault(name, []).extend(hashlib.sha256(as_bytes(each)).hexdigest() for each in blocks)
    described = {"image_ids": list(image_ids), "blocks_sha256": digests}
    # Stores without any are the same files, byte for byte, as those of earlier versions.
    bad = {BAD_IMAGES: list(bad_images.items())} if bad_images else {}
    write_json(path.with_suffix(".json"), described | bad)


class Shard:
    """One shard, mapped into memory; a block is compared with its checksum when it is first asked for.

    Args:
        folder: the store's.
        number: the shard's.
        layout: the store's.
        n_images: how many images it has, as the manifest says.
        sha256: of its description, as the manifest says.

    Raises:
        CheckpointError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, number: int, layout: Layout, n_images: int, sha256: str) -> None:
        self._path = shard_path(folder, number)
        self._layout = layout
        self.n_rows = n_images * layout.n_positions
        described = described_shard(self._path, sha256)
        self.image_ids: list[str] = described["image_ids"]
        self._digests: dict[str, list[str]] = described["blocks_sha256"]
        if len(self.image_ids) != n_images:
            raise damaged(self._path.with_suffix(".json"), f"it names {len(self.image_ids)} images")
        header = _header(layout, self.n_rows)
        self._starts: dict[str, int] = {}
        self._n_row_bytes: dict[str, int] = {}
        self._n_bytes = len(header)
        for name, (dtype, shape) in layout.tensors(self.n_rows).items():
            self._starts[name] = self._n_bytes
            self._n_row_bytes[name] = dtype.itemsize * (1 if name == ORDER else shape[-1])
            self._n_bytes += math.prod(shape) * dtype.itemsize
        self._seen: set[tuple[str, int]] = set()
        self._runs: dict[tuple[str, int, int], Tensor] = {}
        with self._opened() as file:
            if self._read(file, 0, len(header)) != header:
                raise damaged(self._path, "its header is not the one that manifest.json implies")

    @property
    def n_blocks(self) -> int:
        """Blocks of one hook, checkpoint and condition."""
        return self._layout.n_blocks(self.n_rows)

    @cached_property
    def order(self) -> Int32[np.ndarray, " row"]:
        """Stored row -> number of the row in image order."""
        self._ask(ORDER, ((0, block) for block in range(self.n_blocks)))
        values: np.ndarray = self._mapped(ORDER, 0).view(torch.int32).numpy()
        return values

    def runs(
        self, hook_name: str, checkpoint: int, condition: int, n_run_rows: int
    ) -> Float[Tensor, "row run"]:
        """All stored rows of a hook where the file is mapped, each with the `n_run_rows` - 1 after it.

        Only blocks that were asked for may be read. A file that somebody makes shorter while it is read this
        way ends the process.
        """
        key = (hook_name, checkpoint * self._layout.n_conditions + condition, n_run_rows)
        if key not in self._runs:
            width = self._layout.widths[hook_name]
            rows = self._mapped(*key[:2]).view(DTYPES[self._layout.dtype])
            # Every run overlaps with the next: they may begin anywhere.
            self._runs[key] = rows.as_strided((self.n_rows - n_run_rows + 1, n_run_rows * width), (width, 1))
        return self._runs[key]

    def ask(self, hook_name: str, checkpoint: int, blocks: Iterable[tuple[int, int]]) -> None:
        """Have blocks (condition, number) of a hook brought into memory, and compare those that are new.

        Raises:
            CheckpointError: the file is damaged, or has become shorter or longer.
        """
        first = checkpoint * self._layout.n_conditions
        self._ask(hook_name, ((first + condition, block) for condition, block in blocks))

    def check(self) -> None:
        """Read every block.

        Raises:
            CheckpointError: one is damaged.
        """
        self._ask(ORDER, ((0, block) for block in range(self.n_blocks)))
        slabs = range(self._layout.n_checkpoints * self._layout.n_conditions)
        for name in self._layout.widths:
            self._ask(name, itertools.product(slabs, range(self.n_blocks)))

    def _ask(self, name: str, blocks: Iterable[tuple[int, int]]) -> None:
        full, n_row_bytes = self._layout.n_rows_per_block, self._n_row_bytes[name]
        new = []
        with self._opened() as file:
            for slab, block in blocks:
                row = block * full
                start = self._starts[name] + (slab * self.n_rows + row) * n_row_bytes
                n_bytes = min(full, self.n_rows - row) * n_row_bytes
                if (name, slab * self.n_blocks + block) not in self._seen:
                    new.append((slab * self.n_blocks + block, start, n_bytes))
                elif hasattr(os, "posix_fadvise"):  # not on macOS and Windows
                    # Rows are taken one by one: without it a cold disk would be read so.
                    for at in range(start, start + n_bytes, _N_ADVISED_BYTES):
                        n_here = min(_N_ADVISED_BYTES, start + n_bytes - at)
                        os.posix_fadvise(file.fileno(), at, n_here, os.POSIX_FADV_WILLNEED)
            for number, start, n_bytes in new:
                wanted = self._digests.get(name, [])[number : number + 1]
                if [hashlib.sha256(self._read(file, start, n_bytes)).hexdigest()] != wanted:
                    raise damaged(
                        self._path, f"the checksum of block {number % self.n_blocks} of '{name}' is another"
                    )
                self._seen.add((name, number))

    def _mapped(self, name: str, slab: int) -> UInt8[Tensor, " byte"]:
        n_bytes = self.n_rows * self._n_row_bytes[name]
        start = self._starts[name] + slab * n_bytes
        return self._file[start : start + n_bytes]

    @cached_property
    def _file(self) -> UInt8[Tensor, " byte"]:
        try:
            # Private: nothing that is done to the tensor reaches the file, which need not be writable.
            return torch.from_file(os.fspath(self._path), shared=False, size=self._n_bytes, dtype=torch.uint8)
        except RuntimeError as error:  # it is gone, or has become shorter
            raise damaged(self._path, str(error)) from error

    @contextlib.contextmanager
    def _opened(self) -> Iterator[io.FileIO]:
        try:
            with io.FileIO(self._path) as file:
                if (size := os.fstat(file.fileno()).st_size) != self._n_bytes:
                    raise damaged(self._path, f"it has {size} bytes, and {self._n_bytes} were written")
                yield file
        except OSError as error:
            raise damaged(self._path, str(error)) from error

    def _read(self, file: io.FileIO, start: int, n_bytes: int) -> bytearray:
        content = bytearray(n_bytes)
        missing = memoryview(content)
        file.seek(start)
        while missing:
            if not (n_read := file.readinto(missing)):
                raise damaged(self._path, "it ends too early")
            missing = missing[n_read:]
        return content


def described_shard(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """What the description of the shard at `path` says.

    Args:
        path: the shard's file.
        sha256: the description's checksum, where it is known.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    beside = path.with_suffix(".json")
    try:
        content = beside.read_bytes()
        described: dict[str, Any] = json.loads(content)
        if not _is_description(described):
            raise ValueError("it does not name the images and the checksums")
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(beside, str(error)) from error
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise damaged(beside, "its checksum is another than when it was written")
    return described


def _is_description(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    ids, digests = value.get("image_ids"), value.get("blocks_sha256")
    return (
        isinstance(ids, list)
        and all(isinstance(each, str) for each in ids)
        and isinstance(digests, dict)
        and all(isinstance(each, list) for each in digests.values())
    )


def damaged(path: Path, why: str) -> CheckpointError:
    """The error of a file that cannot be read."""
    return CheckpointError(
        f"{os.fspath(path)} cannot be read: {why}.",
        expected="a file as vitlens wrote it",
        remedy="Delete both files of its number and call ActivationStore.write as before: only its images "
        "are run again.",
    )


def _header(layout: Layout, n_rows: int) -> bytes:
    """The first bytes of a safetensors file: the header's length, and where each tensor lies."""
    entries, end = {}, 0
    for name, (dtype, shape) in layout.tensors(n_rows).items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": _CODES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    # Copying from memory that is not so aligned takes up to twice as long.
    text += b" " * (-(8 + len(text) + 4 * n_rows) % _N_ALIGNED_BYTES)
    return len(text).to_bytes(8, "little") + text


def as_bytes(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor; as bytes, since numpy has no bfloat16."""
    if not tensor.numel():  # a shard of which no image could be read
        return memoryview(b"")
    content: memoryview = tensor.reshape(-1).view(torch.uint8).numpy().data
    return content
