"""SAEs on disk, in sae-lens's own format, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ..errors import CheckpointError, SAEError
from ..files import as_path, read_json, sha256, space_for, write_json
from ..models.checkpoints import as_device
from ._sae_lens import SAE, SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME
from .checks import check_inference_form

_CHECKSUM, _OWN = "sae_weights_sha256", "cfg_sha256"
"""The checksums of the weights and of what cfg.json says, in cfg.json; sae-lens writes neither."""


def save(sae: SAE, path: str | os.PathLike[str]) -> None:
    """Write an SAE with its metadata to the folder `path`.

    The folder has sae-lens's two files, `cfg.json` and `sae_weights.safetensors`, and
    `sae_lens.SAE.load_from_disk` reads it. It is built beside its place and then moved there, so that no
    half-written SAE is ever found. An SAE that stands there is replaced.

    Args:
        sae: in its inference form.
        path: the folder; those above it are made if need be.

    Raises:
        SAEError: the SAE is in its training form or has NaN in its weights, or `path` holds something else.
        SpaceError: the disk is full.

    Example:
        >>> import tempfile, torch, vitlens as vl
        >>> path = tempfile.mkdtemp() + "/sae"
        >>> x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = vl.saes.train(x, d_sae=16, k_per_token=2, batch_size=64, n_tokens=2560, progress=False)
        >>> vl.saes.save(sae, path)
        >>> torch.equal(vl.saes.load(path).encode(x), sae.encode(x))
        True
    """
    check_inference_form(sae, "The SAE")
    target = as_path(path, "path").resolve()
    if target.exists() and not (target.is_dir() and _is_ours(target)):
        raise SAEError(
            f"{os.fspath(path)} exists and holds something other than an SAE.",
            expected="a new path, or the folder of an SAE to replace",
            remedy="Choose another path; nothing was written.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = f".{target.name}."
    with (
        space_for(path),
        tempfile.TemporaryDirectory(dir=target.parent, prefix=beside, suffix=".part") as folder,
    ):
        built, replaced = Path(folder) / "new", Path(folder) / "old"
        sae.save_model(built)
        config = built / SAE_CFG_FILENAME
        said = read_json(config) | {_CHECKSUM: sha256(built / SAE_WEIGHTS_FILENAME)}
        write_json(config, sealed(said))
        _flush(built / SAE_WEIGHTS_FILENAME)
        if target.exists():
            target.rename(replaced)
        try:
            built.rename(target)
        except OSError:
            if replaced.exists():
                replaced.rename(target)
            raise


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> SAE:
    """Read an SAE that `save` or sae-lens wrote.

    Args:
        path: the folder.
        device: where to put the weights.

    Returns:
        The SAE in eval mode, without gradients, with its metadata in `sae.cfg.metadata`.

    Raises:
        CheckpointError: a file is missing or damaged, or is none of an SAE that sae-lens can build.

    Example:
        See `save`.
    """
    folder, device = as_path(path, "path"), as_device(device)
    config = read_json(folder / SAE_CFG_FILENAME)
    weights = folder / SAE_WEIGHTS_FILENAME
    if not isinstance(config, dict) or not weights.is_file():
        raise CheckpointError(
            f"{os.fspath(path)} has no {SAE_WEIGHTS_FILENAME} that goes with its {SAE_CFG_FILENAME}.",
            expected="a folder that vitlens.saes.save or sae-lens wrote",
            remedy="Check the path, or save the SAE again.",
        )
    if config.get(_OWN, own := sealed(config)[_OWN]) != own:
        raise CheckpointError(
            f"{folder / SAE_CFG_FILENAME} is damaged: its own checksum is another.",
            expected="the file as it was saved",
            remedy="Fetch or train it anew.",
        )
    if config.get(_CHECKSUM, checksum := sha256(weights)) != checksum:
        raise CheckpointError(
            f"{weights} is damaged: its SHA-256 is not the one that {SAE_CFG_FILENAME} gives.",
            expected="the file as it was saved",
            remedy="Fetch or train it anew.",
        )
    try:
        _check_sizes(config, weights)
        sae = SAE.load_from_disk(folder, device=str(device))
    except Exception as error:  # sae-lens raises whatever another content leads to
        raise CheckpointError(
            f"{os.fspath(path)} is no SAE that sae-lens can build ({type(error).__name__}: {error}).",
            expected="a folder that vitlens.saes.save or sae-lens wrote",
            remedy="Check the path, or save the SAE again.",
        ) from error
    return sae.eval().requires_grad_(False)


def sealed(said: Mapping[str, Any]) -> dict[str, Any]:
    """What cfg.json says, with its own checksum."""
    rest = {name: value for name, value in said.items() if name != _OWN}
    return rest | {_OWN: hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


def _check_sizes(config: Mapping[str, Any], weights: Path) -> None:
    # sae-lens makes room for what cfg.json says before it looks at the weights.
    with safe_open(weights, framework="pt") as file:
        shape = file.get_slice("W_dec").get_shape()
    if [config["d_sae"], config["d_in"]] != shape:
        raise ValueError(f"d_sae and d_in are {config['d_sae']} and {config['d_in']}, W_dec is {shape}")


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds an SAE and nothing else, or nothing at all."""
    names = {entry.name for entry in folder.iterdir()}
    return not names or names == {SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME}


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
