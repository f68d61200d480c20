"""Figures of attention patterns: how spread out they are, and how far they reach.

Low entropy: the head looks at few tokens. High: it averages over many. A short distance: it looks at the
neighborhood of each patch. A long one: it looks across the image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ShapeError

# Weights looked at together, 4 MB in float32: temporaries stay in the processor's cache, and stay small
# beside the pattern.
_PIECE = 2**20

_NO_KEY = -1.0
"""Stands for the distance of a query that attends to no key: no distance is below 0."""


def attention_entropy(pattern: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch query"]:
    """Shannon entropy of each query's attention, in nats.

    Args:
        pattern: weights after the softmax; each row sums to 1 over `key`.

    Returns:
        Values in [0, log(key)], float32; 0 log 0 counts as 0.

    Raises:
        ShapeError: `pattern` has fewer than two axes.

    Source: Shannon (1948), "A mathematical theory of communication", section 6.

    Example:
        >>> attention_entropy(torch.full((1, 4), 0.25)).exp()
        tensor([4.])
    """
    tiny = torch.finfo(torch.float32).tiny

    def entropy(weights: Tensor) -> Tensor:
        # Three times as fast as torch.special.entr, which branches on each weight.
        return weights.clamp_min(tiny).log_().mul_(weights).sum(-1).neg_()

    return _by_query(entropy, pattern)


def attention_distance(
    pattern: Float[Tensor, "*batch query key"], distances: Float[Tensor, "query key"]
) -> Float[Tensor, "*batch"]:
    """Mean distance between a query and what it attends to, weighted by its attention.

    Args:
        pattern: weights of the patch queries on the patch keys, without prefix tokens. Rows need not sum to
            1: each is divided by its sum.
        distances: from each query to each key, such as `patch_distances`.

    Returns:
        The mean over queries, float32, in the unit of `distances`. A query that attends to no key at all is
        left out; NaN where that holds for all, or where a weight is no finite number.

    Raises:
        ShapeError: `pattern` has fewer than two axes.

    Source: Dosovitskiy et al. (2021), "An image is worth 16x16 words", appendix D.7; Raghu et al. (2021), "Do
    vision transformers see like convolutional neural networks?", section 4.

    Example:
        >>> attention_distance(torch.eye(4), patch_distances((2, 2)))
        tensor(0.)
    """
    if distances.shape != pattern.shape[-2:]:
        raise ShapeError(
            f"The distances have shape {tuple(distances.shape)}, the pattern {tuple(pattern.shape)}.",
            expected="[query, key] as the pattern's last two axes",
            remedy="Give patch_distances of the model's grid, and the pattern of the patches alone.",
        )
    distances = distances.to(pattern.device)

    def distance(weights: Tensor) -> Tensor:
        total = weights.sum(-1)
        # Only 0 / 0 is left out: a weight that overflowed may not vanish from the mean.
        return ((weights * distances).sum(-1) / total).where(total != 0, _NO_KEY)

    each = _by_query(distance, pattern)
    attends = each != _NO_KEY
    return each.where(attends, 0).sum(-1) / attends.sum(-1)


def patch_distances(
    grid: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)
) -> Float[Tensor, "patch patch"]:
    """Euclidean distances between the centers of patches.

    Args:
        grid: rows and columns of patches, read row by row.
        spacing: height and width of a patch: (1, 1) for distances in patches, its size for pixels.

    Returns:
        [patch patch], float32, on the CPU.

    Example:
        >>> patch_distances((1, 3), (16, 16))[0]
        tensor([ 0., 16., 32.])
    """
    rows, columns = (torch.arange(n) * float(step) for n, step in zip(grid, spacing, strict=True))
    row, column = torch.cartesian_prod(rows, columns).unbind(-1)
    return torch.hypot(row[:, None] - row, column[:, None] - column)


def _by_query(reduce: Callable[[Tensor], Tensor], pattern: Tensor) -> Tensor:
    """Reduce [... query key] over `key` in float32, some maps at a time."""
    if not isinstance(pattern, Tensor) or pattern.ndim < 2:
        found = f"of shape {tuple(pattern.shape)}" if isinstance(pattern, Tensor) else type(pattern).__name__
        raise ShapeError(
            f"The pattern is {found}.",
            expected="[..., query, key]",
            remedy="Give hook_pattern as it was cached.",
        )
    n_query, n_key = pattern.shape[-2:]
    maps = pattern.reshape(-1, n_query, n_key).split(max(1, _PIECE // (n_query * n_key)))
    return torch.cat([reduce(piece.float()) for piece in maps]).reshape(pattern.shape[:-1])
