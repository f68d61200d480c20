"""Saving and loading a model: safetensors whose metadata says how to build it again.

The file holds timm's own state dict. Its metadata has, as JSON strings, `architecture` (how to build the
module), `data_config` (normalisation and preprocessing), `provenance` and `vitlens` (the format's version).
A file that holds more than the model says in `prefix` what the names of the model's tensors begin with.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import ArchitectureError, CheckpointError, FamilyError
from ..files import as_path, check_version, sort_metadata, whole
from ..names import some
from .architecture import Description, built_for, describe, likeliest_architecture
from .building import build_timm
from .hooked_vit import HookedViT

FORMAT_VERSION = "1"

_BEGINNINGS = (b"PK\x03\x04", b"\x80")
"""Of what torch.save writes: a zip archive, or formerly a pickle."""


def save(
    model: HookedViT | nn.Module,
    path: str | os.PathLike[str],
    *,
    architecture: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Path:
    """Write a model to one safetensors file from which `load` makes it again with nothing else.

    Args:
        model: the model, or the timm module itself.
        path: where to write; made whole or not at all.
        architecture: timm's name, where the module cannot be described from itself.
        provenance: added to what the model already remembers of its origin; JSON-able.
        **kwargs: with `architecture`, what `timm.create_model` needs besides.

    Returns:
        The path.

    Raises:
        ArchitectureError: it cannot be told how the module was built.
        CheckpointError: `path` is a folder or no path, or the provenance cannot be written as JSON.

    Example:
        >>> import tempfile, timm
        >>> model = HookedViT(timm.create_model("vit_tiny_patch16_224", num_classes=10))
        >>> path = save(model, tempfile.mkdtemp() + "/model.safetensors")
        >>> load(path).cfg == model.cfg
        True
    """
    path = as_path(path, "path")
    if path.is_dir():
        raise CheckpointError(
            f"{path} is a folder.",
            expected="the name of a file",
            remedy="Add one, such as model.safetensors.",
        )
    hooked = model if isinstance(model, HookedViT) else HookedViT(model)
    metadata = said_of(hooked, architecture, provenance, **kwargs)
    state = {name: tensor.detach().contiguous() for name, tensor in hooked.model.state_dict().items()}
    with whole(path) as temporary:
        save_file(state, temporary, metadata=metadata)
        sort_metadata(temporary)
    return path


def said_of(
    model: HookedViT,
    architecture: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> dict[str, str]:
    """What a file's metadata say of the model in it, so that `load` needs nothing else.

    Args:
        model: the model.
        architecture: as for `save`.
        provenance: as for `save`.
        **kwargs: as for `save`.

    Raises:
        ArchitectureError: it cannot be told how the module was built.
    """
    description: Description
    if architecture is None:
        description = model.description or describe(model.model)
    else:
        description = {"kind": "timm", "name": architecture, "kwargs": kwargs}
    origin = {**model.provenance, **(provenance or {})}
    try:
        said = json.dumps(origin)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"The provenance cannot be written ({error}).",
            expected="numbers, texts, truth values, None, and lists and mappings of them",
            remedy="Say what it is in words.",
        ) from error
    return {
        "vitlens": FORMAT_VERSION,
        "architecture": json.dumps(description),
        "data_config": json.dumps(model.data_config),
        "provenance": said,
    }


def as_device(device: torch.device | str) -> torch.device:
    """A device, whatever it is given as.

    Raises:
        CheckpointError: torch knows no such device.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"device is {device!r}.",
            expected='"cpu", "cuda", "cuda:1" or another of torch\'s devices',
            remedy="Leave it out for the CPU.",
        ) from error


