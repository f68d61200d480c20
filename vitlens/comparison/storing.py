"""A comparison in one file: what was measured, and all that is said of it.

The file is safetensors: any reader of that format can open it. Its tensors are the arrays; its metadata hold
`vitlens` (the format's version), `content` (JSON that says which array is what, see `stored_values`) and
`sha256`, the checksum of all of it. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ..errors import CheckpointError, ComparisonError
from ..files import as_path, sort_metadata, whole
from .stored_values import Arrays, pack, unpack

FORMAT = "vitlens.comparison.1"

FILE_NAME = "comparison.safetensors"
"""What the file is called in a folder of its own."""


def write(path: str | os.PathLike[str], parts: Mapping[str, Any]) -> Path:
    """Keep the parts of a comparison in one file.

    Args:
        path: where to write; made whole or not at all.
        parts: name -> value, as `vitlens.comparison.stored_values.pack` takes it.

    Returns:
        The path.

    Raises:
        ComparisonError: a part cannot be kept, or `path` is a folder.
        SpaceError: the disk is full.

    Example:
        >>> import tempfile
        >>> path = write(tempfile.mkdtemp() + "/a.safetensors", {"values": np.arange(3), "seed": 0})
        >>> read(path)
        {'values': array([0, 1, 2]), 'seed': 0}
    """
    path = as_path(path, "path", ComparisonError)
    if path.is_dir():
        raise ComparisonError(
            f"{path} is a folder.",
            expected="the name of a file",
            remedy=f"Add one, such as {FILE_NAME}.",
        )
    arrays: Arrays = {}
    content = json.dumps({name: pack(value, arrays, name) for name, value in parts.items()})
    metadata = {"vitlens": FORMAT, "content": content, "sha256": _checksum(content, arrays)}
    with whole(path) as temporary:
        save_file(arrays, temporary, metadata=metadata)
        sort_metadata(temporary)
    return path


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The parts that `write` kept.

    Args:
        path: the file, or the folder that holds one by the name of `FILE_NAME`.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or of a later version.
        ComparisonError: `path` is no path.
    """
    path = as_path(path, "path", ComparisonError)
    if path.is_dir():
        path /= FILE_NAME
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path}.",
            expected="a file that Comparison.save wrote",
            remedy="Check the path.",
        )
    arrays: Arrays = {}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            _check_format(metadata, path)
            for name in file.keys():  # noqa: SIM118  # the file is no mapping
                arrays[name] = file.get_tensor(name)
        if _checksum(metadata["content"], arrays) != metadata["sha256"]:
            raise damaged(path, "its checksum is another than when it was written")
        return {name: unpack(value, arrays) for name, value in json.loads(metadata["content"]).items()}
    except CheckpointError:
        raise
    except Exception as error:  # readers raise whatever the damage leads to
        raise damaged(path, f"{type(error).__name__}: {error}") from error


def _check_format(metadata: Mapping[str, str], path: Path) -> None:
    found = metadata.get("vitlens", "")
    if found == FORMAT:
        return
    kind, _, version = FORMAT.rpartition(".")
    if found.startswith(f"{kind}."):
        raise CheckpointError(
            f"{path} is a comparison of format {found.removeprefix(f'{kind}.')}.",
            expected=f"format {version}, which this version of vitlens reads",
            remedy="Read it with the version of vitlens that wrote it, or a later one.",
        )
    raise CheckpointError(
        f"{path} is a file of safetensors and holds no comparison.",
        expected="a file that Comparison.save wrote",
        remedy="A model's weights are read by vitlens.load.",
    )


def _checksum(content: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(content.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()


def damaged(path: str | os.PathLike[str], why: str) -> CheckpointError:
    """The error for a file that does not hold what was written; `why` may have several lines."""
    return CheckpointError(
        f"{path} cannot be read ({why.splitlines()[0]}).",
        expected="a whole file, as Comparison.save wrote it",
        remedy="Copy it again, or make the comparison anew.",
    )
