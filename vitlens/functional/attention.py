"""Figures of attention patterns.

Low entropy: the head looks at few tokens. High: it averages over many.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ShapeError


def attention_entropy(pattern: Float[Tensor, "*batch query key"]) -> Float[Tensor, "*batch query"]:
    """Shannon entropy of each query's attention, in nats.

    Args:
        pattern: weights after the softmax; each row sums to 1 over `key`.

    Returns:
        Values in [0, log(key)], float32; 0 log 0 counts as 0.

    Raises:
        ShapeError: `pattern` has fewer than two axes.

    Source: Shannon (1948), section 6.

    Example:
        >>> attention_entropy(torch.full((1, 4), 0.25)).exp()
        tensor([4.])
    """
    if pattern.ndim < 2:
        raise ShapeError(
            f"The pattern has shape {tuple(pattern.shape)}.",
            expected="[..., query, key]",
            remedy="Give hook_pattern as it was cached.",
        )
    entropy: Tensor = torch.special.entr(pattern.float()).sum(-1)
    return entropy
