"""Files are written whole or not at all, and read with errors that say what to do."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointError, SpaceError, VitlensError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place once the block has ended without an error.

    Args:
        path: where the finished file shall stand; its folder is made if need be.

    Yields:
        The temporary path to write to. A reader sees the old file or the new one, never a part.

    Raises:
        SpaceError: the disk is full.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with whole(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("done")
        >>> (folder / "a.txt").read_text()
        'done'
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    os.close(descriptor)
    temporary = Path(name)
    try:
        with space_for(path):
            yield temporary
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
        # mkstemp makes files that only their owner can read; a finished file gets what open() would give.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def clear_parts(folder: Path) -> None:
    """Remove what a process that was killed left half-written in a folder and in those below it.

    Args:
        folder: one that vitlens made, in which no other process works.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".a.txt.k1ll3d.part").touch()
        >>> clear_parts(folder)
        >>> list(folder.iterdir())
        []
    """
    # safetensors writes to files of its own, with six letters after the dot and tmp.
    for left in [*folder.rglob(".*.part"), *folder.rglob(".tmp??????")]:
        with contextlib.suppress(OSError):  # in a folder that is read-only it does no harm
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


@contextlib.contextmanager
def space_for(path: str | os.PathLike[str]) -> Iterator[None]:
    """Say what was to be written where the disk is full in the block.

    Raises:
        SpaceError: it is.
    """
    try:
        yield
    except Exception as error:
        if not is_full(error):
            raise
        raise SpaceError(
            f"There is no space left to write {os.fspath(path)}.",
            expected="a disk with space for it",
            remedy="Make room and make the call again; what stood there before still stands.",
        ) from error


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk is full, whichever library raised it.

    Example:
        >>> is_full(OSError(errno.ENOSPC, "No space left on device")), is_full(OSError("?"))
        (True, False)
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # Libraries that are not written in Python have the number in their words alone.
    return isinstance(error, SpaceError) or any(f"os error {number})" in str(error) for number in _FULL)


def as_path(path: object, argument: str, error: type[VitlensError] = CheckpointError) -> Path:
    """A path, whatever it is given as.

    Args:
        path: text or a path.
        argument: what the caller calls it.
        error: what is raised where it is neither.

    Example:
        >>> as_path("a/b", "path").name
        'b'
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise error(
            f"{argument} is {path!r}." if len(repr(path)) < 80 else f"{argument} is a {type(path).__name__}.",
            expected="a path",
            remedy="Name a file or a folder, as text or a Path.",
        )
    return Path(os.fsdecode(path))


def differences(found: Any, wanted: Any) -> str:
    """In which entries two JSON values differ, in words; empty where they do not.

    Example:
        >>> differences({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
        'b.c: 2 there, 3 now'
    """
    there, now = dict(_leaves(found)), dict(_leaves(wanted))
    return "; ".join(
        f"{name}: {there.get(name)!r} there, {now.get(name)!r} now"
        for name in sorted(there.keys() | now.keys())
        if there.get(name) != now.get(name)
    )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name -> value of everything nested."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{name}.{key}" if name else key)
    else:
        yield name, value


def sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, in hexadecimal; read in parts."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sort_metadata(path: str | os.PathLike[str]) -> None:
    """Put the metadata of a file of safetensors in the order of their names.

    Their own order is drawn anew each time, so that the same content would be other bytes.

    Args:
        path: a file that was just written; it keeps its length.

    Example:
        >>> import numpy, tempfile
        >>> from safetensors.numpy import save_file
        >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
        >>> save_file({"values": numpy.zeros(2)}, path, metadata={"b": "2", "a": "1"})
        >>> sort_metadata(path)
        >>> path.read_bytes()[8:41]
        b'{"__metadata__":{"a":"1","b":"2"}'
    """
    with Path(path).open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = dict(sorted(header.pop("__metadata__", {}).items()))
        ordered = {"__metadata__": metadata, **header}
        text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length
        file.seek(8)
        file.write(text.ljust(length))


def check_version(found: str | None, known: str, path: str | os.PathLike[str]) -> None:
    """Refuse a file of a version that is not known; one that says none is of the first.

    Args:
        found: what the file says.
        known: the version that is read.
        path: the file.

    Raises:
        CheckpointError: the two differ.

    Example:
        >>> check_version("1", "1", "model.safetensors")
    """
    if found not in (None, known):
        raise CheckpointError(
            f"{os.fspath(path)} is of version {found!r} of its format.",
            expected=f"version {known!r}",
            remedy="Read it with the version of vitlens that wrote it, or a later one.",
        )


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` to `path` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON from `path`.

    Raises:
        CheckpointError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    # Not only JSONDecodeError: numbers of thousands of digits and brackets in brackets without end.
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{os.fspath(path)} cannot be read as JSON ({error}).",
            expected="a JSON file that vitlens wrote",
            remedy="Check the path, or make the file anew.",
        ) from error
