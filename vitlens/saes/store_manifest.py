"""The manifest of an activation store: what is stored, compared with what is asked for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..claims import LOCK_NAME
from ..errors import CheckpointError, SAEError
from ..files import clear_parts, read_json, write_json
from ..images import BAD_IMAGES
from ..images.items import add_id
from .shards import DTYPES, Layout, described_shard, shard_path, written_shards

PROTOCOL = "vitlens.activations.1"
"""The version of the format; a reader of another refuses."""

_LATER = {"shards", "provenance", "sha256", BAD_IMAGES}


def begin(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Make the folder of a store with its manifest, or compare the one that is there and clear it up.

    Args:
        folder: the store's.
        wanted: what shall be stored, JSON-able.

    Raises:
        SAEError: another store is there.
        CheckpointError: it is of another protocol, or its manifest is damaged or missing.
    """
    if (folder / "manifest.json").exists():
        compare(folder, wanted)
        clear_parts(folder)
    elif folder.exists() and (not folder.is_dir() or any(map(_is_strange, folder.iterdir()))):
        raise SAEError(
            f"{os.fspath(folder)} holds files and no manifest.json.",
            expected="a new folder, or that of an activation store",
            remedy="Name another folder.",
        )
    else:
        clear_parts(folder)
        _write(folder, {"protocol": PROTOCOL, **wanted, "shards": None})


