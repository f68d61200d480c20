"""Poisson numbers by inversion: one uniform number in, one count out, for many means at once.

Rejection, the usual way, draws as many numbers as it happens to need, and a rounding error in one mean would
change all that is drawn after it. Inversion draws one number per element and finds the smallest count whose
cumulative probability exceeds it. The plane of (mean, uniform number) is cut into cells: in most of them the
count is the same all over and is read from a table; only in the others is the probability computed.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Float64, Int, Int16
from torch import Tensor

_N_CELLS = 1024
"""Along either side of the plane: a power of two, so that no rounding decides which cell a number is in."""

_HALF_STEP = 2.0**-25
"""Uniform numbers in float32 are multiples of twice this; each stands for the middle of its step."""


_PORTION = 1 << 17
"""Elements that are looked up together on the CPU."""


class _Table(NamedTuple):
    """What is looked up for means from 0 to `most`.

    `smallest` and `largest` are the counts that occur in a cell. `cdf` holds the cumulative probabilities at
    the lower edge of each cell of means, after as many zeros, for counts below 0, as `n_terms` needs.
    """

    smallest: Int16[Tensor, " cell"]
    largest: Int16[Tensor, " cell"]
    cdf: Float64[Tensor, "mean count"]
    n_terms: int


def poisson_counts(
    shares: Float[Tensor, "*shape"], uniforms: Float32[Tensor, "*shape"], most: float
) -> Int16[Tensor, "*shape"]:
    """Poisson numbers of mean `most` times `shares`.

    Exact to the resolution of the uniform numbers. For one uniform number, a larger mean never gives a
    smaller count.

    Args:
        shares: in [0, 1].
        uniforms: in [0, 1), multiples of 2⁻²⁴.
        most: the mean at a share of 1. The table grows with it; it is meant for hundreds, not for thousands.

    Returns:
        Counts.

    Example:
        >>> uniforms = torch.arange(1000) / 1024
        >>> counts = poisson_counts(torch.full((1000,), 0.5), uniforms, most=2.0)
        >>> (counts == 0).sum().item()  # exp(-1) of 1024 is 376.7
        377
    """
    table = _table(float(most), shares.device)
    shape = shares.shape
    shares, uniforms = shares.flatten(), uniforms.flatten()
    counts = torch.empty(shares.shape, dtype=torch.int16, device=shares.device)
    highest = torch.empty_like(counts)
    # In portions that stay in the processor's cache; elsewhere, few large steps are faster.
    portion = _PORTION if shares.device.type == "cpu" else max(len(shares), 1)
    for part in (slice(start, start + portion) for start in range(0, len(shares), portion)):
        # Whole numbers below 2²⁴: floats are exact, and faster here than integers.
        cells = (shares[part] * _N_CELLS).floor_().mul_(_N_CELLS)
        cells = cells.add_((uniforms[part] * _N_CELLS).floor_()).int()
        torch.index_select(table.smallest, 0, cells, out=counts[part])
        torch.index_select(table.largest, 0, cells, out=highest[part])
    unsettled = (counts != highest).nonzero()[:, 0]
    counts[unsettled] = _settled(
        counts[unsettled].long(),
        highest[unsettled].long(),
        shares[unsettled].double(),
        uniforms[unsettled].double() + _HALF_STEP,
        most,
        table,
    ).short()
    return counts.view(shape)


def _settled(
    counts: Int[Tensor, " unsettled"],
    highest: Int[Tensor, " unsettled"],
    shares: Float64[Tensor, " unsettled"],
    uniforms: Float64[Tensor, " unsettled"],
    most: float,
    table: _Table,
) -> Int[Tensor, " unsettled"]:
    """Raise each count, as far as its highest, until its cumulative probability exceeds the uniform number.

    A Poisson number is the sum of two: one with the mean at the cell's lower edge, whose cumulative
    probabilities are in the table, and one with the small mean that is left, of which a few terms suffice.
    """
    rows = (shares * _N_CELLS).floor()
    left = (shares * _N_CELLS - rows) * (most / _N_CELLS)
    terms = [torch.exp(-left)]
    for j in range(1, table.n_terms):
        terms.append(terms[-1] * left / j)
    weights = torch.stack(terms)
    index = rows.long() * table.cdf.shape[1] + table.n_terms - 1 + counts
    cdf = table.cdf.flatten()
    todo = torch.arange(len(counts), device=counts.device)
    while len(todo):
        chance = torch.zeros_like(uniforms)
        for j, weight in enumerate(weights):
            chance.addcmul_(cdf.index_select(0, index - j), weight)
        raised = chance <= uniforms
        counts[todo] += raised
        more = (raised & (counts[todo] < highest[todo])).nonzero()[:, 0]
        todo, index, uniforms = todo[more], index[more] + 1, uniforms[more]
        weights = weights.index_select(1, more)
    return counts


@functools.lru_cache(maxsize=8)
def _table(most: float, device: torch.device) -> _Table:
    means = torch.arange(_N_CELLS + 2, dtype=torch.float64, device="cpu") * (most / _N_CELLS)
    n_counts = math.ceil(most + 9 * math.sqrt(most) + 30)
    counts = torch.arange(1, n_counts + 1, dtype=torch.float64, device="cpu")
    cdf = torch.special.gammaincc(counts, means[:, None])
    edges = torch.arange(_N_CELLS + 1, dtype=torch.float64, device="cpu") / _N_CELLS
    edges[-1] -= _HALF_STEP
    edges = edges.expand(len(means), -1).contiguous()
    smallest = torch.searchsorted(cdf, edges, right=True)[:-1, :-1]
    largest = torch.searchsorted(cdf, edges)[1:, 1:]
    # What the terms leave out lies far below the resolution of the uniform numbers.
    n_terms = next(
        n for n in range(1, n_counts) if (most / _N_CELLS) ** n / math.factorial(n) < _HALF_STEP * 2**-15
    )
    padded = torch.nn.functional.pad(cdf[:-1], (n_terms - 1, 0))
    smallest, largest = (bound.flatten().to(device, torch.int16) for bound in (smallest, largest))
    return _Table(smallest, largest, padded.to(device), n_terms)
