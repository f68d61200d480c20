"""Attention followed through all layers: from what is read at the end to the tokens that came in.

Both rollouts are products of one matrix a layer. What is wanted of them is a row or two, so the product is
taken from the last layer backward, a vector with a matrix at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ShapeError

HeadFusion: TypeAlias = Literal["mean", "max", "min"]
"""How the heads of a layer become one map."""


def fuse_heads(
    pattern: Float[Tensor, "*batch head query key"], fusion: HeadFusion = "mean"
) -> Float[Tensor, "*batch query key"]:
    """One map for all heads of a layer: each weight's mean, largest or smallest value.

    Args:
        pattern: weights after the softmax.
        fusion: `mean` as in the paper; with `max` and `min`, rows no longer sum to 1.

    Returns:
        The fused weights, float32.

    Raises:
        ShapeError: `fusion` is none of the three.

    Source: Abnar & Zuidema (2020), "Quantifying attention flow in transformers", section 3 (the mean).

    Example:
        >>> fuse_heads(torch.tensor([[[0.2, 0.8]], [[0.6, 0.4]]]), "min")
        tensor([[0.2000, 0.4000]])
    """
    if fusion == "mean":
        return pattern.mean(-3, dtype=torch.float32)
    if fusion not in ("max", "min"):
        raise ShapeError(
            f"fusion is {fusion!r}.", expected="'mean', 'max' or 'min'", remedy="Leave it out for the mean."
        )
    extreme = {"max": torch.amax, "min": torch.amin}[fusion]
    return extreme(pattern, -3).float()


def discard_smallest(
    fused: Float[Tensor, "*batch query key"], ratio: float, kept_keys: Sequence[int] = ()
) -> Float[Tensor, "*batch query key"]:
    """Set the smallest weights of each map to zero.

    Args:
        fused: one map an image.
        ratio: which share to discard of the weights outside `kept_keys`, in [0, 1); their number is
            rounded down. Among equal weights the choice is arbitrary.
        kept_keys: keys whose column is left whole.

    Returns:
        A new tensor; rows no longer sum to 1.

    Raises:
        ShapeError: `ratio` is outside [0, 1).

    Example:
        >>> discard_smallest(torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.3, 0.4]]), 0.5, kept_keys=[0])
        tensor([[0.1000, 0.0000, 0.7000],
                [0.3000, 0.0000, 0.4000]])
    """
    if not 0 <= ratio < 1:
        raise ShapeError(
            f"ratio is {ratio}.", expected="a share in [0, 1)", remedy="Write 0.9 for nine tenths."
        )
    ranked = fused.clone()
    ranked[..., list(kept_keys)] = torch.inf
    n_query, n_key = fused.shape[-2:]
    n_discarded = int(ratio * n_query * (n_key - len(kept_keys)))
    smallest = ranked.flatten(-2).topk(n_discarded, largest=False, sorted=False).indices
    return fused.flatten(-2).scatter(-1, smallest, 0.0).view_as(fused)


def attention_rollout(
    fused: Sequence[Float[Tensor, "*batch pos pos"]], readers: Float[Tensor, "reader pos"] | None = None
) -> Float[Tensor, "*batch reader pos"]:
    """How much of what is read at the end came from each token, if attention alone mixed the tokens.

    Each layer's matrix is 0.5 A + 0.5 I, for attention and the residual connection, its rows divided by
    their sum; the rollout is their product, the last layer's first.

    Args:
        fused: A of each layer, the first layer's first: one map for all heads, as from `fuse_heads`.
        readers: which mixtures of the final tokens are asked about: [1, 0, 0, ...] for the class token. None
            asks about every token: the whole matrix.

    Returns:
        Weights on the tokens that came in, float32; a row sums to what its reader sums to.

    Source: Abnar & Zuidema (2020), "Quantifying attention flow in transformers", section 3.

    Example:
        >>> attention_rollout([torch.full((2, 2), 0.5)])
        tensor([[0.7500, 0.2500],
                [0.2500, 0.7500]])
    """
    rolled = _readers(fused, readers)
    for attention in reversed(fused):
        # Rows of 0.5 A + 0.5 I, over their sums, without writing the matrix down.
        shared = rolled / (1 + attention.sum(-1, dtype=torch.float32)).unsqueeze(-2)
        rolled = shared + _product(shared, attention)
    return rolled


def attention_relevance(
    pattern: Float[Tensor, "*batch head query key"], gradient: Float[Tensor, "*batch head query key"]
) -> Float[Tensor, "*batch query key"]:
    """Attention weighted by its gradient, negative parts left out, the mean over heads.

    Args:
        pattern: weights after the softmax.
        gradient: of the class's logit with respect to them.

    Returns:
        Values of 0 or more, float32.

    Source: Chefer et al. (2021), "Generic attention-model explainability for interpreting bi-modal and
    encoder-decoder transformers": the average over heads by gradients.

    Example:
        >>> attention_relevance(torch.full((2, 1, 2), 0.5), torch.tensor([[[1.0, -1.0]], [[3.0, -1.0]]]))
        tensor([[1., 0.]])
    """
    return (pattern.float() * gradient.float()).clamp_min(0).mean(-3)


def gradient_rollout(
    relevances: Sequence[Float[Tensor, "*batch pos pos"]], readers: Float[Tensor, "reader pos"] | None = None
) -> Float[Tensor, "*batch reader pos"]:
    """How relevant each token that came in is to a class, through all layers: R - I.

    R starts as the identity, and each layer adds `relevance @ R`. The identity that it starts from is taken
    away again: it says of a token only that it is itself.

    Args:
        relevances: of each layer, the first layer's first, as from `attention_relevance`.
        readers: as in `attention_rollout`.

    Returns:
        Values of 0 or more (for readers that are), float32.

    Source: Chefer et al. (2021), "Generic attention-model explainability for interpreting bi-modal and
    encoder-decoder transformers": the rule for self-attention.

    Example:
        >>> gradient_rollout([torch.full((2, 2), 0.5), torch.eye(2)])
        tensor([[2., 1.],
                [1., 2.]])
    """
    start = rolled = _readers(relevances, readers)
    for relevance in reversed(relevances):
        rolled = rolled + _product(rolled, relevance)
    return rolled - start


def _readers(layers: Sequence[Tensor], readers: Tensor | None) -> Tensor:
    if not len(layers):
        raise ShapeError(
            "There is no layer.", expected="one map or more", remedy="Give the map of each layer, in order."
        )
    last = layers[-1]
    return torch.eye(last.shape[-1], device=last.device) if readers is None else readers.to(last.device)


def _product(left: Tensor, right: Tensor) -> Tensor:
    # Where the model runs in mixed precision, this product shall not.
    with torch.autocast(left.device.type, enabled=False):
        return left @ right.float()
