"""The log of a run: a row of JSON for each step and each evaluation, kept as they come."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import CheckpointError, TrainingError
from ..files import space_for, write_text

COLUMNS: dict[str, tuple[str, ...]] = {
    "step": ("step", "loss", "learning_rate", "images_per_second"),
    "evaluation": (
        "step",
        "condition",
        "top1_accuracy",
        "top1_low",
        "top1_high",
        "correct_probability",
        "correct_probability_low",
        "correct_probability_high",
        "n_images",
    ),
}
"""The columns that each kind of row has; a row may have further ones."""


class Log:
    """The rows of a run, in memory and, with a path, as lines of a file.

    A row is `{"kind": "step", "step": 7, "loss": ...}` or `{"kind": "evaluation", "step": 100, ...}`. The
    `step` of a step is how many were made before it, that of an evaluation how many were made: rows of one
    number speak of the same weights. A number that is not finite stands in the file as null.

    What the file holds already is read. A last line that was cut short, by a kill or a full disk, is left
    out, and the next row that is written takes its place.

    Args:
        path: the file, made with the first row; None keeps the rows in memory alone.
        writes: whether this process writes the file; where several keep one log, one of them does.

    Raises:
        CheckpointError: the file cannot be read, or a line before the last is damaged.

    Example:
        >>> log = Log(None)
        >>> log.write(*({"kind": "step", "step": step, "loss": 1.0} for step in range(3)))
        >>> log.cut(2)
        >>> [row["step"] for row in log.rows("step")]
        [0, 1]
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, writes: bool = True) -> None:
        self.path = None if path is None else Path(path)
        self._writes = writes and self.path is not None
        self._rows: list[dict[str, Any]] = []
        self._is_torn = False
        if self.path is not None and self.path.exists():
            self._rows, self._is_torn = _read(self.path)

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Add rows; the file has them when this returns.

        Args:
            *rows: each with its `kind`, "step" or "evaluation", and its `step`.

        Raises:
            TrainingError: a row lacks one of the two, or its kind is none.
            SpaceError: the disk is full. The rows before these are kept.
        """
        for row in rows:
            if row.get("kind") not in COLUMNS or not isinstance(row.get("step"), int):
                raise TrainingError(
                    f"A row of the log is {dict(row)!r}.",
                    expected='"kind": "step" or "evaluation", and "step": a whole number',
                    remedy="Give the row both.",
                )
        # As a reader of the file would have them, so that a resumed run's rows are those of an unbroken one.
        kept = [_plain(row) for row in rows]
        if self._writes and self.path is not None:
            if self._is_torn:
                self._rewrite([*self._rows, *kept])
            else:
                self._append(self.path, kept)
        self._rows += kept

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """The rows of one kind, in the order of their steps.

        An evaluation that was written twice, since a run was killed in between and made it again, counts
        once.

        Args:
            kind: "step" or "evaluation".

        Returns:
            The rows without their `kind`; null as NaN.
        """
        found = {
            (row["step"], row.get("condition")): {
                name: math.nan if value is None else value for name, value in row.items() if name != "kind"
            }
            for row in self._rows
            if row["kind"] == kind
        }
        return sorted(found.values(), key=lambda row: int(row["step"]))

    def frame(self, kind: str) -> pd.DataFrame:
        """The rows of one kind as a table, which has its usual columns also without a row."""
        found = self.rows(kind)
        return pd.DataFrame(found) if found else pd.DataFrame(columns=list(COLUMNS[kind]))

    def best_step(self) -> int | None:
        """After how many steps the accuracy was best, as the mean over conditions; the first of equals.

        Returns:
            The steps made, the start left out; None where nothing has been evaluated since.
        """
        found: dict[int, list[float]] = {}
        for row in self.rows("evaluation"):
            found.setdefault(row["step"], []).append(row["top1_accuracy"])
        means = {step: math.fsum(values) / len(values) for step, values in found.items() if step > 0}
        return max(means, key=lambda step: means[step], default=None)

    def evaluated(self, step: int, conditions: Iterable[str]) -> bool:
        """Whether the evaluation after `step` steps stands here, under all these conditions."""
        return set(conditions) <= {
            row["condition"] for row in self._rows if row["kind"] == "evaluation" and row["step"] == step
        }

    def cut(self, step: int) -> None:
        """Drop what came after `step` steps had been made: a run that goes on from there writes it anew.

        Of the steps, those numbered below `step` stay; of the evaluations, those up to and with `step`.

        Args:
            step: how many steps the state has from which the run goes on.

        Raises:
            SpaceError: the disk is full; the file is as it was.
        """
        kept = [row for row in self._rows if row["step"] < step + (row["kind"] == "evaluation")]
        if self._writes and (self._is_torn or len(kept) < len(self._rows)):
            self._rewrite(kept)
        self._rows = kept

    def sync(self) -> None:
        """Wait until the rows are on the disk itself: before a checkpoint that shall not be ahead of them.

        Raises:
            SpaceError: the disk is full.
        """
        if self._writes and self.path is not None and self.path.exists():
            with space_for(self.path), self.path.open("rb+") as file:
                os.fsync(file.fileno())

    def _append(self, path: Path, rows: list[dict[str, Any]]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Until all is written, the file may end in a part of a line.
        self._is_torn = True
        with space_for(path), path.open("a", encoding="utf-8") as file:
            file.write(_lines(rows))
        self._is_torn = False

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        assert self.path is not None
        write_text(self.path, _lines(rows))
        self._is_torn = False


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


def _is_row(row: Any) -> bool:
    """Whether this is what is drawn and compared later: numbers, and the condition of an evaluation."""
    columns = COLUMNS[row["kind"]]
    if not isinstance(row["step"], int) or isinstance(row["step"], bool):
        return False
    numbers = [row[name] for name in columns if name in row and name != "condition"]
    if row["kind"] == "evaluation" and not (_is_text(row["condition"]) and "top1_accuracy" in row):
        return False
    # Whole numbers beyond float's range are none that were written.
    return all(each is None or (isinstance(each, int | float) and abs(each) < 1e308) for each in numbers)


def _is_text(value: object) -> bool:
    try:
        # JSON can say half of a character, which no table holds.
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def _read(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The rows of a file, and whether it ends in a line that was cut short."""
    try:
        *whole, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise CheckpointError(
            f"The log {path} cannot be read ({error}).",
            expected="a file that this process may read",
            remedy="See to the file's permissions and its disk.",
        ) from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(whole, start=1):
        try:
            row = json.loads(line)
            if not _is_row(row):
                raise ValueError("it is no row of a log")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number == len(whole) and not rest:
                return rows, True
            raise CheckpointError(
                f"Line {number} of the log {path} is damaged ({type(error).__name__}: {error}).",
                expected="a row of JSON with its kind and its step",
                remedy="Delete the line; the curves then lack its step, and the weights are not affected.",
            ) from error
        rows.append(row)
    return rows, bool(rest)
