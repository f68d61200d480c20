"""Several processes of one run: who reads which images, and how the results come together."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from ..claims import claimed
from ..errors import AnalysisError
from ..signals import ending_in_order

_PATIENCE = datetime.timedelta(hours=6)


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the run.

    Attributes:
        rank: its number.
        n_ranks: how many there are.
        group: torch's process group; None for a single process.
    """

    rank: int = 0
    n_ranks: int = 1
    group: Any = None
    _known_to_all: list[BaseException] = field(default_factory=list, repr=False)

    def has(self, part: int) -> bool:
        """Whether part number `part` of the data set is this process's share."""
        return part % self.n_ranks == self.rank

    def gather(self, value: Any, what: str) -> list[Any]:
        """Every process's `value`, in the order of ranks; waits for all.

        Args:
            value: anything that can be pickled.
            what: what is gathered; all have to be gathering the same.

        Raises:
            AnalysisError: a process is gone, or is somewhere else.
        """
        if self.n_ranks == 1:
            return [value]
        said: list[Any] = [None] * self.n_ranks
        with self.connected():
            dist.all_gather_object(said, (what, value), group=self.group)
        elsewhere = next((rank for rank, (theirs, _) in enumerate(said) if theirs != what), None)
        if elsewhere is not None:
            raise AnalysisError(
                f"Process {elsewhere} of this run is at '{said[elsewhere][0]}', this one at '{what}'.",
                expected="processes that make the same calls",
                remedy="See that process's error, if it ended with one; let all processes call alike.",
            )
        return [value for _, value in said]

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Say what has happened where another process is gone before it has answered.

        Raises:
            AnalysisError: it is.
        """
        try:
            yield
        except RuntimeError as error:
            raise AnalysisError(
                "A process of this run is gone: it was ended, or has met an error of its own.",
                expected=f"{self.n_ranks} processes until the end",
                remedy="See what it said last, mend it and start again; with output= what was done is kept.",
            ) from error

    @contextlib.contextmanager
    def together(self, what: str) -> Iterator[None]:
        """Wait for all at the end of the block; where one fails, all do, and nobody waits for it in vain.

        Raises:
            AnalysisError: another process failed or is gone.
        """
        fault: Exception | None = None
        try:
            yield
        except Exception as error:
            fault = error
        said = self.gather(None if fault is None else f"{type(fault).__name__}: {fault}", what)
        failed = next((rank for rank, words in enumerate(said) if words is not None), None)
        if failed is None:
            return
        if fault is None:
            fault = AnalysisError(
                f"Process {failed} of this run failed while {what} ({said[failed]}).",
                expected=f"{self.n_ranks} processes until the end",
                remedy="Mend the cause and start again; with output= what was done is kept.",
            )
        self._known_to_all.append(fault)
        raise fault

    @contextlib.contextmanager
    def claiming(self, folder: str | os.PathLike[str] | None) -> Iterator[None]:
        """Have an output folder to this run in the block; the first process holds it for all.

        Args:
            folder: the folder, of which the first process is asked; None claims nothing.

        Raises:
            BusyError: another run's process has it.
            AnalysisError: another process failed or is gone.
        """
        with contextlib.ExitStack() as held:
            with self.together("claiming the output folder"):
                held.enter_context(claimed(folder) if self.rank == 0 else ending_in_order())
            yield


@contextlib.contextmanager
def ranks() -> Iterator[Ranks]:
    """The processes that `torchrun` or `accelerate launch` started; a single one without them.

    The results travel between CPUs (gloo), whatever the models run on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and dist.is_available() and not dist.is_initialized():
        dist.init_process_group()
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        yield Ranks()
        return
    shared = Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=_PATIENCE))
    try:
        yield shared
    except BaseException as error:
        # Of an error that it has alone, the others learn by its leaving: waiting, it would wait for ever.
        if any(error is each for each in shared._known_to_all):
            _leave_last(shared)
        raise
    else:
        _leave_last(shared)
    finally:
        _destroy_group(shared)


def _destroy_group(shared: Ranks) -> None:
    """Close the connections, which in torch 2.6 could wait for ever.

    A group that Python frees joins its threads while it holds the interpreter's lock, and such a thread may
    be waiting for that lock, to free a tensor. Its backend, freed last and by itself, lets go of the lock.
    """
    backend = shared.group._get_backend(torch.device("cpu"))
    dist.destroy_process_group(shared.group)
    object.__setattr__(shared, "group", None)
    del backend


def _leave_last(shared: Ranks) -> None:
    """Who leaves first closes its connections: nobody may, before all have read what it said last."""
    with contextlib.suppress(AnalysisError):
        shared.gather(None, "the end")
