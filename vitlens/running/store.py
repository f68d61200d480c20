"""A run on disk: shards of rows, sums of set statistics, and a manifest that says of which run they are.

    manifest.json                what is measured: checkpoints' hashes, conditions, analyses, seed, ...
    rows-000003.safetensors      the values of one part of the images, [checkpoint condition image ...]
    rows-000003.json             its axes, ids, bad images and checksum; a shard without it does not count
    sums-0.safetensors           what process 0's set statistics have added up, and over which parts

Files are written whole or not at all, a shard's description after its values, and the sums last: a part
counts as measured when its rows and its sums are there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors import safe_open
from safetensors.numpy import load, save_file

from ..errors import AnalysisError, CheckpointError
from ..files import clear_parts, differences, read_json, sha256, whole, write_json
from ..images import BAD_IMAGES, as_far_as_known
from .rows import LEADING

FORMAT = "vitlens.rows.1"

_OWN = "described_sha256"
"""The checksum of a shard's description, in it; those of earlier versions have none."""


class Store:
    """The folder of one run.

    Args:
        folder: where the run is kept; made if need be.
        manifest: what the run measures; JSON-able.

    Raises:
        AnalysisError: the folder holds another run.
        CheckpointError: it holds a damaged file.
    """

    def __init__(self, folder: str | os.PathLike[str], manifest: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        path = self.folder / "manifest.json"
        wanted = {"format": FORMAT, **manifest}
        if path.exists():
            _check_same(read_json(path), wanted, self.folder)
        elif self.folder.exists() and any(self.folder.glob("rows-*")):
            raise _no_manifest(self.folder)
        else:
            write_json(path, wanted)

    def clear(self) -> None:
        """Remove what a process that was killed left half-written; for the one process that may write."""
        clear_parts(self.folder)

    def measured(self) -> dict[int, int]:
        """Part number -> its number of images, for the parts whose rows are there.

        Raises:
            CheckpointError: a shard is damaged.
        """
        return {part: table.sizes["image"] for part, table in self._shards()}

    def bad_images(self) -> dict[int, dict[str, str]]:
        """Part number -> its images that could not be read, id or position -> reason.

        Raises:
            CheckpointError: a description is damaged.
        """
        return {
            _number(path): dict(read_json(path).get(BAD_IMAGES, ()))
            for path in self.folder.glob("rows-*.json")
        }

    def write(self, part: int, table: xr.Dataset) -> None:
        """Keep the rows of one part."""
        arrays = {str(name): np.ascontiguousarray(values.values) for name, values in table.data_vars.items()}
        path = self._shard(part)
        with whole(path) as temporary:
            save_file(arrays, temporary)
            checksum = sha256(temporary)
        described = {
            "variables": {
                str(name): {"dims": values.dims, "attrs": values.attrs}
                for name, values in table.data_vars.items()
            },
            "coords": {
                str(name): {"dims": coord.dims, "values": coord.values.tolist()}
                for name, coord in table.coords.items()
            },
            "attrs": {name: value for name, value in table.attrs.items() if name != BAD_IMAGES},
            "sha256": checksum,
            BAD_IMAGES: list(table.attrs.get(BAD_IMAGES, {}).items()),  # in their order
        }
        sealed = {**described, _OWN: _described_sha256(described)}
        write_json(path.with_suffix(".json"), sealed)

    def write_sums(self, rank: int, sums: Mapping[str, np.ndarray], parts: list[int]) -> None:
        """Replace what process `rank` has added up, over `parts`, all that it ever covered."""
        path = self.folder / f"sums-{rank}.safetensors"
        # In one file, so that sums and the parts that they cover can never belong to different moments.
        kept = {"parts": np.array(parts, dtype=np.int64)}
        kept |= {name: np.ascontiguousarray(each) for name, each in sums.items()}
        with whole(path) as temporary:
            save_file(kept, temporary, metadata={"sha256": _sums_sha256(kept)})

    def sums(self) -> dict[int, tuple[dict[str, np.ndarray], list[int]]]:
        """Process -> what its set statistics have added up, and over which parts.

        Raises:
            CheckpointError: a file is damaged.
        """
        return _sums(self.folder)

    def rows(self) -> Iterator[xr.Dataset]:
        """The rows of all parts, in their order.

        Raises:
            CheckpointError: a shard is damaged.
        """
        return (table for _, table in self._shards())

    def _shards(self) -> Iterator[tuple[int, xr.Dataset]]:
        for part in sorted(_number(path) for path in self.folder.glob("rows-*.json")):
            yield part, read_shard(self.folder, part)

    def _shard(self, part: int) -> Path:
        return self.folder / f"rows-{part:06d}.safetensors"


def is_complete(folder: str | os.PathLike[str], n_parts: int | None, has_sums: bool) -> bool:
    """Whether a run has nothing left to measure: all its parts are there, and in the sums.

    Args:
        folder: the run's.
        n_parts: how many parts the run has; None where that is not known, and the answer no.
        has_sums: whether it has set statistics.
    """
    path = Path(folder)
    there = {_number(each) for each in path.glob("rows-*.json")}
    if n_parts is None or not (path / "manifest.json").exists() or there != set(range(n_parts)):
        return False
    return not has_sums or there <= {part for _, parts in _sums(path).values() for part in parts}


def read_shard(folder: Path, part: int) -> xr.Dataset:
    """The rows of one part.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / f"rows-{part:06d}.safetensors"
    beside = path.with_suffix(".json")
    described = read_json(beside)
    try:
        if described.get(_OWN, own := _described_sha256(described)) != own:
            raise ValueError("its own checksum is another than when it was written")
        digest, said = described["sha256"], described["variables"]
        coords = {n: (c["dims"], c["values"]) for n, c in described["coords"].items()}
        attrs = dict(described.get("attrs", {}))  # rows of earlier versions do not say
        if bad := dict(described.get(BAD_IMAGES, ())):
            attrs[BAD_IMAGES] = bad
    except Exception as error:  # whatever another content leads to
        raise _damaged(beside, f"{type(error).__name__}: {error}") from error
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError("its checksum is another than when it was written")
        arrays = load(content)
        variables = {name: (each["dims"], arrays[name], each["attrs"]) for name, each in said.items()}
        table = xr.Dataset(variables, coords=coords, attrs=attrs)
        if odd := [name for name, each in table.data_vars.items() if each.dims[: len(LEADING)] != LEADING]:
            raise ValueError(f"'{odd[0]}' has other axes than a run gives")
        ids = table["image"]  # of no images, where none of the part could be read
        if ids.dims != ("image",) or (ids.size and ids.dtype.kind != "U"):
            raise ValueError("its image ids are no texts")
        return table
    except Exception as error:
        raise _damaged(path, str(error)) from error


def _sums(folder: Path) -> dict[int, tuple[dict[str, np.ndarray], list[int]]]:
    found = {}
    for path in sorted(folder.glob("sums-*.safetensors"), key=_number):
        try:
            with safe_open(path, framework="numpy") as file:
                said = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            # Of a version before there was a checksum, none is asked for.
            if said and said["sha256"] != _sums_sha256(tensors):
                raise ValueError("its checksum is another than when it was written")
            found[_number(path)] = (tensors, tensors.pop("parts").tolist())
        except Exception as error:  # readers raise whatever the damage leads to
            raise _damaged(path, str(error)) from error
    return found


def _number(path: Path) -> int:
    try:
        return int(path.stem.split("-")[1])
    except (IndexError, ValueError) as error:
        raise _damaged(path, "its name has no number") from error


def _described_sha256(described: Mapping[str, Any]) -> str:
    """The checksum of a shard's description, itself left out."""
    rest = {name: value for name, value in described.items() if name != _OWN}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _sums_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _check_same(found: object, wanted: Mapping[str, Any], folder: Path) -> None:
    if not isinstance(found, dict):
        raise CheckpointError(
            f"{folder / 'manifest.json'} holds a {type(found).__name__}.",
            expected="the manifest of a run, a JSON object",
            remedy="Restore it from a copy, or delete the folder to measure anew.",
        )
    there = found.get("images")
    if isinstance(there, Mapping):
        wanted = {**wanted, "images": as_far_as_known(wanted["images"], there)}
    different = [name for name in wanted if found.get(name) != wanted[name]]
    if different:
        name = different[0]
        said = f"{name} is {found.get(name)!r}, now {wanted[name]!r}"
        if isinstance(wanted[name], Mapping):
            said = differences({name: found.get(name)}, {name: wanted[name]})
        raise AnalysisError(
            f"{folder} holds another run: its {said}"
            + (f" (and {len(different) - 1} more differ)." if len(different) > 1 else "."),
            expected="the run that was begun there, to go on with it",
            remedy="Name another folder, or delete this one to measure anew.",
        )


def _no_manifest(folder: Path) -> CheckpointError:
    return CheckpointError(
        f"{folder} has rows and no manifest.json.",
        expected="a folder that vitlens wrote",
        remedy="Name another folder, or delete this one to measure anew.",
    )


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be read: {why}.",
        expected="a file as vitlens wrote it",
        remedy="Delete it and the .json file of its name and run again: only its images are measured anew.",
    )
