"""The summary in words: what changed, what did not, and what is undecided, the tested metrics first."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from .tables import VERDICTS, row_id
from .wording import Numbers, Spoken, joined

N_SAID = 3
"""Conditions that a sentence names; the others stand folded beside it."""

_HEADINGS = {
    "changed": "What changed",
    "equivalent": "What did not change",
    "undecided": "What is undecided",
}
_NOTES = {
    "changed": "No tested difference is significant.",
    "no_margin": "Nothing can be called unchanged: no margin was given beforehand.",
    "equivalent": "Nothing lies within the margin that was given.",
    "undecided": "Neither a change nor its absence was shown; this is not the same as unchanged.",
    "apart": "An interval is that of one difference by itself: it can leave out 0 where the p, which is "
    "adjusted for all tests of its family, is not small enough.",
}


@dataclass(frozen=True)
class Links:
    """Where the words lead.

    Attributes:
        figure: element of the figure that shows a metric; None where there is none.
        rows: labels of the rows that the page's table holds.
    """

    figure: Callable[[str], str | None]
    rows: frozenset[Any] = frozenset()


def findings_html(summary: pd.DataFrame, spoken: Spoken, links: Links, *, pools: Sequence[str] = ()) -> str:
    """Say what changed, what is equivalent and what is undecided, for each checkpoint.

    A metric is spoken of where it was tested: for a change (it has an adjusted p), or against a margin,
    however that ended. The others are exploratory: they are named, and their intervals left to the table. Of
    a metric's conditions the pools come first, then those that moved most; a few are said and the others
    folded.

    Args:
        summary: the rows of a comparison's summary.
        spoken: names and units of the metrics.
        links: to the figures and rows.
        pools: conditions that are several conditions together.

    Returns:
        HTML, a heading for each checkpoint; empty without rows.
    """
    parts = []
    for checkpoint in summary["checkpoint"].drop_duplicates():
        rows = summary[summary["checkpoint"] == checkpoint]
        is_scalar = rows["layer"].isna() & rows["head"].isna()
        scalar, maps = rows[is_scalar], rows[~is_scalar]
        decided = scalar[scalar["p_adjusted"].notna() | scalar["margin"].notna()]
        teller = _Teller(spoken, links, frozenset(pools))
        parts.append(
            f"<h3>{html.escape(str(checkpoint))} against {html.escape(str(rows['reference'].iloc[0]))}</h3>\n"
            + _tally(decided, maps)
            + "".join(teller.group(verdict, decided, maps) for verdict in VERDICTS)
            + _exploratory(scalar, decided, spoken)
        )
    return "\n".join(parts)


def _tally(decided: pd.DataFrame, maps: pd.DataFrame) -> str:
    """How many differences were tested, and how the tests ended; and of the maps, how many changed."""
    said = []
    n = len(decided)
    if n:
        count = decided["verdict"].value_counts()
        ends = " ".join(
            f'<span class="badge {verdict}">{int(count.get(verdict, 0))} {verdict}</span>'
            for verdict in VERDICTS
        )
        said.append(
            f'{ends} <span class="soft">of {n} tested difference{"" if n == 1 else "s"} '
            "(a metric under a condition)</span>"
        )
    if len(maps):
        changed = maps["verdict"].eq("changed").groupby([maps["metric"], maps["condition"]]).any()
        n = len(changed)
        said.append(
            f'<span class="soft">{"Besides, of" if said else "Of"} {n} map{"" if n == 1 else "s"} over '
            f"layers or heads (a metric under a condition), {int(changed.sum()) or 'none'} changed "
            "somewhere</span>"
        )
    if not said:
        return "<p>No difference was tested.</p>"
    return "".join(f'<p class="tally">{line}</p>\n' for line in said)


def _exploratory(scalar: pd.DataFrame, decided: pd.DataFrame, spoken: Spoken) -> str:
    rest = scalar["metric"][~scalar["metric"].isin(decided["metric"])].drop_duplicates()
    if not len(rest):
        return ""
    said = joined([html.escape(spoken.words(name)) for name in rest])
    return f'<p class="soft">Not tested (exploratory): {said}. Their intervals stand in the table.</p>\n'


@dataclass(frozen=True)
class _Teller:
    """Writes the findings of one checkpoint."""

    spoken: Spoken
    links: Links
    pools: frozenset[str]

    def group(self, verdict: str, decided: pd.DataFrame, maps: pd.DataFrame) -> str:
        """All findings of one verdict, under its heading."""
        here = decided[decided["verdict"] == verdict]
        here = here.loc[here["p_adjusted"].isna().sort_values(kind="stable").index]  # the tested ones first
        items = [self._scalar(metric, of_metric) for metric, of_metric in here.groupby("metric", sort=False)]
        mapped = maps[maps["metric"].isin(maps["metric"][maps["verdict"] == verdict])]
        if verdict != "undecided":
            items += [
                self._map(metric, rows, verdict) for metric, rows in mapped.groupby("metric", sort=False)
            ]
        else:
            # A map of which something changed is told there, with how many cells did not.
            quiet = mapped[~mapped["metric"].isin(maps["metric"][maps["verdict"] != verdict])]
            items += [
                self._map(metric, rows, verdict) for metric, rows in quiet.groupby("metric", sort=False)
            ]
        has_margin = decided["margin"].notna().any() or maps["margin"].notna().any()
        note = _NOTES[verdict]
        if verdict == "equivalent" and not has_margin:
            note = _NOTES["no_margin"]
        apart = (here["ci_low"] > 0) | (here["ci_high"] < 0)
        if verdict == "undecided" and (apart & here["p_adjusted"].notna()).any():
            note = f"{note} {_NOTES['apart']}"
        if not items and verdict == "undecided":
            return ""
        said = f"<ul>{''.join(items)}</ul>" if items else ""
        if not items or verdict == "undecided":
            said = f'<p class="soft">{note}</p>{said}'
        return f'<div class="finding {verdict}"><h4>{_HEADINGS[verdict]}</h4>{said}</div>\n'

    def _scalar(self, metric: Any, rows: pd.DataFrame) -> str:
        """One metric under some conditions of one verdict."""
        numbers = self.spoken.numbers(metric)
        verdict = rows["verdict"].iloc[0]
        if verdict == "changed":
            ways = [("rose", rows[rows["difference"] > 0]), ("fell", rows[rows["difference"] < 0])]
        else:
            ways = [("", rows)]
        said = [f"{word} under {self._conditions(some, numbers)}".strip() for word, some in ways if len(some)]
        joined = said[0]
        for way in said[1:]:  # what is folded ends its line: a semicolon after it would stand alone
            joined += f"<div>{way}</div>" if joined.endswith("</details>") else f"; {way}"
        return f"<li>{self._metric(metric)} {joined}</li>"

    def _conditions(self, rows: pd.DataFrame, numbers: Numbers) -> str:
        size = rows["difference"].abs()
        is_pool = rows["condition"].isin(self.pools)
        order = pd.DataFrame({"pool": ~is_pool, "size": -size}).sort_values(["pool", "size"], kind="stable")
        told = [self._condition(row, numbers) for row in _records(rows.loc[order.index])]
        first, rest = told[:N_SAID], told[N_SAID:]
        if len(rest) == 1:
            first, rest = told, []
        said = "; ".join(first)
        if rest:
            said += (
                f'; <details class="more"><summary>{len(rest)} more conditions</summary>'
                f"<p>{'; '.join(rest)}</p></details>"
            )
        return said

    def _condition(self, row: Mapping[str, Any], numbers: Numbers) -> str:
        name = html.escape(str(row["condition"]))
        if row[""] in self.links.rows:
            name = f'<a href="#{row_id(row[""])}">{name}</a>'
        return f"{name} ({html.escape(_change(row, numbers))})"

    def _map(self, metric: Any, rows: pd.DataFrame, verdict: str) -> str:
        """One metric over layers and heads: how many cells have a verdict, and the largest change."""
        numbers = self.spoken.numbers(metric)
        cell = "head" if rows["head"].notna().any() else "layer"
        counts = [
            (int((some["verdict"] == verdict).sum()), len(some), str(condition))
            for condition, some in rows.groupby("condition", sort=False)
        ]
        if verdict == "undecided":
            said = f"none of {counts[0][1]} {cell}s changed under any condition"
        else:
            (most, n_cells, where), least = max(counts), min(counts)[0]
            few = f"{most}" if least == most else f"{least or 'none'} to {most}"
            said = f"{few} of {n_cells} {cell}s"
            if len(counts) > 1:
                said += ", under every condition" if least == most else f", most under {html.escape(where)}"
            else:
                said += f" under {html.escape(where)}"
        mine = rows[rows["verdict"] == verdict]
        if verdict == "changed":
            row = next(iter(_records(mine.loc[[mine["difference"].abs().idxmax()]])))
            place = ", ".join(f"{axis} {row[axis]}" for axis in ("layer", "head") if pd.notna(row[axis]))
            said += html.escape(f"; largest: {place} under {row['condition']} ({_change(row, numbers)})")
        return f"<li>{self._metric(metric)}: {said}</li>"

    def _metric(self, metric: Any) -> str:
        words = f"<strong>{html.escape(self.spoken.words(metric))}</strong>"
        figure = self.links.figure(str(metric))
        return f'<a class="to-figure" href="#{figure}">{words}</a>' if figure else words


def _records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): value for name, value in row.items()} | {"": label}
        for label, row in zip(rows.index, rows.to_dict("records"), strict=True)
    ]


def _change(row: Mapping[str, Any], numbers: Numbers) -> str:
    """From what to what, by how much, how surely; and the margin, where one was given."""
    interval = numbers.interval(row["ci_low"], row["ci_high"])
    parts = [numbers.difference(row["difference"]), interval, numbers.difference_unit]
    by = " ".join(part for part in parts if part)
    said = f"{numbers.value(row['value_reference'])} to {numbers.value(row['value'])}: {by}"
    if pd.notna(row["margin"]) and row["verdict"] != "changed":
        where = "within" if row["verdict"] == "equivalent" else "not shown to lie within"
        said += f", {where} ±{numbers.difference(row['margin']).lstrip('+')}"
    return said
