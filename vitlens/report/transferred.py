"""The section on transfer: what was gained on conditions seen in training, and on others."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..comparison.words import p_words
from .tables import head_cell, metric_cell, number_cell
from .wording import Numbers, Spoken

_CONTRAST = "seen - unseen"
_GAINS = ("_accuracy", "correct_probability")
"""Ends of the metrics of which more is better: of others nothing is gained."""
_READ = (
    "Gain: checkpoint minus reference, in the metric's unit. Gap: the reference's clean value minus its "
    "value under the corruption. Gap closed: the share of it that the gain has won back. It sees what the "
    "gain cannot: where a corruption hardly hurts, a small gain may be all there is to win. It is left out "
    "where the gap itself is not told from 0: a share of nothing means nothing."
)


def transfer_html(transfer: pd.DataFrame | None, spoken: Spoken) -> str:
    """What transferred, said and as a table.

    Args:
        transfer: the rows of `vitlens.comparison.transfer.transfer`; None for none.
        spoken: names and units of the metrics.

    Returns:
        HTML; empty without rows.
    """
    if transfer is None or not len(transfer):
        return ""
    level = float(transfer.attrs.get("level", 0.95))
    interval = f"{100 * level:g} % interval"
    heads = [head_cell(title) for title in ("metric", "condition", "checkpoint")]
    titles = ("gain", interval, "adjusted p", "gap", "gap closed", interval, "n")
    heads += [head_cell(title, is_number=True) for title in titles]
    rows = [{str(name): value for name, value in row.items()} for row in transfer.to_dict("records")]
    said = "".join(
        f"<li>{html.escape(_contrast(row, spoken, 1 - level))}</li>"
        for row in rows
        if row["exposure"] == _CONTRAST
    )
    body = "".join(_row(row, spoken) for row in rows)
    return (
        (f"<ul>{said}</ul>\n" if said else "")
        + f'<p>{_READ}</p>\n<div class="scroll tall" tabindex="0" role="region" aria-label="Transfer">'
        f'<table class="sortable"><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _contrast(row: Mapping[str, Any], spoken: Spoken, alpha: float) -> str:
    """The difference of the gains, as a sentence; which way it goes only where that is significant."""
    numbers, metric, checkpoint = spoken.numbers(row["metric"]), str(row["metric"]), row["checkpoint"]
    is_gain = metric.endswith(_GAINS)
    unit = numbers.difference_unit
    interval = numbers.interval(row["ci_low"], row["ci_high"])
    by = " ".join(part for part in (numbers.difference(row["gain"]), interval, unit) if part)
    sure = f"seen minus unseen {by}, adjusted p {p_words(row['p_adjusted'])}"
    if not row["p_adjusted"] < alpha:
        more = "gained more" if is_gain else "moved further"
        return (
            f"{spoken.words(metric)}: undecided whether {checkpoint} {more} on seen or on unseen conditions "
            f"({sure})."
        )
    size = f"{numbers.difference(abs(row['gain'])).lstrip('+')} {unit}".strip()
    if is_gain:
        how = f"gained {size} {'more' if row['gain'] > 0 else 'less'}"
    else:
        how = f"moved {size} {'higher' if row['gain'] > 0 else 'lower'}"
    return f"{spoken.words(metric)}: {checkpoint} {how} on seen than on unseen conditions ({sure})."


def _row(row: Mapping[str, Any], spoken: Spoken) -> str:
    numbers, share = spoken.numbers(row["metric"]), Numbers("share")
    closed = [row[name] for name in ("gap_closed", "gap_closed_ci_low", "gap_closed_ci_high")]
    if pd.isna(closed[1]):
        closed[0] = math.nan
    exposure = f" ({row['exposure']})" if row["exposure"] not in (row["condition"], _CONTRAST) else ""
    cells = (
        (row["gain"], numbers.difference(row["gain"])),
        (row["ci_low"], numbers.interval(row["ci_low"], row["ci_high"]) or "–"),
        (row["p_adjusted"], p_words(row["p_adjusted"])),
        (row["gap"], numbers.difference(row["gap"])),
        (closed[0], share.value(closed[0])),
        (closed[1], share.interval(closed[1], closed[2]) or "–"),
        (row["n"], format(int(row["n"]), ",")),
    )
    return (
        f"<tr>{metric_cell(spoken.words(row['metric']))}"
        f"<td>{html.escape(str(row['condition']) + exposure)}</td>"
        f"<td>{html.escape(str(row['checkpoint']))}</td>"
        + "".join(number_cell(*cell) for cell in cells)
        + "</tr>"
    )