def compare(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest that is there, if it says what is wanted.

    Raises:
        SAEError: it says something else.
        CheckpointError: it is damaged or of another protocol.
    """
    manifest = read_manifest(folder)
    there, asked = dict(_leaves(manifest)), dict(_leaves(wanted))
    # What a data set does not know of itself is told only by its images.
    unknown = {name for name, value in asked.items() if value is None}
    different = [name for name in {**asked, **there} if there.get(name) != asked.get(name)]
    if different := [name for name in different if name not in unknown]:
        name = different[0]
        raise SAEError(
            f"{os.fspath(folder)} holds other activations: its {name} is {there.get(name)!r}, "
            f"now {asked.get(name)!r}"
            + (f" (and {len(different) - 1} more differ)." if len(different) > 1 else "."),
            expected="the store that was begun there, to go on with it",
            remedy="Name another folder, or delete this one to store anew.",
        )
    return manifest


def complete(folder: Path) -> None:
    """Enter the shards into the manifest: from now on the store can be opened.

    Raises:
        SAEError: shards are missing.
        DatasetError: an image id is found twice.
        CheckpointError: a description is damaged.
    """
    manifest = read_manifest(folder)
    numbers = written_shards(folder)
    shards: list[dict[str, Any]] = []
    seen, digest, sizes = set[str](), hashlib.sha256(), list[int]()
    bad: dict[str, str] = {}
    for number in numbers:
        path = shard_path(folder, number)
        described = described_shard(path)
        ids, bad_here = described["image_ids"], dict(described.get(BAD_IMAGES, ()))
        sizes.append(len(ids) + len(bad_here))
        bad |= bad_here
        for image_id in ids:
            add_id(image_id, seen)
            digest.update(f"{image_id}\n".encode())
        content = path.with_suffix(".json").read_bytes()
        shards.append({"n_images": len(ids), "sha256": hashlib.sha256(content).hexdigest()})
    n_images = manifest["n_images"] if manifest["n_images"] is not None else sum(sizes)
    full = manifest["n_images_per_shard"]
    wanted = [min(full, n_images - start) for start in range(0, n_images, full)]
    if numbers != list(range(len(wanted))) or sizes != wanted:
        raise SAEError(
            f"{os.fspath(folder)} has {sum(sizes)} images in {len(shards)} shards.",
            expected=f"{n_images} images in {len(wanted)} shards",
            remedy="Check that the data set gives as many items as it says, and call write again.",
        )
    # Of all images, those that could not be read included: so a data set is known again.
    known = manifest["image_ids_sha256"] if bad else digest.hexdigest()
    found = {"n_images": n_images, "image_ids_sha256": known, "shards": shards}
    _write(folder, manifest | found | ({BAD_IMAGES: list(bad.items())} if bad else {}))


def kept_bad_images(folder: Path) -> dict[str, str]:
    """Images that could not be read when the shards that are there were written: id or position -> reason.

    Raises:
        CheckpointError: a description is damaged.
    """
    found: dict[str, str] = {}
    for number in written_shards(folder):
        found |= dict(described_shard(shard_path(folder, number)).get(BAD_IMAGES, ()))
    return found


def is_complete(folder: Path) -> bool:
    """Whether a store is there that lacks nothing."""
    try:
        return not missing(folder, read_manifest(folder))
    except CheckpointError:
        return False


def missing(folder: Path, manifest: Mapping[str, Any]) -> str:
    """What a store still lacks, in words; empty where it lacks nothing."""
    there = [number for number in written_shards(folder) if shard_path(folder, number).exists()]
    shards = manifest["shards"]
    if shards is None:
        n_images = manifest["n_images"]
        full = manifest["n_images_per_shard"]
        of = "" if n_images is None else f" of {-(-n_images // full)}"
        return f"{len(there)}{of} shards are there"
    lost = sorted(set(range(len(shards))) - set(there))
    return f"shard {lost[0]} is gone" if lost else ""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the store in `folder`.

    Raises:
        CheckpointError: there is none, it is damaged, or of another protocol.
    """
    path = folder / "manifest.json"
    manifest: dict[str, Any] = read_json(path)
    protocol = manifest.get("protocol") if isinstance(manifest, dict) else None
    if protocol != PROTOCOL:
        raise CheckpointError(
            f"{os.fspath(path)} is of the protocol {protocol!r}.",
            expected=repr(PROTOCOL),
            remedy="Write the store anew, or read it with the version of vitlens that wrote it.",
        )
    if manifest.get("sha256") != _digest(manifest):
        raise CheckpointError(
            f"{os.fspath(path)} is damaged: its own checksum is another.",
            expected="the manifest as vitlens wrote it",
            remedy="Restore it from a copy, or write the store anew in another folder.",
        )
    if not _is_described(manifest):
        raise CheckpointError(
            f"{os.fspath(path)} does not describe a store.",
            expected="the entries of the format, as vitlens writes them",
            remedy="Restore it from a copy, or write the store anew in another folder.",
        )
    return manifest


def _is_described(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest whose checksum is right has what readers take from it."""
    n_images, shards, bad = manifest.get("n_images"), manifest.get("shards", 0), manifest.get(BAD_IMAGES, [])
    listed: list[Any] = [manifest.get(name) for name in ("hooks", "checkpoints", "conditions", "positions")]
    if not all(isinstance(each, list) and each for each in listed):
        return False
    hooks, checkpoints, conditions, positions = listed
    counts = [manifest.get("n_rows_per_block"), manifest.get("n_images_per_shard")]
    if n_images is not None:
        counts.append(n_images)
    if shards is not None:
        if not isinstance(shards, list) or not all(
            isinstance(each, dict) and isinstance(each.get("sha256"), str) for each in shards
        ):
            return False
        if not isinstance(bad, list) or not all(isinstance(each, list) and len(each) == 2 for each in bad):
            return False
        # A shard of whose images none could be read has 0.
        of_shards = [each.get("n_images") for each in shards]
        if not all(type(each) is int and 0 <= each < 2**40 for each in of_shards):
            return False
        if sum(of_shards) + len(bad) != n_images:
            return False
    kinds = manifest.get("position_kinds")
    return (
        all(isinstance(each, dict) and isinstance(each.get("name"), str) for each in [*hooks, *checkpoints])
        and all(map(_is_count, [*counts, *(hook.get("d_in") for hook in hooks)]))
        and all({"config", "provenance", "weights_sha256"} <= each.keys() for each in checkpoints)
        and all(isinstance(each, str) for each in [*conditions, manifest.get("tokens")])
        and all(type(each) is int and each >= 0 for each in positions)
        and isinstance(kinds, list)
        and len(kinds) == len(positions)
        and isinstance(manifest.get("dtype"), str)
        and manifest["dtype"] in DTYPES
    )


def _is_count(value: object) -> bool:
    return type(value) is int and 0 < value < 2**40


def layout(manifest: Mapping[str, Any]) -> Layout:
    """What a manifest says of the shards."""
    return Layout(
        widths={hook["name"]: hook["d_in"] for hook in manifest["hooks"]},
        n_checkpoints=len(manifest["checkpoints"]),
        n_conditions=len(manifest["conditions"]),
        n_positions=len(manifest["positions"]),
        dtype=manifest["dtype"],
        n_rows_per_block=manifest["n_rows_per_block"],
    )


def ids_sha256(image_ids: list[str]) -> str:
    """A hash of image ids in their order."""
    return hashlib.sha256("".join(f"{image_id}\n" for image_id in image_ids).encode()).hexdigest()


def _is_strange(path: Path) -> bool:
    """Whether a file is none of those that a write leaves that was killed before its manifest stood."""
    return path.name != LOCK_NAME and not (path.name.startswith(".manifest.json.") and path.suffix == ".part")


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_json(folder / "manifest.json", {**manifest, "sha256": _digest(manifest)})


def _digest(manifest: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name -> value, of what makes a store what it is."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key not in _LATER and key != "protocol":
                yield from _leaves(each, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        names = [each["name"] for each in value]
        yield name, names
        for key, each in zip(names, value, strict=True):
            yield from _leaves(each, f"{name}[{key}]")
    else:
        yield name, value
