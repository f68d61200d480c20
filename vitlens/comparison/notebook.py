"""A comparison as a notebook shows it: what was compared, how it ended, and the first rows of the summary."""

from __future__ import annotations

import html as markup

import pandas as pd
import xarray as xr

from ..names import some

_MOST_ROWS = 24
_SHOWN = (
    "metric",
    "condition",
    "checkpoint",
    "value_reference",
    "value",
    "difference",
    "ci_low",
    "ci_high",
    "p_adjusted",
    "verdict",
    "n",
)
_MORE = (
    "<code>summary()</code>: every row, with margins of your own; <code>figures()</code>; "
    '<code>report("report.html")</code>: all of it as a page; <code>save(...)</code>; <code>data</code>: the '
    "values of every image."
)


def subject(data: xr.Dataset, reference: str) -> str:
    """What was compared, in a line of plain text.

    Example:
        >>> coords = {"checkpoint": ["base", "tuned"], "condition": ["clean"], "image": ["a"]}
        >>> subject(xr.Dataset(coords=coords), "base")
        'tuned against base; 1 image; clean'
    """
    others = [str(name) for name in _names(data, "checkpoint") if str(name) != reference]
    n = data.sizes.get("image", 0)
    conditions = _names(data, "condition")
    listed = some("conditions", conditions, 6) if len(conditions) > 6 else conditions
    return f"{', '.join(others) or 'nothing'} against {reference}; {n} image{'' if n == 1 else 's'}; " + (
        ", ".join(listed) or "no condition"
    )


def html(data: xr.Dataset, reference: str, rows: pd.DataFrame) -> str:
    """What a notebook shows; every name in it is escaped.

    Args:
        data: a comparison's.
        reference: its reference.
        rows: the scalar rows of its summary.

    Returns:
        HTML without scripts or styles of the page's own.
    """
    tested = rows[rows["p_adjusted"].notna() | rows["margin"].notna()]
    counts = tested["verdict"].value_counts()
    ended = ", ".join(f"{n} {markup.escape(str(verdict))}" for verdict, n in counts.items())
    # What was tested comes first: a notebook shows no more than a part.
    ordered = rows.loc[[*tested.index, *rows.index.difference(tested.index, sort=False)]]
    table = ordered.head(_MOST_ROWS)[list(_SHOWN)].to_html(
        index=False, border=0, float_format="{:.3f}".format, na_rep="–", escape=True
    )
    left = len(rows) - _MOST_ROWS
    return (
        f"<div><strong>{markup.escape(subject(data, reference))}</strong>"
        f"<p>Of {len(tested)} tested differences: {ended or 'none'}.</p>{table}"
        + (f"<p>{left} more rows.</p>" if left > 0 else "")
        + f"<p>{_MORE}</p></div>"
    )


def _names(data: xr.Dataset, dim: str) -> list[str]:
    return [str(name) for name in data[dim].values] if dim in data.coords else []
