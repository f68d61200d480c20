"""The state of a run in one safetensors file: weights, average, optimizer, position; damage is noticed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, TrainingError
from ..files import check_version, differences, whole

FORMAT_VERSION = "1"

_OWN = ("vitlens_training", "step", "run", "n_parts", "parts", "crc32")
"""What the metadata say of the state itself."""


@dataclass(frozen=True)
class State:
    """Everything that the rest of a run depends on.

    Attributes:
        step: how many steps have been made; the position in the schedule and in the data.
        run: what identifies the run: configuration, starting weights, data.
        n_parts: in how many parts each step was made, over all processes.
        parts: name -> nested dicts, lists and tuples of tensors, numbers, strings and None: what
            `state_dict()` gave of the model, its average, the optimizer and the gradients' scale.
        model: what the metadata say besides, so that `vitlens.load` finds the model in the file.
    """

    step: int
    run: Mapping[str, Any]
    n_parts: int = 1
    parts: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, str] = field(default_factory=dict)


def write_state(path: Path, state: State) -> None:
    """Write a state, whole or not at all.

    Args:
        path: the file.
        state: what to write; tensors of any device.

    Raises:
        TrainingError: the optimizer keeps something that is no number, text or tensor.
        SpaceError: the disk is full.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "state.safetensors"
        >>> write_state(path, State(3, {"seed": 0}, 1, {"model": {"w": torch.arange(2.0)}}))
        >>> read_state(path).step, read_state(path).parts
        (3, {'model': {'w': tensor([0., 1.])}})
    """
    tensors: dict[str, Tensor] = {}
    structure = _packed(dict(state.parts), "", tensors)
    storages: set[int] = set()
    for name, tensor in tensors.items():
        # Weights that two modules share are written twice: a file has no views.
        if tensor.untyped_storage().data_ptr() in storages:
            tensors[name] = tensor.clone()
        storages.add(tensors[name].untyped_storage().data_ptr())
    metadata = {
        **state.model,
        "vitlens_training": FORMAT_VERSION,
        "step": str(state.step),
        "run": json.dumps(state.run, sort_keys=True),
        "n_parts": str(state.n_parts),
        "parts": json.dumps(structure),
    }
    metadata["crc32"] = str(_checksum(tensors, metadata))
    with whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_state(path: Path) -> State:
    """Read a state that `write_state` wrote, its tensors on the CPU.

    Raises:
        CheckpointError: the file is cut short, or anything in it has changed since.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            check_version(metadata.get("vitlens_training"), FORMAT_VERSION, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _checksum(tensors, metadata) != int(metadata["crc32"]):
            raise ValueError("its checksum is another")
        return State(
            int(metadata["step"]),
            json.loads(metadata["run"]),
            int(metadata["n_parts"]),
            _unpacked(json.loads(metadata["parts"]), tensors),
            {name: said for name, said in metadata.items() if name not in _OWN},
        )
    except CheckpointError:
        raise
    except Exception as error:  # readers raise whatever the damage leads to
        raise CheckpointError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}: {error}).",
            expected="a whole file that this run wrote",
            remedy="Delete it: the run then goes on from the checkpoint before it.",
        ) from error


def n_bytes(parts: Mapping[str, Any]) -> int:
    """How much space the tensors of a state take on disk."""
    tensors: dict[str, Tensor] = {}
    _packed(dict(parts), "", tensors, keep=lambda tensor: tensor)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _own(tensor: Tensor) -> Tensor:
    """On the CPU, and no part of a larger one."""
    kept = tensor.detach().cpu().contiguous()
    return kept if kept.untyped_storage().nbytes() == kept.nbytes else kept.clone()


def _packed(
    value: Any, place: str, tensors: dict[str, Tensor], keep: Callable[[Tensor], Tensor] = _own
) -> Any:
    """`value` as JSON in which each tensor is a name; the tensors go into `tensors` under those names."""
    if isinstance(value, Tensor):
        # A dot may be part of a key: two places can be spelt alike.
        name = place if place not in tensors else f"{place} {len(tensors)}"
        tensors[name] = keep(value)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {
            "dict": [
                [key, _packed(each, f"{place}.{key}".removeprefix("."), tensors, keep)]
                for key, each in value.items()
            ]
        }
    if isinstance(value, list | tuple):
        inside = [_packed(each, f"{place}.{index}", tensors, keep) for index, each in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": inside}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if value is None or isinstance(value, str | int | float):
        return {"value": value}
    raise TrainingError(
        f"The optimizer keeps a {type(value).__name__} at '{place}'.",
        expected="tensors, numbers and texts, which a checkpoint can hold",
        remedy="Choose another optimizer: a run with this one could not be resumed.",
    )


def _unpacked(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    ((kind, inside),) = packed.items()
    if kind == "tensor":
        return tensors[inside]
    if kind == "dict":
        return {key: _unpacked(each, tensors) for key, each in inside}
    if kind in ("list", "tuple"):
        values = [_unpacked(each, tensors) for each in inside]
        return values if kind == "list" else tuple(values)
    if kind == "dtype" and not isinstance(getattr(torch, inside), torch.dtype):
        raise ValueError(f"torch has no dtype '{inside}'")
    return getattr(torch, inside) if kind == "dtype" else inside


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> int:
    said = sorted(item for item in metadata.items() if item[0] != "crc32")
    crc = zlib.crc32(json.dumps(said).encode())
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


def check_same_run(found: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
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
