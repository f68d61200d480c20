"""Several processes of one run: who reads which images, and how the results come together."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist

from ..errors import AnalysisError

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
        try:
            dist.all_gather_object(said, (what, value), group=self.group)
        except RuntimeError as error:
            raise AnalysisError(
                f"A process of this run is gone ({str(error).splitlines()[0]}).",
                expected=f"{self.n_ranks} processes until the end",
                remedy="See why it ended, and start again; with output= what has been measured is kept.",
            ) from error
        elsewhere = next((rank for rank, (theirs, _) in enumerate(said) if theirs != what), None)
        if elsewhere is not None:
            raise AnalysisError(
                f"Process {elsewhere} of this run is at '{said[elsewhere][0]}', this one at '{what}'.",
                expected="processes that make the same calls",
                remedy="See that process's error, if it ended with one; let all processes call alike.",
            )
        return [value for _, value in said]

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
        if fault is not None:
            raise fault
        failed = next((rank for rank, words in enumerate(said) if words is not None), None)
        if failed is not None:
            raise AnalysisError(
                f"Process {failed} of this run failed while {what} ({said[failed]}).",
                expected=f"{self.n_ranks} processes until the end",
                remedy="Mend the cause and start again; with output= what has been measured is kept.",
            )


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
    group = dist.new_group(backend="gloo", timeout=_PATIENCE)
    shared = Ranks(dist.get_rank(), dist.get_world_size(), group)
    try:
        yield shared
    finally:
        # Who leaves first closes its connections: nobody may, before all have read what it said last.
        with contextlib.suppress(AnalysisError):
            shared.gather(None, "the end")
        dist.destroy_process_group(group)
