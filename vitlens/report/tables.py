"""HTML tables that a page can sort and filter: the summary's rows, any labelled table, and provenance."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from ..comparison.words import p_words
from .wording import MINUS, Spoken

_LONG = 32
"""Letters of a metric that stand in one line of a table."""

VERDICTS = ("changed", "equivalent", "undecided")


def row_id(label: Any) -> str:
    """The element of a summary's row, by the row's label."""
    return f"row-{label}"


def summary_table(summary: pd.DataFrame, spoken: Spoken, level: float, *, link: bool = True) -> str:
    """Rows of a summary as an HTML table; every cell says what to sort it by.

    Args:
        summary: rows, with `layer` and `head` shown where any row has them.
        spoken: names and units of the metrics.
        level: confidence level of the intervals.
        link: whether each row has an element that can be linked to.

    Returns:
        The table; empty without rows.
    """
    if not len(summary):
        return ""
    places = [name for name in ("layer", "head") if summary[name].notna().any()]
    has_effect = "effect_size" in summary and bool(summary["effect_size"].notna().any())
    titles = ["metric", *places, "condition", "checkpoint", "verdict"]
    numbers = ["reference", "value", "difference", f"{100 * level:g} % interval", "adjusted p"]
    numbers += ["effect size"] if has_effect else []
    has_margin = bool(summary["margin"].notna().any())
    numbers += ["margin"] if has_margin else []
    heads = [head_cell(title, is_number=title in places) for title in titles]
    heads += [head_cell(title, is_number=True) for title in numbers]
    heads.append(head_cell("n", is_number=True))
    rows = "".join(_row(row, spoken, places, (has_effect, has_margin), link) for row in _records(summary))
    return f'<table class="sortable"><thead><tr>{"".join(heads)}</tr></thead><tbody>{rows}</tbody></table>'


def _records(summary: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for label, row in zip(summary.index, summary.to_dict("records"), strict=True):
        yield {str(name): value for name, value in row.items()} | {"": label}


def _row(
    row: Mapping[str, Any], spoken: Spoken, places: Sequence[str], has: tuple[bool, bool], link: bool
) -> str:
    numbers = spoken.numbers(row["metric"])
    has_effect, has_margin = has
    verdict = html.escape(str(row["verdict"]))
    metric = spoken.words(row["metric"])
    cells = [metric_cell(metric, numbers.difference_unit.removeprefix("percentage "))]
    cells += [number_cell(row[name], "–" if pd.isna(row[name]) else str(row[name])) for name in places]
    cells += [f"<td>{html.escape(str(row[name]))}</td>" for name in ("condition", "checkpoint")]
    cells += [
        f'<td class="{verdict}" data-value="{_rank(verdict)}">{verdict}</td>',
        number_cell(row["value_reference"], numbers.value(row["value_reference"])),
        number_cell(row["value"], numbers.value(row["value"])),
        number_cell(row["difference"], numbers.difference(row["difference"])),
        number_cell(row["ci_low"], numbers.interval(row["ci_low"], row["ci_high"]) or "–"),
        number_cell(row["p_adjusted"], p_words(row["p_adjusted"])),
    ]
    if has_effect:
        cells.append(number_cell(row["effect_size"], _fixed(row["effect_size"])))
    if has_margin:
        said = "–" if pd.isna(row["margin"]) else f"±{numbers.difference(row['margin']).lstrip('+')}"
        cells.append(number_cell(row["margin"], said))
    place = f' id="{row_id(row[""])}"' if link else ""
    kept = f'data-metric="{html.escape(metric)}" data-verdict="{verdict}"'
    return f"<tr{place} {kept}>{''.join(cells)}{number_cell(row['n'], format(row['n'], ','))}</tr>"


def frame_table(rows: pd.DataFrame) -> str:
    """Any table as an HTML table that can be sorted: names with spaces, numbers short."""
    columns = list(rows)
    is_number = {name: pd.api.types.is_numeric_dtype(rows[name]) for name in columns}
    heads = [head_cell(str(name).replace("_", " "), is_number=is_number[name]) for name in columns]
    body = "".join(
        "<tr>" + "".join(_cell(value, is_number[name]) for name, value in row.items()) + "</tr>"
        for row in rows.to_dict("records")
    )
    return f'<table class="sortable"><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table>'


def filters(table: str, metrics: Sequence[str], verdicts: Sequence[str], n_rows: int) -> str:
    """The controls above a table: a search, and selectors of metric and verdict; shown where scripts run.

    Args:
        table: element that holds the table.
        metrics: as the table writes them.
        verdicts: that occur.
        n_rows: of the table.
    """

    def selector(name: str, labels: Sequence[str]) -> str:
        options = "".join(f"<option>{html.escape(label)}</option>" for label in labels)
        return (
            f'<label>{name.capitalize()} <select data-filter="{name}"><option value="">all</option>'
            f"{options}</select></label>"
        )

    return (
        f'<form class="filters" role="search" data-table="{table}" hidden>'
        f'<label>Search <input type="search" data-filter="text" placeholder="any word"></label> '
        f"{selector('metric', metrics)} {selector('verdict', verdicts)} "
        f'<output aria-live="polite">{n_rows:,} rows</output></form>'
    )


def plain_number(value: float, n_digits: int = 4) -> str:
    """A number in a table, with a true minus.

    Example:
        >>> plain_number(-0.123456), plain_number(float("nan")), plain_number(1234)
        ('−0.1235', '–', '1,234')
    """
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else f"{MINUS}∞"
    text = f"{value:,}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.{n_digits}g}"
    return text.removesuffix(".0").replace("-", MINUS)


def provenance_table(provenance: Mapping[str, Any]) -> str:
    """Anything that JSON can hold as a table of two columns, nested names joined by dots."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(" · ".join(path))}</th><td>{html.escape(value)}</td></tr>'
        for path, value in _leaves(provenance, ())
    )
    return f"<table><tbody>{rows}</tbody></table>" if rows else ""


def head_cell(title: str, *, is_number: bool = False) -> str:
    """The head of a column."""
    number = ' class="number"' if is_number else ""
    return f'<th scope="col"{number}>{html.escape(title)}</th>'


def metric_cell(metric: str, unit: str = "") -> str:
    """The cell that says a row's metric, plain text, and the unit of its difference; long words wrap."""
    long = ' class="long"' if len(metric) > _LONG else ""
    said = f'<span class="unit">, {html.escape(unit)}</span>' if unit else ""
    return f'<th scope="row"{long}>{html.escape(metric)}{said}</th>'


def number_cell(value: Any, text: str) -> str:
    """A cell that shows a text and is sorted by a number; what has no number stands last."""
    by = "" if pd.isna(value) else f"{float(value):.9g}"
    return f'<td class="number" data-value="{by}">{html.escape(text)}</td>'


def _cell(value: Any, is_number: bool) -> str:
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    if is_number:
        return number_cell(value, "–" if pd.isna(value) else plain_number(value))
    return f"<td>{html.escape('–' if value is None else str(value))}</td>"


def _fixed(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}".replace("-0.00", "0.00").replace("-", MINUS)


def _rank(verdict: str) -> int:
    return VERDICTS.index(verdict) if verdict in VERDICTS else len(VERDICTS)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif (
        isinstance(value, Sequence) and not isinstance(value, str) and any(_is_nested(part) for part in value)
    ):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(index)))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield path, ", ".join(str(part) for part in value) or "–"
    else:
        yield path, "–" if value is None or value == {} else str(value)


def _is_nested(value: Any) -> bool:
    return isinstance(value, (Mapping, list, tuple))
