"""The summary as a LaTeX table for a paper."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..errors import ComparisonError
from ..files import as_path, write_text
from ..names import nearest
from .summary import COLUMNS
from .words import metric_words, p_words

_MARKS = {"changed": "*", "equivalent": "="}
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def to_latex(
    summary: pd.DataFrame,
    path: str | os.PathLike[str] | None = None,
    *,
    metrics: Sequence[str] | None = None,
    maps: bool = False,
    digits: int = 3,
    caption: str | None = None,
    label: str | None = None,
) -> str:
    r"""Write a summary as a table of LaTeX, for `\usepackage{booktabs}`.

    A row for each metric, condition and checkpoint: both values, the difference with its interval in
    brackets, and the adjusted p. A star marks what changed, an equals sign what is equivalent. The caption
    says how to read it: of how many images the table is, what the interval is, and the margins.

    Args:
        summary: from `comparison.summary()`.
        path: where to write it besides; made whole or not at all.
        metrics: the metrics to show, in this order; None takes all.
        maps: show the cells of maps over layers and heads as well, a row for each.
        digits: after the decimal point.
        caption: in place of the one described, as LaTeX.
        label: what `\ref` names the table by.

    Returns:
        The table, a `table` environment. Text in it is escaped; letters beyond ASCII are left as they are.

    Raises:
        ComparisonError: the summary lacks a column, has no row to show, or has no such metric.

    Example:
        >>> correct = [[[0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.2]], [[0.6, 0.8, 0.7, 0.8, 0.6, 0.5, 0.8]]]
        >>> import xarray as xr
        >>> from vitlens.comparison.summary import summarize
        >>> data = xr.Dataset(
        ...     {"correct_probability": (("checkpoint", "condition", "image"), correct)},
        ...     coords={"checkpoint": ["base", "tuned"], "condition": ["clean"]},
        ... )
        >>> print(to_latex(summarize(data)).splitlines()[7])
        Correct probability & clean & tuned & 0.171 & 0.686 & $+0.514^{*}$ & ...
    """
    if not isinstance(summary, pd.DataFrame):
        raise ComparisonError(
            f"The summary is a {type(summary).__name__}.",
            expected="a table of pandas",
            remedy="Pass comparison.summary().",
        )
    if not isinstance(digits, int) or not 0 <= digits <= 15:
        raise ComparisonError(
            f"digits is {digits!r}.", expected="a whole number from 0 to 15", remedy="Leave it out for 3."
        )
    if missing := [name for name in COLUMNS if name not in summary]:
        raise ComparisonError(
            f"The summary has no column {missing[0]!r}.",
            expected="what comparison.summary() gives",
            remedy="Leave its columns in place; choose rows instead.",
        )
    rows = summary if maps else summary[summary["layer"].isna() & summary["head"].isna()]
    if metrics is not None:
        rows = _chosen(rows, metrics)
    if rows.empty:
        raise ComparisonError(
            "The summary has no row to show.",
            expected="a row of a scalar metric, or maps=True for those over layers and heads",
            remedy="Give more rows of comparison.summary().",
        )
    is_of_one_n = rows["n"].nunique() == 1
    places = ["layer", "head"] if maps else []
    heads = ["Metric", "Condition", "Checkpoint", *(place.capitalize() for place in places)]
    level = f"{100 * float(summary.attrs.get('level', 0.95)):g}"
    heads += [_reference_head(rows), "Value", "Difference", rf"{level}\,\% interval", "$p$"]
    heads += [] if is_of_one_n else ["$n$"]
    n_text = 3
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(rows, level) if caption is None else caption}}}",
        *([rf"\label{{{label}}}"] if label is not None else []),
        rf"\begin{{tabular}}{{{'l' * n_text}{'r' * (len(heads) - n_text)}}}",
        r"\toprule",
        rf"{' & '.join(heads)} \\",
    ]
    for metric, some in rows.groupby("metric", sort=False):
        lines.append(r"\midrule")
        for place, row in enumerate(some.itertuples()):
            cells = [_escaped(metric_words(str(metric))) if place == 0 else "", _escaped(str(row.condition))]
            cells += [
                _escaped(str(row.checkpoint)),
                *("" if pd.isna(x := getattr(row, p)) else str(x) for p in places),
            ]
            cells += _numbers(row, digits)
            lines.append(rf"{' & '.join(cells if is_of_one_n else [*cells, str(row.n)])} \\")
    text = "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])
    if path is not None:
        write_text(as_path(path, "path", ComparisonError), text)
    return text


def _chosen(rows: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    if isinstance(metrics, str):
        raise ComparisonError(
            f"metrics is {metrics!r}.", expected="a list of names", remedy=f"Write [{metrics!r}]."
        )
    there = list(rows["metric"].drop_duplicates())
    strange = [metric for metric in metrics if metric not in there]
    if strange:
        raise ComparisonError(
            f"metrics names {strange[0]!r}, which the rows do not have.",
            expected=f"some of {', '.join(there) or 'none, for there is no row'}",
            remedy=f"Nearest: {nearest(strange[0], there)}." if there else "Give more rows.",
        )
    order = {metric: place for place, metric in enumerate(metrics)}
    return rows[rows["metric"].isin(order)].sort_values(
        "metric", key=lambda names: names.map(order), kind="stable"
    )


def _numbers(row: Any, digits: int) -> list[str]:
    mark = _MARKS.get(row.verdict)
    difference = _number(row.difference, digits, "+") + (f"^{{{mark}}}" if mark else "")
    has_interval = math.isfinite(row.ci_low) and math.isfinite(row.ci_high)
    interval = f"$[{_number(row.ci_low, digits, '+')}, {_number(row.ci_high, digits, '+')}]$"
    return [
        _number(row.value_reference, digits),
        _number(row.value, digits),
        "--" if math.isnan(row.difference) else f"${difference}$",
        interval if has_interval else "--",
        "--" if math.isnan(row.p_adjusted) else f"${p_words(row.p_adjusted)}$",
    ]


def _number(value: float, digits: int, sign: str = "-") -> str:
    return "--" if math.isnan(value) else f"{value:{sign}.{digits}f}"


def _reference_head(rows: pd.DataFrame) -> str:
    references = rows["reference"].drop_duplicates()
    return _escaped(references.iloc[0]) if len(references) == 1 else "Reference"


def _caption(rows: pd.DataFrame, level: str) -> str:
    """How to read the table."""
    least, most = rows["n"].min(), rows["n"].max()
    n = f"{least}" if least == most else f"{least} to {most}"
    reference = _reference_head(rows)
    alpha = f"{1 - float(level) / 100:.3g}".removeprefix("0")
    said = [
        f"Differences are checkpoint minus {reference}, paired over {n} images, with {level}\\,\\% intervals "
        "for one difference at a time (Tango's score interval for shares under one condition, a bootstrap "
        "over images, widened for skewness and rare changes, elsewhere). $p$: adjusted within its family; "
        "-- where not tested."
    ]
    verdicts = set(rows["verdict"])
    if "changed" in verdicts:
        said.append(f"$^{{*}}$ changed: adjusted $p < {alpha}$.")
    if "equivalent" in verdicts:
        within = rows[rows["margin"].notna()].drop_duplicates(["metric", "margin"])
        margins = ", ".join(
            f"{_escaped(metric_words(str(row.metric)))} $\\pm {row.margin:g}$" for row in within.itertuples()
        )
        said.append(f"$^{{=}}$ equivalent within the margin given beforehand ({margins}).")
    return " ".join(said)


def _escaped(text: str) -> str:
    """Text as LaTeX shows it; what breaks lines or has no glyph becomes a space."""
    kept = "".join(sign if sign.isprintable() else " " for sign in str(text))
    return "".join(_SPECIAL.get(sign, sign) for sign in kept)
