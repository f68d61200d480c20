"""The run's rows for tensorboard, wandb and the like, through accelerate, for those who have them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from accelerate.utils import LoggerType

from ..errors import TrainingError
from ..names import nearest

PROJECT = "vitlens"
"""What a tracker that is given by name alone calls the project."""


def check_trackers(log_with: Sequence[str | GeneralTracker], folder: Path | None) -> None:
    """Refuse what cannot be logged to, before the run. Nothing is started or contacted.

    Args:
        log_with: names that accelerate knows, such as "tensorboard" and "wandb", or accelerate's trackers
            themselves, made with options of one's own.
        folder: the run's output folder; some trackers keep files and need it.

    Raises:
        TrainingError: a name is unknown, its package is not installed, or it needs an output folder.

    Example:
        >>> check_trackers(["tensorbored"], None)
        Traceback (most recent call last):
        ...
        vitlens.errors.TrainingError: log_with has 'tensorbored'. ...
    """
    if isinstance(log_with, str | GeneralTracker) or not isinstance(log_with, Sequence):
        raise TrainingError(
            f"log_with is {log_with!r}{' by itself' if log_with is not None else ''}.",
            expected="a list or tuple of trackers",
            remedy='Write log_with=("tensorboard",), say.',
        )
    for each in log_with:
        if isinstance(each, GeneralTracker):
            continue
        if each not in LOGGER_TYPE_TO_CLASS:
            names = list(LOGGER_TYPE_TO_CLASS)
            raise TrainingError(
                f"log_with has {each!r}.",
                expected=f"one of {', '.join(map(repr, names))} (nearest: {nearest(str(each), names)}), "
                "or a tracker of accelerate",
                remedy="Correct the name; the log, the evaluations and the curves are written without any.",
            )
        if each in LoggerType.list() and each not in map(str, get_available_trackers()):
            raise TrainingError(
                f"log_with has '{each}', which is not installed.",
                expected="an installed package",
                remedy=f"Install it (pip install {each}), or leave the name out: the log, the evaluations "
                "and the curves are written without it.",
            )
        if LOGGER_TYPE_TO_CLASS[each].requires_logging_directory and folder is None:
            raise TrainingError(
                f"log_with has '{each}', which keeps files, and there is no output folder.",
                expected="an output folder",
                remedy='Name one with output="run/".',
            )


class Trackers:
    """Trackers of a run, which get its configuration once and its rows as they come.

    A tracker given by name calls the project "vitlens" and, if it has to be told where to keep its files, as
    tensorboard has, keeps them in the folder `trackers` of the run; others, such as wandb, choose a place
    themselves. Make it yourself to have it otherwise. One that fails during the run is left out
    from then on, with a warning: the run and its own log go on. A run that is resumed begins a new run of
    the tracker, which shows the steps from there on.

    Args:
        log_with: as in `check_trackers`.
        folder: the run's output folder.
        config: what the trackers shall show of the run; nested names are joined by dots.
        writes: whether this process is the one that logs; in the others nothing is started.

    Raises:
        TrainingError: as in `check_trackers`, or a tracker cannot be started.

    Example:
        >>> trackers = Trackers((), None, {"steps": 100})
        >>> trackers.write({"kind": "step", "step": 0, "loss": 2.3})
        >>> trackers.finish()
    """

    def __init__(
        self,
        log_with: Sequence[str | GeneralTracker],
        folder: Path | None,
        config: Mapping[str, Any],
        *,
        writes: bool = True,
    ) -> None:
        check_trackers(log_with, folder)
        self._trackers: list[GeneralTracker] = []
        for each in log_with if writes else ():
            try:
                PartialState()  # accelerate's own trackers ask it; a run has made it already
                tracker = each if isinstance(each, GeneralTracker) else _made(each, folder)
                tracker.start()
                tracker.store_init_configuration(dict(_flat(config)))
            except Exception as error:
                self.finish()
                raise TrainingError(
                    f"The tracker '{_name(each)}' cannot be started ({type(error).__name__}: {error}).",
                    expected="a tracker that starts",
                    remedy="See to its settings, or leave it out of log_with.",
                ) from error
            self._trackers.append(tracker)

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Hand rows over, as `Log.write` takes them.

        A step's numbers are called "train/loss" and so on, an evaluation's "evaluation/clean/top1_accuracy".
        What is no finite number is left out.
        """
        for row in rows:
            place = "train" if row["kind"] == "step" else f"evaluation/{row['condition']}"
            values = {
                f"{place}/{name}": value
                for name, value in row.items()
                if name != "step" and isinstance(value, int | float) and math.isfinite(value)
            }
            for tracker in list(self._trackers):
                self._try(tracker, "log", values, step=row["step"])

    def finish(self) -> None:
        """Close the trackers, at the end of the run or before an error leaves it."""
        for tracker in list(self._trackers):
            self._try(tracker, "finish")
        self._trackers = []

    def _try(self, tracker: GeneralTracker, what: str, *arguments: Any, **options: Any) -> None:
        try:
            getattr(tracker, what)(*arguments, **options)
        except Exception as error:
            self._trackers.remove(tracker)
            warnings.warn(
                f"The tracker '{_name(tracker)}' failed ({type(error).__name__}: {error}) and is left "
                "out from here on; the run goes on, and its own log has every row.",
                stacklevel=3,
            )


def _made(name: str, folder: Path | None) -> GeneralTracker:
    kind = LOGGER_TYPE_TO_CLASS[name]
    places = [str(folder / "trackers")] if kind.requires_logging_directory and folder is not None else []
    made = kind(PROJECT, *places)
    assert isinstance(made, GeneralTracker)
    return made


def _name(tracker: str | GeneralTracker) -> str:
    return str(tracker if isinstance(tracker, str) else getattr(tracker, "name", type(tracker).__name__))


def _flat(value: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, str | int | float]]:
    """Nested names joined by dots, and every value as all trackers take it."""
    for key, each in value.items():
        full = f"{name}.{key}" if name else str(key)
        if isinstance(each, Mapping):
            yield from _flat(each, full)
        else:
            yield full, each if isinstance(each, str | int | float) else str(each)
