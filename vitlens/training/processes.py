"""The processes that share a run: which device is this one's, and how their gradients become one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor

from ..errors import TrainingError
from ..files import differences
from ..running.ranks import Ranks, ranks

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """This process among those that share a fine-tuning run.

    Attributes:
        device: where this process computes.
        shared: its number, and how it talks with the others.
    """

    device: torch.device
    shared: Ranks

    @property
    def rank(self) -> int:
        """This process's number."""
        return self.shared.rank

    @property
    def n(self) -> int:
        """How many there are."""
        return self.shared.n_ranks

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def first(self, action: Callable[[], Value], what: str) -> Value | None:
        """Let the first process act while the others wait; where it fails, all do.

        Args:
            action: what to do.
            what: what that is, for errors.

        Returns:
            What `action` returned; None in the other processes.
        """
        value = None
        with self.shared.together(what):
            if self.is_first:
                value = action()
        return value

    def agree(self, run: Mapping[str, Any]) -> None:
        """Refuse to go on where processes were given different runs.

        Raises:
            TrainingError: they were.
        """
        said = self.shared.gather(run, "comparing what is to be run")
        other = next((rank for rank, theirs in enumerate(said) if theirs != said[0]), None)
        if other is not None:
            raise TrainingError(
                f"Process {other} was given another run than process 0 "
                f"({differences(said[0], said[other]).replace(' now', ' here')}).",
                expected="the same model, data and configuration in every process",
                remedy="Build all three alike in every process: from a file, or from a seed.",
            )

    @torch.no_grad()
    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, in place; nothing for a single one.

        All travel as one, in their order, so that the sum of three numbers or more is rounded alike in every
        step of every run. (Buckets that form themselves as gradients come in, as in
        DistributedDataParallel, change after the first step: a resumed run would differ in its last bits.)

        Raises:
            AnalysisError: a process is gone.
        """
        if self.n == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self.shared.connected():
            dist.all_reduce(flat, group=self.shared.group if flat.device.type == "cpu" else None)
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """The processes that `torchrun` or `accelerate launch` started; a single one without them.

    The device is the one that accelerate chooses; `ACCELERATE_USE_CPU=true` keeps to the CPU.

    Example:
        >>> with processes() as together:
        ...     together.n, together.is_first
        (1, True)
    """
    # The state without the Accelerator: that one holds the first precision it is given for all later runs.
    state = PartialState(cpu=_keeps_to_cpu())
    with ranks() as shared:
        yield Processes(state.device, shared)


def _keeps_to_cpu() -> bool:
    # accelerate makes a group of CPUs only where it is told to keep to them.
    others = (torch.cuda, torch.backends.mps, torch.xpu)
    return parse_flag_from_env("ACCELERATE_USE_CPU") or not any(each.is_available() for each in others)
