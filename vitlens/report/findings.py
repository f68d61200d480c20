"""The summary in words: sentences made from its rows, the tested metrics first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .charts.features import ROLE_WORDS, alikenesses
from .wording import Numbers, joined, metric_words

VERDICTS = ("changed", "equivalent", "undecided")


@dataclass(frozen=True)
class Findings:
    """What is said about one checkpoint; plain text throughout.

    Attributes:
        checkpoint: its name.
        lead: how many differences were tested, and how the tests ended.
        points: for each metric, its name and what became of it, a line for each outcome.
    """

    checkpoint: str
    lead: str
    points: Sequence[tuple[str, Sequence[str]]]


def findings(summary: pd.DataFrame, units: Mapping[str, str]) -> list[Findings]:
    """Say what changed, what is equivalent and what is undecided, for each checkpoint.

    A metric is spoken of where it was tested (it has an adjusted p) or found equivalent within a margin. The
    others are exploratory: they are named, and their intervals left to the table.

    Args:
        summary: the rows of a comparison's summary.
        units: unit of each metric, by its name.

    Returns:
        One entry for each checkpoint, in the summary's order.
    """
    told = []
    for checkpoint in summary["checkpoint"].drop_duplicates():
        rows = summary[summary["checkpoint"] == checkpoint]
        is_scalar = rows["layer"].isna() & rows["head"].isna()
        scalar, maps = rows[is_scalar], rows[~is_scalar]
        decided = scalar[scalar["p_adjusted"].notna() | (scalar["verdict"] != "undecided")]
        points = [
            (metric_words(str(metric)), say(of_metric, Numbers(units.get(str(metric), ""))))
            for some, say in ((decided, _scalar), (maps, _map))
            for metric, of_metric in some.groupby("metric", sort=False)
        ]
        rest = scalar["metric"][~scalar["metric"].isin(decided["metric"])].drop_duplicates()
        if len(rest):
            names = joined([metric_words(name) for name in rest])
            points.append(("Not tested (exploratory)", [f"{names}; their intervals stand in the table."]))
        told.append(Findings(str(checkpoint), _lead(decided), points))
    return told


def feature_lines(features: pd.DataFrame | None) -> list[str]:
    """Say how alike the features of each pair of checkpoints are, beside the yardsticks; plain text."""
    panels = alikenesses(features)
    several_hooks = len({panel.hook_name for panel in panels}) > 1
    said = []
    for panel in panels:
        pair = panel.curves["checkpoints"]
        means = [f"{pair['decoder_cosine'].mean():.3f}"] + [
            f"{words} {panel.curves[role]['decoder_cosine'].mean():.3f}"
            for role, words in ROLE_WORDS.items()
            if role in panel.curves
        ]
        place = f" at {panel.hook_name}" if several_hooks else ""
        said.append(
            f"{panel.words}{place}: {'; '.join(means)}. {pair['mutual'].mean():.0%} of "
            f"{len(pair):,} features "
            "are each other's nearest."
        )
    return said


def _lead(decided: pd.DataFrame) -> str:
    """How many differences were tested, and how the tests ended."""
    n = len(decided)
    if not n:
        return "No difference was tested."
    count = decided["verdict"].value_counts()
    ends = joined([f"{count[verdict]} {verdict}" for verdict in VERDICTS if verdict in count])
    return f"Of {n} tested difference{'' if n == 1 else 's'} (a metric under a condition): {ends}."


def _scalar(rows: pd.DataFrame, numbers: Numbers) -> list[str]:
    """One metric under every condition, a line for each outcome."""
    changed = rows["verdict"] == "changed"
    outcomes = (
        ("rose", rows[changed & (rows["difference"] > 0)]),
        ("fell", rows[changed & (rows["difference"] < 0)]),
        ("equivalent", rows[rows["verdict"] == "equivalent"]),
        ("undecided", rows[rows["verdict"] == "undecided"]),
    )
    return [
        f"{word} under "
        + "; ".join(f"{row.condition} ({_change(row, numbers)})" for row in some.itertuples())
        for word, some in outcomes
        if len(some)
    ]


def _map(rows: pd.DataFrame, numbers: Numbers) -> list[str]:
    """One metric over layers and heads: how many cells changed, by condition, and the largest change."""
    cell = "head" if rows["head"].notna().any() else "layer"
    counts = []
    for condition, some in rows.groupby("condition", sort=False):
        n = int((some["verdict"] == "changed").sum())
        counts.append(f"{n or 'none'} of {len(some)} {cell}s under {condition}")
    said = [f"changed in {joined(counts)}"]
    changed = rows[rows["verdict"] == "changed"]
    if len(changed):
        row: Any = changed.iloc[int(changed["difference"].abs().argmax())]
        place = ", ".join(f"{axis} {row[axis]}" for axis in ("layer", "head") if pd.notna(row[axis]))
        said.append(f"largest change: {place} under {row['condition']} ({_change(row, numbers)})")
    return said


def _change(row: Any, numbers: Numbers) -> str:
    """From what to what, by how much, how surely; and the margin, where one was given."""
    interval = numbers.interval(row.ci_low, row.ci_high)
    parts = [numbers.difference(row.difference), interval, numbers.difference_unit]
    by = " ".join(part for part in parts if part)
    said = f"{numbers.value(row.value_reference)} to {numbers.value(row.value)}: {by}"
    if row.verdict == "equivalent":
        said += f", within ±{numbers.difference(row.margin).lstrip('+')}"
    return said
