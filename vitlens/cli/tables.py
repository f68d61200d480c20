"""Figures with their intervals as tables on the terminal."""

from __future__ import annotations

from typing import Any

import pandas as pd


def cell(row: Any, digits: int = 3) -> str:
    """A figure and its interval; a dash where it is not defined.

    Args:
        row: with `value`, `ci_low` and `ci_high`, NaN where there is no interval.
        digits: after the point.

    Example:
        >>> cell(pd.Series({"value": 0.5, "ci_low": 0.25, "ci_high": 0.75}))
        '0.500 [0.250, 0.750]'
    """
    if pd.isna(row.value):
        return "-"
    value, low, high = (f"{each:.{digits}f}" for each in (row.value, row.ci_low, row.ci_high))
    return value if pd.isna(row.ci_low) else f"{value} [{low}, {high}]"


def crossed(table: pd.DataFrame, down: str, across: str) -> pd.DataFrame:
    """The column `cell` of a long table with one column down and one across, both in their order of coming.

    Example:
        >>> long = pd.DataFrame({"a": ["y", "y", "x"], "b": ["q", "p", "q"], "cell": ["1", "2", "3"]})
        >>> print(crossed(long, "a", "b"))
           q  p
        y  1  2
        x  3
    """
    wide = table.pivot(index=down, columns=across, values="cell")
    ordered = wide.loc[table[down].unique(), table[across].unique()]
    return ordered.rename_axis(index=None, columns=None).fillna("")