def load(
    path: str | os.PathLike[str],
    architecture: str | None = None,
    *,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> HookedViT:
    """Load a model that `save` wrote, that of a fine-tuning checkpoint, or a bare state dict of timm's.

    Args:
        path: a `.safetensors` file, or a `.pth` / `.pt` file that holds tensors only (no pickle is run).
        architecture: timm's name for it; needed for a bare state dict.
        device: where to put the model.
        **kwargs: with `architecture`, what `timm.create_model` needs besides, such as `num_classes`.

    Returns:
        The model, in evaluation mode, in float32.

    Raises:
        CheckpointError: the file is missing, damaged, or its weights do not fit the architecture.
        ArchitectureError: the architecture is not known, or not said.

    Example:
        >>> import tempfile, timm, torch
        >>> path = tempfile.mkdtemp() + "/weights.pth"
        >>> torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=10).state_dict(), path)
        >>> load(path, architecture="vit_tiny_patch16_224", num_classes=10).cfg.n_classes
        10
    """
    path, device = as_path(path, "path"), as_device(device)
    state, metadata = _read(path)
    described = metadata.get("architecture")
    data_config = _json(metadata, "data_config", path)
    if architecture is not None:
        module = build_timm(architecture, **kwargs)
    elif described is not None:
        check_version(metadata.get("vitlens"), FORMAT_VERSION, path)
        module = built_for(_json(metadata, "architecture", path), data_config, state)
    else:
        raise ArchitectureError(
            f"{path} is a bare state dict: it does not say its architecture.",
            expected="a file that vitlens.save wrote, or architecture=",
            remedy='Pass timm\'s name for it: vitlens.load(path, architecture="deit_tiny_patch16_224").',
        )
    _fit(module, state, path)
    for name in {"mean", "std"} & data_config.keys():
        values = data_config[name]
        if not _are_channels(values) or (name == "std" and not all(values)):
            raise CheckpointError(
                f"The metadata of {path} say that the {name} is {values!r}.",
                expected="a finite number for each of three channels; of the standard deviation, not 0",
                remedy="Save the model anew with vitlens.save, or pass architecture= to load its weights.",
            )
    provenance = {**_json(metadata, "provenance", path), "file": path.name}
    model = HookedViT(module.eval().to(device), data_config=data_config, provenance=provenance)
    if architecture is None:
        model.description = _json(metadata, "architecture", path)
    return model


def weights_sha256(model: HookedViT | nn.Module) -> str:
    """A hash of a model's weights: names, shapes, precisions and values, in the order of their names.

    Args:
        model: the model, or the timm module itself.

    Returns:
        64 hexadecimal digits: SHA-256 as the page on model files specifies it.

    Raises:
        FamilyError: it is no module.

    Example:
        >>> import timm
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=1)
        >>> weights_sha256(HookedViT(model)) == weights_sha256(model)
        True
    """
    module = model.model if isinstance(model, HookedViT) else model
    if not isinstance(module, nn.Module):
        raise FamilyError(
            f"The model is a {type(module).__name__}.",
            expected="a HookedViT or a module of torch",
            remedy="Load a file with vitlens.load first.",
        )
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        # Viewed as bytes, since numpy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
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
                return {name.removeprefix(prefix): file.get_tensor(name) for name in names}, metadata
        _check_unpacked(path)
        # torch's words about pickles are for those who want to load them.
        with _Bounded(io.FileIO(path)) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        return _unwrap(loaded, path), {}
    except CheckpointError:
        raise
    except SafetensorError as error:
        raise _damaged(path, error) from error
    except Exception as error:  # torch.load raises whatever the damage leads to
        raise _unloaded(path, error) from (None if isinstance(error, pickle.UnpicklingError) else error)


class _Bounded(io.BufferedReader):
    """A file that makes no room for more than it has, whatever length a damaged pickle in it claims."""

    def read(self, size: int | None = -1) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        return super().read(left if size is None or size < 0 else max(0, min(size, left)))


def _are_channels(values: object) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) in (1, 3)
        and all(isinstance(each, int | float) and abs(each) < 1e6 for each in values)
    )


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
        return _damaged(path, error)
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
    return _damaged(path, error)


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()
    return CheckpointError(
        f"{path} cannot be read ({type(error).__name__}: {reason[0] if reason else 'no reason given'}).",
        expected="a whole safetensors file, or a .pth file that holds nothing but tensors",
        remedy="Copy it again; a .pth with other objects inside has to be saved anew as a state dict.",
    )


def _unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside what training scripts save, without a data-parallel prefix."""
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
    return {name.removeprefix("module."): tensor for name, tensor in loaded.items()}


def _json(metadata: Mapping[str, str], key: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"The metadata '{key}' of {path} is {value!r}.",
            expected="a JSON object",
            remedy="The file was not written by vitlens.save; pass architecture= to load its weights.",
        )
    return value


def _fit(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load `state` into `module`, or say what does not fit."""
    wanted = module.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    surplus = sorted(state.keys() - wanted.keys())
    other = sorted(name for name in wanted.keys() & state.keys() if wanted[name].shape != state[name].shape)
    complaints = [
        *some("missing", missing),
        *some("not in the architecture", surplus),
        *some(
            "of another shape",
            [f"{name} {tuple(state[name].shape)} for {tuple(wanted[name].shape)}" for name in other],
        ),
    ]
    if complaints:
        likely = likeliest_architecture(state)
        remedy = (
            f"Its weights look like those of '{likely}'."
            if likely
            else "Name the architecture that the weights belong to."
        )
        if other and all(name.startswith("head") for name in other) and not (missing or surplus):
            n_classes = state[other[0]].shape[0]
            remedy = f"The head has {n_classes} classes: pass num_classes={n_classes}."
        raise CheckpointError(
            f"The weights in {path} do not fit {type(module).__name__}: {'; '.join(complaints)}.",
            expected=f"its {len(wanted)} tensors, by name and shape",
            remedy=remedy,
        )
    try:
        module.load_state_dict(state)
    except Exception as error:  # sparse, complex or without values
        raise _damaged(path, error) from error
