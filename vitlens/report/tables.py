"""HTML tables: the summary's scalar rows, and provenance."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from .wording import Numbers, metric_words, p_words


def scalar_table(summary: pd.DataFrame, units: Mapping[str, str], level: float) -> str:
    """The rows of a summary that are no map over layers or heads, as an HTML table.

    Args:
        summary: the rows of a comparison's summary.
        units: unit of each metric, by its name.
        level: confidence level of the intervals.

    Returns:
        The table, one body for each metric; empty without such rows.
    """
    rows = summary[summary["layer"].isna() & summary["head"].isna()]
    if not len(rows):
        return ""
    bodies = []
    for metric, of_metric in rows.groupby("metric", sort=False):
        numbers = Numbers(units.get(str(metric), ""))
        unit = f"difference in {numbers.difference_unit}" if numbers.difference_unit else ""
        head = f'<tr><th colspan="9" scope="rowgroup">{html.escape(metric_words(str(metric)))}' + (
            f' <span class="unit">{html.escape(unit)}</span></th></tr>' if unit else "</th></tr>"
        )
        bodies.append(
            "<tbody>" + head + "".join(_row(row, numbers) for row in of_metric.itertuples()) + "</tbody>"
        )
    titles = (
        "condition",
        "checkpoint",
        "reference value",
        "value",
        "difference",
        f"{100 * level:g} % interval",
        "adjusted p",
        "verdict",
        "n",
    )
    heads = "".join(f'<th scope="col">{title}</th>' for title in titles)
    return f"<table><thead><tr>{heads}</tr></thead>{''.join(bodies)}</table>"


def _row(row: Any, numbers: Numbers) -> str:
    verdict = html.escape(str(row.verdict))
    margin = "" if pd.isna(row.margin) else f" (margin ±{numbers.difference(row.margin).lstrip('+')})"
    cells = (
        numbers.value(row.value_reference),
        numbers.value(row.value),
        numbers.difference(row.difference),
        numbers.interval(row.ci_low, row.ci_high) or "–",
        p_words(row.p_adjusted),
    )
    return (
        f"<tr><td>{html.escape(str(row.condition))}</td><td>{html.escape(str(row.checkpoint))}</td>"
        + "".join(f'<td class="number">{html.escape(cell)}</td>' for cell in cells)
        + f'<td class="{verdict}">{verdict}{margin}</td><td class="number">{row.n:,}</td></tr>'
    )


def provenance_table(provenance: Mapping[str, Any]) -> str:
    """Anything that JSON can hold as a table of two columns, nested names joined by dots."""
    rows = "".join(
        f'<tr><th scope="row">{html.escape(" · ".join(path))}</th><td>{html.escape(value)}</td></tr>'
        for path, value in _leaves(provenance, ())
    )
    return f"<table><tbody>{rows}</tbody></table>" if rows else ""


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
