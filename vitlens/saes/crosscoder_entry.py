"""What makes a crosscoder of an SAE, as an entry of the SAE's metadata with a checksum."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from ._sae_lens import SAE

FORMAT = "vitlens.crosscoder.1"
ENTRY = "crosscoder"


def write_entry(sae: SAE, said: Mapping[str, Any]) -> None:
    """Put what is said, JSON-able, into the metadata."""
    entry = {"format": FORMAT, **said}
    sae.cfg.metadata[ENTRY] = entry | {"sha256": _digest(entry)}


def read_entry(sae: SAE, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `write_entry` wrote.

    Args:
        sae: as it was loaded.
        path: from where.

    Raises:
        CheckpointError: there is no such entry, one of another format, or a damaged one.
    """
    entry = sae.cfg.metadata[ENTRY]
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise CheckpointError(
            f"{os.fspath(path)} holds an SAE that is no crosscoder of format {FORMAT}.",
            expected="a folder that Crosscoder.save wrote",
            remedy="Check the path; a training keeps its result in the folder 'crosscoder' of its output.",
        )
    if entry.get("sha256") != _digest(entry):
        raise CheckpointError(
            f"{os.fspath(path)} is damaged: what its metadata says of the crosscoder has another SHA-256.",
            expected="the file as it was saved",
            remedy="Fetch or train it anew.",
        )
    return entry


def _digest(entry: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in entry.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
