"""The rows behind a figure: what it draws as a table, kept in the figure for whoever shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

KEY = "rows"
_DIGITS = 6


def keep(figure: go.Figure, rows: pd.DataFrame) -> go.Figure:
    """Keep the rows that a figure was drawn from in its `layout.meta["rows"]`, by column.

    Args:
        figure: the figure.
        rows: what it shows, a row for each mark; numbers are kept to six digits.

    Returns:
        The same figure.

    Example:
        >>> figure = keep(go.Figure(), pd.DataFrame({"condition": ["clean"], "value": [1 / 3]}))
        >>> figure.layout.meta["rows"]
        {'condition': ['clean'], 'value': [0.333333]}
    """
    columns = {str(name): [_plain(value) for value in rows[name].tolist()] for name in rows}
    return figure.update_layout(meta={**(figure.layout.meta or {}), KEY: columns})


def add(figure: go.Figure, rows: pd.DataFrame) -> go.Figure:
    """Keep these rows besides those that are kept already."""
    before = kept(figure)
    return keep(figure, rows if before is None else pd.concat([before, rows], ignore_index=True))


def kept(figure: go.Figure) -> pd.DataFrame | None:
    """The rows that a figure was drawn from; None if it keeps none."""
    meta = figure.layout.meta
    found = meta.get(KEY) if isinstance(meta, dict) else None
    return pd.DataFrame(found) if isinstance(found, Mapping) else None


def grid_rows(
    axes: Mapping[str, Sequence[Any]], values: Mapping[str, Float[np.ndarray, "*axes"]]
) -> pd.DataFrame:
    """Arrays over named axes as rows; a row without any number is left out.

    Args:
        axes: name -> labels, in the arrays' order.
        values: column -> array.

    Returns:
        A row for each cell.

    Example:
        >>> grid_rows({"condition": ["clean"], "layer": [0, 1]}, {"value": np.array([[0.5, np.nan]])})
          condition  layer  value
        0     clean      0    0.5
    """
    cells = pd.MultiIndex.from_product(list(axes.values()), names=list(axes))
    rows = cells.to_frame(index=False)
    for name, of_name in values.items():
        rows[name] = np.asarray(of_name, dtype=np.float64).ravel()
    return rows[rows[list(values)].notna().any(axis=1)].reset_index(drop=True)


def array_rows(values: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    """Labelled arrays of the same dims as rows, a column for each array."""
    first = next(iter(values.values()))
    axes = {str(dim): first[dim].values.tolist() for dim in first.dims}
    arrays = {name: array.transpose(*first.dims).values for name, array in values.items()}
    return grid_rows(axes, arrays)


def _plain(value: Any) -> Any:
    """A value as JSON has it; nothing for what is no number."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
    return None if value is None or value is pd.NA else value
