"""The checkpoints of a run: the newest two and the best are kept, and a damaged one is passed over."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterable
from pathlib import Path

from ..errors import CheckpointError, SpaceError
from .state import State, n_bytes, read_state, write_state

_NAME = re.compile(r"step-(\d{6,})\.safetensors")
_N_NEWEST = 2


def step_name(step: int) -> str:
    """What is kept of a step is called so: `step-000100`."""
    return f"step-{step:06d}"


class Checkpoints:
    """The folder `checkpoints/` of a run.

    Args:
        folder: where they are; made with the first one.

    Example:
        >>> import tempfile
        >>> checkpoints = Checkpoints(Path(tempfile.mkdtemp()))
        >>> for step in (1, 2, 3, 4):
        ...     checkpoints.write(State(step, {}), best=1)
        >>> list(checkpoints.steps())
        [1, 3, 4]
        >>> checkpoints.newest().step
        4
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, whole or damaged, in their order."""
        if not self.folder.is_dir():
            return []
        names = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(matched[1]) for matched in names if matched)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.folder / f"{step_name(step)}.safetensors"

    def write(self, state: State, best: int | None = None) -> None:
        """Write a checkpoint, and remove those that need not be kept.

        Args:
            state: what to write.
            best: the step whose checkpoint is the best so far.

        Raises:
            SpaceError: the disk is full. All checkpoints before this one are as they were.
            TrainingError: the optimizer's state cannot be written.
        """
        path = self.path(state.step)
        try:
            write_state(path, state)
        except SpaceError as error:
            kept = [step for step in self.steps() if step != state.step]
            raise SpaceError(
                f"There is no space left for the checkpoint {path}: it needs "
                f"{_megabytes(n_bytes(state.parts))}, and {_megabytes(shutil.disk_usage(self.folder).free)} "
                "are free.",
                expected=f"space for {_N_NEWEST + 2} checkpoints at a time",
                remedy="Make room and make the call again; "
                + (f"the run goes on from step {kept[-1]}." if kept else "the run starts anew."),
            ) from error
        self.keep(best)

    def keep(self, best: int | None = None) -> None:
        """Remove all but the newest two and the best."""
        steps = self.steps()
        for step in steps[:-_N_NEWEST]:
            if step != best:
                self.path(step).unlink(missing_ok=True)

    def newest(self) -> State | None:
        """The newest checkpoint that is whole; None where there are none at all.

        One that is damaged is passed over with a warning, and renamed so that it no longer counts.

        Raises:
            CheckpointError: there are some, and all are damaged.
        """
        steps = self.steps()
        damaged: list[CheckpointError] = []
        for step in reversed(steps):
            try:
                state = read_state(self.path(step))
            except CheckpointError as error:
                damaged.append(error)
                continue
            self._set_aside(damaged, steps[len(steps) - len(damaged) :], state.step)
            return state
        if damaged:
            raise CheckpointError(
                f"None of the {len(damaged)} checkpoints in {self.folder} can be read. {damaged[0].given}",
                expected="at least one whole checkpoint",
                remedy="Restore one from a backup; or delete the folder to start the run anew.",
            ) from damaged[0]
        return None

    def _set_aside(self, damaged: Iterable[CheckpointError], steps: Iterable[int], resumed: int) -> None:
        for error in damaged:
            warnings.warn(
                f"{error.given} The run goes on from the checkpoint before it, of step {resumed}.",
                UserWarning,
                stacklevel=2,
            )
        for step in steps:
            path = self.path(step)
            path.replace(path.with_name(f"{path.name}.damaged"))


def _megabytes(n: int) -> str:
    return f"{n / 1e6:,.1f} MB"
