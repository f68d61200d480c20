"""The state of a run on disk: weights, optimizer and position in one file, written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import CheckpointError, TrainingError
from ..files import differences, whole

_WEIGHTS, _OPTIMIZER = "model.", "optimizer."


def write_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, run: dict[str, Any]
) -> None:
    """Write everything that the rest of a run depends on.

    Args:
        path: the checkpoint file.
        model: the module in training.
        optimizer: its optimizer.
        step: how many steps have been made.
        run: what identifies the run: configuration, starting weights, data.
    """
    tensors = {f"{_WEIGHTS}{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    numbers: dict[str, dict[str, Any]] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{index}.{name}"] = value.contiguous()
            else:
                numbers.setdefault(str(index), {})[name] = value
    metadata = {"step": str(step), "run": json.dumps(run, sort_keys=True), "numbers": json.dumps(numbers)}
    with whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, run: dict[str, Any]) -> int:
    """Bring a run back to where `write_state` left it.

    Returns:
        How many steps have been made.

    Raises:
        TrainingError: the checkpoint belongs to another run.
        CheckpointError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, found, numbers = (
            int(metadata["step"]),
            json.loads(metadata["run"]),
            json.loads(metadata["numbers"]),
        )
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"The checkpoint {path} cannot be read ({error}).",
            expected="a whole file that this run wrote",
            remedy="Delete it to start the run anew.",
        ) from error
    check_same_run(found, run, path)
    model.load_state_dict(
        {name.removeprefix(_WEIGHTS): value for name, value in tensors.items() if name.startswith(_WEIGHTS)}
    )
    slots: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in numbers.items()}
    for name, value in tensors.items():
        if name.startswith(_OPTIMIZER):
            index, slot = name.removeprefix(_OPTIMIZER).split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})
    return step


def check_same_run(found: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """Refuse to go on with another run's state, and show in what it differs.

    Raises:
        TrainingError: the two differ.
    """
    if differing := differences(found, json.loads(json.dumps(wanted))):
        raise TrainingError(
            f"{path} belongs to another run ({differing}).",
            expected="an output folder of the same configuration, starting weights and data",
            remedy="Name another output folder, or delete this one.",
        )
