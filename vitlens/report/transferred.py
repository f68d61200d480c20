"""The section on transfer: what was gained on conditions seen in training, and on others."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import pandas as pd

from ..comparison.words import metric_words, p_words
from .tables import head_cell, number_cell
from .wording import Numbers

_CONTRAST = "seen - unseen"
_READ = (
    "Gain: checkpoint minus reference, in the metric's unit. Gap: the reference's clean value minus its "
    "value under the corruption. Gap closed: the share of it that the gain has won back. It sees what the "
    "gain cannot: where a corruption hardly hurts, a small gain may be all there is to win. It has no "
    "interval where the gap itself is not told from 0."
)


def transfer_html(transfer: pd.DataFrame | None, units: Mapping[str, str]) -> str:
    """What transferred, said and as a table.

    Args:
        transfer: the rows of `vitlens.comparison.transfer.transfer`; None for none.
        units: unit of each metric, by its name.

    Returns:
        HTML; empty without rows.
    """
    if transfer is None or not len(transfer):
        return ""
    level = 100 * float(transfer.attrs.get("level", 0.95))
    interval = f"{level:g} % interval"
    heads = [head_cell(title) for title in ("metric", "condition", "checkpoint")]
    titles = ("gain", interval, "adjusted p", "gap", "gap closed", interval, "n")
    heads += [head_cell(title, is_number=True) for title in titles]
    rows = [{str(name): value for name, value in row.items()} for row in transfer.to_dict("records")]
    written = {str(row["metric"]): Numbers(units.get(str(row["metric"]), "")) for row in rows}
    said = "".join(
        f"<li>{_contrast(row, written[str(row['metric'])])}</li>"
        for row in rows
        if row["exposure"] == _CONTRAST
    )
    body = "".join(_row(row, written[str(row["metric"])]) for row in rows)
    return (
        (f"<ul>{said}</ul>\n" if said else "")
        + f'<p>{_READ}</p>\n<div class="scroll tall" tabindex="0" role="region" aria-label="Transfer">'
        f'<table class="sortable"><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _contrast(row: Mapping[str, Any], numbers: Numbers) -> str:
    """The difference of the gains, as a sentence."""
    is_seen = row["gain"] > 0
    by = " ".join(
        filter(
            None,
            (
                numbers.difference(abs(row["gain"])).lstrip("+"),
                numbers.difference_unit,
                f"(seen minus unseen {numbers.interval(row['ci_low'], row['ci_high'])},"
                f" adjusted p {p_words(row['p_adjusted'])})",
            ),
        )
    )
    more = "more" if is_seen else "less"
    words = (
        f"{metric_words(str(row['metric']))}: {row['checkpoint']} gained {by} {more} on seen than on unseen"
    )
    return html.escape(f"{words} conditions.")


def _row(row: Mapping[str, Any], numbers: Numbers) -> str:
    share = Numbers("share")
    closed = [row[name] for name in ("gap_closed", "gap_closed_ci_low", "gap_closed_ci_high")]
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
        f'<tr><th scope="row">{html.escape(metric_words(str(row["metric"])))}</th>'
        f"<td>{html.escape(str(row['condition']) + exposure)}</td>"
        f"<td>{html.escape(str(row['checkpoint']))}</td>"
        + "".join(number_cell(*cell) for cell in cells)
        + "</tr>"
    )
