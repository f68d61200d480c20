"""The one-to-one assignment of greatest total weight on a sparse graph of candidates."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching


def assignment(
    rows: Int[np.ndarray, " edge"],
    columns: Int[np.ndarray, " edge"],
    weights: Float[np.ndarray, " edge"],
    n_rows: int,
    n_columns: int,
) -> Int[np.ndarray, " pair"]:
    """Choose edges, no two of which share a row or a column, so that their total weight is the greatest.

    A row or column may stay alone, which weighs 0: an edge is chosen only if its weight is above 0. The
    solver wants all rows matched, so each has a column of its own beside the real ones, and a full matching
    exists whatever the candidates are.

    Args:
        rows: of each candidate edge; no edge twice.
        columns: of each candidate edge.
        weights: of each candidate edge.
        n_rows: number of rows.
        n_columns: number of columns.

    Returns:
        Which edges are chosen: places in `rows` and `columns`, ascending by row.

    Source: Jonker and Volgenant (1987), "A shortest augmenting path algorithm for dense and sparse linear
    assignment problems", as scipy has it.

    Example:
        >>> rows, columns = np.array([0, 0, 1]), np.array([0, 1, 0])
        >>> assignment(rows, columns, np.array([0.9, 0.8, 0.7]), n_rows=2, n_columns=2)
        array([1, 2])
    """
    useful = np.flatnonzero(weights > 0)
    if not len(useful):
        return useful
    # To the solver a stored 0 is no edge: costs are kept above 0, being counted from above the best weight.
    alone = float(weights.max()) + 1
    own = np.arange(n_rows)
    costs = np.concatenate([alone - weights[useful].astype(np.float64), np.full(n_rows, alone)])
    at = (
        np.concatenate([rows[useful], own]).astype(np.int32),
        np.concatenate([columns[useful], n_columns + own]).astype(np.int32),
    )
    chosen_rows, chosen_columns = min_weight_full_bipartite_matching(
        coo_array((costs, at), shape=(n_rows, n_columns + n_rows)).tocsr()
    )
    partner = np.full(n_rows, -1)
    partner[chosen_rows] = chosen_columns
    chosen: Int[np.ndarray, " pair"] = useful[partner[rows[useful]] == columns[useful]]
    return chosen[np.argsort(rows[chosen])]
