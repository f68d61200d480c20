"""Nearest neighbors in both directions and candidates for an assignment, from a matrix that is never held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

N_BLOCK_FEATURES = 1024
"""Rows of the matrix of similarities that exist at a time."""

Blocks = Callable[[slice], Tensor]
"""Gives rows of the matrix of similarities, [rows b]; −inf says that two can not be compared."""


@dataclass(frozen=True, eq=False)
class Neighbors:
    """What is kept of a matrix of similarities [a b].

    Attributes:
        nearest_a: each row's nearest column, the lowest of equals; -1 where it can not be compared with any.
        similarity_a: and how near; NaN there.
        nearest_b: each column's nearest row.
        similarity_b: and how near.
        rows: rows of the candidate edges: each row with its nearest columns, each column with its nearest
            rows; no edge twice.
        columns: columns of the candidate edges.
        similarities: of the candidate edges.
    """

    nearest_a: Int[np.ndarray, " a"]
    similarity_a: Float[np.ndarray, " a"]
    nearest_b: Int[np.ndarray, " b"]
    similarity_b: Float[np.ndarray, " b"]
    rows: Int[np.ndarray, " edge"]
    columns: Int[np.ndarray, " edge"]
    similarities: Float[np.ndarray, " edge"]


def neighbors(
    blocks: Blocks, n_a: int, n_b: int, *, n_candidates: int = 0, progress: bool = False
) -> Neighbors:
    """Read a matrix of similarities once, some rows at a time.

    Args:
        blocks: gives the rows of a slice, float [rows b].
        n_a: number of rows.
        n_b: number of columns.
        n_candidates: nearest columns of each row, and nearest rows of each column, that become candidates.
        progress: show a bar if it takes more than a second.

    Example:
        >>> cosines = torch.tensor([[0.9, 0.1], [0.8, 0.7]])
        >>> found = neighbors(cosines.__getitem__, 2, 2, n_candidates=1)
        >>> found.nearest_a.tolist(), found.nearest_b.tolist(), found.rows.tolist(), found.columns.tolist()
        ([0, 0], [0, 1], [0, 1, 1], [0, 0, 1])
    """
    in_a, in_b = _Best(n_a), _Best(n_b)
    edges = [np.empty((3, 0))]
    top_b: tuple[Tensor, Tensor] | None = None
    starts = range(0, n_a, N_BLOCK_FEATURES) if n_b else ()
    for start in tqdm(
        starts, desc="Comparing features", unit="block", delay=1, leave=False, disable=not progress
    ):
        block = blocks(slice(start, start + N_BLOCK_FEATURES))
        in_a.update(slice(start, start + len(block)), *block.max(dim=1))
        highest, row = block.max(dim=0)
        in_b.update(slice(None), highest, row + start)
        if n_candidates:
            values, columns = block.topk(min(n_candidates, n_b), dim=1, sorted=False)
            rows = torch.arange(start, start + len(block), device=block.device)[:, None].expand_as(columns)
            edges.append(_edges(rows, columns, values))
            values, rows = block.topk(min(n_candidates, len(block)), dim=0, sorted=False)
            top_b = _merged(top_b, (values, rows + start), n_candidates)
    if top_b is not None:
        values, rows = top_b
        edges.append(_edges(rows, torch.arange(n_b, device=rows.device).expand_as(rows), values))
    rows, columns, similarities = np.concatenate(edges, axis=1)
    rows, columns = rows.astype(np.int64), columns.astype(np.int64)
    once = np.unique(rows * n_b + columns, return_index=True)[1]
    return Neighbors(*in_a.arrays(), *in_b.arrays(), rows[once], columns[once], similarities[once])


class _Best:
    """The greatest similarity seen of each, and where."""

    def __init__(self, n: int) -> None:
        self._similarity = torch.full((n,), -torch.inf, dtype=torch.float64)
        self._at = torch.full((n,), -1)

    def update(self, which: slice, similarity: Float[Tensor, " _"], at: Int[Tensor, " _"]) -> None:
        similarity, at = similarity.double().cpu(), at.cpu()
        closer = similarity > self._similarity[which]
        self._similarity[which][closer] = similarity[closer]
        self._at[which][closer] = at[closer]

    def arrays(self) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        similarity = torch.where(self._at < 0, torch.nan, self._similarity).clamp(-1, 1)
        return self._at.numpy(), similarity.numpy()


def _edges(rows: Tensor, columns: Tensor, values: Tensor) -> Float[np.ndarray, "3 edge"]:
    stacked = torch.stack([each.double().flatten() for each in (rows, columns, values)])
    return stacked[:, stacked[2].isfinite()].cpu().numpy()


def _merged(
    known: tuple[Tensor, Tensor] | None, more: tuple[Tensor, Tensor], n_candidates: int
) -> tuple[Tensor, Tensor]:
    """The top of each column of both."""
    if known is None:
        return more
    values, rows = (torch.cat(each) for each in zip(known, more, strict=True))
    values, places = values.topk(min(n_candidates, len(values)), dim=0, sorted=False)
    return values, rows.gather(0, places)
