"""An activation cache in one safetensors file: the tensors by hook name, and whose they are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError
from ..files import check_version, sort_metadata, whole

_FORMAT_VERSION = "1"


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], has_batch_dim: bool, model: Any
) -> Path:
    """Keep activations, made whole or not at all.

    Args:
        path: where to write.
        tensors: hook name -> activation.
        has_batch_dim: whether their first axis is that of the images.
        model: the model that they are from, or None.

    Returns:
        The path.

    Example:
        >>> import tempfile, torch
        >>> path = write(tempfile.mkdtemp() + "/a.safetensors", {"hook_embed": torch.ones(2, 3)}, True, None)
        >>> tensors, has_batch_dim = read(path)
        >>> tensors["hook_embed"].shape, has_batch_dim
        (torch.Size([2, 3]), True)
    """
    metadata = {
        "vitlens_cache": _FORMAT_VERSION,
        "has_batch_dim": json.dumps(has_batch_dim),
        "cfg": json.dumps(vars(model.cfg)) if model is not None else "{}",
        "provenance": json.dumps(model.provenance) if model is not None else "{}",
    }
    copies = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    with whole(path) as temporary:
        save_file(copies, temporary, metadata=metadata)
        sort_metadata(temporary)
    return Path(path)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], bool]:
    """What `write` kept.

    Args:
        path: the file.

    Returns:
        Hook name -> activation, and whether the first axis is that of the images.

    Raises:
        CheckpointError: the file is missing, damaged or no cache.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            check_version(metadata.get("vitlens_cache"), _FORMAT_VERSION, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        has_batch_dim = json.loads(metadata["has_batch_dim"])
    except CheckpointError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{os.fspath(path)} cannot be read as a cache ({type(error).__name__}: {error}).",
            expected="a file that ActivationCache.save wrote",
            remedy="Check the path, or make the cache anew.",
        ) from error
    return tensors, bool(has_batch_dim)
