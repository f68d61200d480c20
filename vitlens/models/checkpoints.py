"""Saving and loading a model: safetensors whose metadata says how to build it again.

The file holds timm's own state dict. Its metadata has, as JSON strings, `architecture` (how to build the
module), `data_config` (normalisation and preprocessing), `provenance` and `vitlens` (the format's version).
A file that holds more than the model says in `prefix` what the names of the model's tensors begin with.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from ..errors import ArchitectureError, CheckpointError, FamilyError
from ..files import as_path, check_version, sort_metadata, whole
from .architecture import Description, built_for, describe
from .building import build_timm
from .checkpoint_files import damaged, read
from .fitting import fit
from .hooked_vit import HookedViT

FORMAT_VERSION = "1"


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
        path: a `.safetensors` file, or what `torch.save` wrote of tensors: bare, or in a training script's
            checkpoint under `state_dict`, `model` or, before these, the average `state_dict_ema` or
            `model_ema`. No pickle is run.
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
    if isinstance(path, nn.Module):
        raise CheckpointError(
            f"path is a {type(path).__name__}.",
            expected="a file; a live module needs no loading",
            remedy="Wrap it: vitlens.HookedViT(module).",
        )
    path, device = as_path(path, "path"), as_device(device)
    if timm.is_model(path.name) and not path.exists():
        raise CheckpointError(
            f"There is no file {path}; timm has an architecture of that name.",
            expected="a .safetensors, .pth or .pt file",
            remedy=f'For timm\'s own weights: vitlens.HookedViT.from_timm("{path.name}", pretrained=True).',
        )
    state, metadata = read(path)
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
            remedy=_naming(metadata.get("arch", "")),
        )
    fit(module, state, path)
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


def _naming(arch: str) -> str:
    """How to name the architecture; `arch` is what a training script's file says."""
    if timm.is_model(arch):
        return f'The file says "{arch}": vitlens.load(path, architecture="{arch}").'
    return 'Pass timm\'s name for it: vitlens.load(path, architecture="deit_tiny_patch16_224").'


def _are_channels(values: object) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) in (1, 3)
        and all(isinstance(each, int | float) and abs(each) < 1e6 for each in values)
    )


def _json(metadata: Mapping[str, str], key: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"The metadata '{key}' of {path} is {value!r}.",
            expected="a JSON object",
            remedy="The file was not written by vitlens.save; pass architecture= to load its weights.",
        )
    return value
