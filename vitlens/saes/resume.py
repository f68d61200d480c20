"""The folder of one training: its state while it goes on, the SAE when it is done.

    run.json                  what identifies the training: arguments and source
    state.safetensors         all that its next step depends on, until it is done
    cfg.json, sae_weights.safetensors    the SAE, in sae-lens's own format; cfg.json appears last

Files are written whole or not at all, so that a training can be killed at any moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..claims import LOCK_NAME
from ..errors import CheckpointError, SAEError
from ..files import clear_parts, differences, read_json, whole, write_json
from ._sae_lens import SAE, SAE_CFG_FILENAME, SAE_WEIGHTS_FILENAME
from .storage import load, save
from .trainer import Trainer

FORMAT = "vitlens.sae-training.1"
_PREFIX, _SUFFIX = ".sae.", ".part"

Rows = list[dict[str, float]]


class TrainingFolder:
    """Where one training is kept.

    Args:
        path: the folder; made if need be.
        run: what identifies the training; JSON-able.
        save_every_seconds: the state is written at most so often.

    Raises:
        SAEError: the folder holds another training, or something else.
        CheckpointError: its `run.json` is damaged.
    """

    def __init__(
        self, path: str | os.PathLike[str], run: Mapping[str, Any], save_every_seconds: float
    ) -> None:
        self.path = Path(path)
        self._save_every_seconds = save_every_seconds
        self._last_written = time.monotonic()
        wanted = json.loads(json.dumps({"format": FORMAT, **run}))
        described = self.path / "run.json"
        check_folder(path)
        if described.exists():
            _check_same(read_json(described), wanted, self.path)
        else:
            write_json(described, wanted)
        clear_parts(self.path)

    def finished(self, device: torch.device | str) -> SAE[Any] | None:
        """The SAE, if the training is done.

        Raises:
            CheckpointError: it is damaged.
        """
        if not is_finished(self.path):
            return None
        with contextlib.suppress(OSError):  # left by a kill after the SAE was written
            self._state.unlink()
        return load(self.path, device)

    def read(self, trainer: Trainer) -> Rows:
        """Bring `trainer` to where the training was interrupted, if it was.

        Returns:
            The history until there.

        Raises:
            CheckpointError: the state is damaged.
        """
        if not self._state.exists():
            return []
        try:
            with safe_open(self._state, framework="pt", device=str(trainer.sae.device)) as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["sha256"] != _digest(tensors, metadata["history"]):
                raise ValueError("its checksum is another than when it was written")
            rows: Rows = json.loads(metadata["history"])
            trainer.load_state(tensors)
        except (SafetensorError, SAEError, OSError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{self._state} cannot be read ({error}).",
                expected="the state as vitlens wrote it",
                remedy="Delete it to begin this training anew, or name another output.",
            ) from error
        return rows

    def is_due(self) -> bool:
        """Whether the state was last written long enough ago."""
        return time.monotonic() - self._last_written >= self._save_every_seconds

    def keep(self, trainer: Trainer, rows: Rows) -> None:
        """Write the state."""
        tensors, history = trainer.state(), json.dumps(rows)
        with whole(self._state) as temporary:
            save_file(tensors, temporary, metadata={"history": history, "sha256": _digest(tensors, history)})
        self._last_written = time.monotonic()

    def finish(self, sae: SAE[Any]) -> None:
        """Write the SAE; the state is no longer wanted."""
        with tempfile.TemporaryDirectory(dir=self.path, prefix=_PREFIX, suffix=_SUFFIX) as folder:
            save(sae, Path(folder) / "sae")
            for name in (SAE_WEIGHTS_FILENAME, SAE_CFG_FILENAME):
                (Path(folder) / "sae" / name).replace(self.path / name)
        self._state.unlink(missing_ok=True)

    @property
    def _state(self) -> Path:
        return self.path / "state.safetensors"


def is_finished(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a training that is done."""
    return (Path(path) / "run.json").exists() and (Path(path) / SAE_CFG_FILENAME).exists()


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse a folder that holds something other than a training.

    Raises:
        SAEError: it does, or is a file.
    """
    there = Path(path)
    if (there / "run.json").exists() or not there.exists():
        return
    if not (there.is_dir() and all(map(_is_part, there.iterdir()))):
        raise SAEError(
            f"{os.fspath(path)} exists and holds no training of vitlens.",
            expected="a new folder, an empty one, or that of this training",
            remedy="Name another output.",
        )


def _is_part(path: Path) -> bool:
    return path.name == LOCK_NAME or (path.name.startswith(".") and path.name.endswith(_SUFFIX))


def _digest(tensors: Mapping[str, Tensor], history: str) -> str:
    digest = hashlib.sha256(history.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_same(found: Any, wanted: Mapping[str, Any], path: Path) -> None:
    if different := differences(found, wanted):
        raise SAEError(
            f"{path} holds another training ({different}).",
            expected="the training that was begun there, with the same arguments and source",
            remedy="Name another output, or delete this one to train anew.",
        )
