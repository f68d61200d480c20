"""The section of tables: the summary's rows, sorted and filtered where scripts run, and as a file."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from .tables import VERDICTS, filters, summary_table
from .wording import Spoken

N_CELLS = 400
"""Rows over layers and heads that the page shows; all of them can be saved."""

_READ = (
    "<p>Each difference is checkpoint minus reference, paired over the same images. Intervals are for one "
    "difference at a time; p-values are adjusted for all tests of their family. <em>Changed</em>: the "
    "adjusted p is small enough. <em>Equivalent</em>: the difference lies within a margin given beforehand. "
    "<em>Undecided</em>: neither, or not tested. After a metric stands the unit of its difference.</p>\n"
)
_SAVE = '<p class="tools"><button type="button" class="save-summary" hidden>All rows (CSV)</button></p>\n'


def scalars_html(summary: pd.DataFrame, spoken: Spoken) -> str:
    """The rows that are no map over layers or heads, and how to read them; empty without any."""
    rows = summary[summary["layer"].isna() & summary["head"].isna()]
    if not len(rows):
        return ""
    return (
        _READ + _SAVE + _filtered("summary-table", "Summary table", rows, spoken, _level(summary), link=True)
    )


def cells_html(summary: pd.DataFrame, spoken: Spoken) -> str:
    """The rows over layers and heads, folded; of very many those that differ most surely."""
    rows = summary[summary["layer"].notna() | summary["head"].notna()]
    if not len(rows):
        return ""
    n = len(rows)
    if n > N_CELLS:
        size = rows["difference"].abs()
        order = pd.DataFrame({"p": rows["p_adjusted"], "size": -size}).sort_values(
            ["p", "size"], kind="stable"
        )
        rows = rows.loc[order.index[:N_CELLS]]
    said = f"{n:,} rows over layers and heads" + (
        f"; here the {N_CELLS:,} with the smallest adjusted p, and of these the largest difference first"
        if n > N_CELLS
        else ""
    )
    table = _filtered("cells-table", "Layers and heads", rows, spoken, _level(summary), link=False)
    return f"\n<details><summary>{said}</summary>\n{table}</details>"


def rows_json(summary: pd.DataFrame) -> str:
    """All rows by column, as JSON; numbers to six digits."""
    columns = {str(name): [_plain(value) for value in summary[name].tolist()] for name in summary}
    return json.dumps(columns, separators=(",", ":"))


def _filtered(
    element: str, label: str, rows: pd.DataFrame, spoken: Spoken, level: float, *, link: bool
) -> str:
    metrics = [spoken.words(name) for name in rows["metric"].drop_duplicates()]
    verdicts = [verdict for verdict in VERDICTS if (rows["verdict"] == verdict).any()]
    table = summary_table(rows, spoken, level, link=link)
    return (
        filters(element, metrics, verdicts, len(rows))
        + f'\n<div class="scroll tall" id="{element}" tabindex="0" role="region" aria-label="{label}">'
        f"{table}</div>\n"
    )


def _level(summary: pd.DataFrame) -> float:
    return float(summary.attrs.get("level", 0.95))


def _plain(value: object) -> object:
    if value is None or value is pd.NA:
        return None
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value if isinstance(value, (bool, int)) else str(value)
