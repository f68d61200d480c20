"""Reading the tensors of a checkpoint, and what it says of them, without running what a pickle holds."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError

_BEGINNINGS = (b"PK\x03\x04", b"\x80")
"""Of what torch.save writes: a zip archive, or formerly a pickle."""


_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+")
"""What data-parallel and compiled modules put before their names."""


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in a file, with what the file says of it.

    Args:
        path: a safetensors file, or what torch.save wrote of tensors.

    Returns:
        Name -> tensor, without the names of wrappers; the metadata of a safetensors file, or `arch` where a
        training script's checkpoint says it.

    Raises:
        CheckpointError: the file is missing, damaged, or holds other objects.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "last.pth.tar")
        >>> torch.save({"arch": "vit", "state_dict": {"module.bias": torch.zeros(2)}}, path)
        >>> read(path)
        ({'bias': tensor([0., 0.])}, {'arch': 'vit'})
    """
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder.",
            expected="a .safetensors, .pth or .pt file",
            remedy="Name the file in it, such as model.safetensors.",
        )
    if not path.is_file():
        raise CheckpointError(
            f"There is no file {path}.",
            expected="a .safetensors, .pth or .pt file",
            remedy="Check the path.",
        )
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                metadata = dict(file.metadata() or {})
                prefix = metadata.get("prefix", "")
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
                state = {name: file.get_tensor(name) for name in names}
                return {_WRAPPERS.sub("", name.removeprefix(prefix)): state[name] for name in names}, metadata
        _check_unpacked(path)
        # torch's words about pickles are for those who want to load them.
        with _Bounded(io.FileIO(path)) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # timm's training script keeps its options beside the weights: names and values, and no code.
            with torch.serialization.safe_globals([argparse.Namespace]):
                loaded = torch.load(file, map_location="cpu", weights_only=True)
        said = loaded.get("arch") if isinstance(loaded, dict) else None
        return _unwrap(loaded, path), {"arch": said} if isinstance(said, str) else {}
    except CheckpointError:
        raise
    except SafetensorError as error:
        raise damaged(path, error) from error
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise _unloaded(path, error) from (None if isinstance(error, pickle.UnpicklingError) else error)


class _Bounded(io.BufferedReader):
    """A file that makes no room for more than it has, whatever length a damaged pickle in it claims."""

    def read(self, size: int | None = -1) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else max(0, min(size, left)))


def _check_unpacked(path: Path) -> None:
    """Refuse an archive that is compressed, as torch never writes one: it can grow a thousandfold."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        n_bytes = sum(info.file_size for info in archive.infolist())
    if n_bytes > 2 * path.stat().st_size:
        raise CheckpointError(
            f"{path} unpacks to {n_bytes:,} bytes, many times its size.",
            expected="an archive as torch.save writes it, which is not compressed",
            remedy="Save the state dict anew with torch.save.",
        )


def _unloaded(path: Path, error: Exception) -> CheckpointError:
    """Why torch.load read nothing, without its advice, which is to run what the file says."""
    if isinstance(error, OSError):
        return damaged(path, error)
    with path.open("rb") as file:
        is_torchs = file.read(4).startswith(_BEGINNINGS)
    if not is_torchs:
        return CheckpointError(
            f"{path} cannot be read: it is no checkpoint.",
            expected="a safetensors file, or a .pth file that holds nothing but tensors",
            remedy="Check the path; a safetensors file has to be called .safetensors.",
        )
    if isinstance(error, pickle.UnpicklingError):
        return CheckpointError(
            f"{path} cannot be read: it holds other objects than tensors, and those could run any code.",
            expected="a safetensors file, or a .pth file that holds nothing but tensors",
            remedy="Where the file was made, save model.state_dict() and nothing else.",
        )
    return damaged(path, error)


def damaged(path: Path, error: Exception) -> CheckpointError:
    """What is said of a file that cannot be read.

    Example:
        >>> raise damaged(Path("model.safetensors"), ValueError("cut short"))
        Traceback (most recent call last):
        ...
        vitlens.errors.CheckpointError: model.safetensors cannot be read (ValueError: cut short). ...
    """
    reason = str(error).strip().splitlines()
    return CheckpointError(
        f"{path} cannot be read ({type(error).__name__}: {reason[0] if reason else 'no reason given'}).",
        expected="a whole safetensors file, or a .pth file that holds nothing but tensors",
        remedy="Copy it again; a .pth with other objects inside has to be saved anew as a state dict.",
    )


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside what training scripts save, without what wrappers put before its names."""
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(
            f"{path} holds no state dict.",
            expected="a mapping of names to tensors, bare or under state_dict or model",
            remedy="Save model.state_dict() and load that.",
        )
    return {_WRAPPERS.sub("", name): tensor for name, tensor in loaded.items()}
