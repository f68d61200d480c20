"""Figures of logits: rank of the correct class, entropy, and the layer at which an answer stands."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def class_rank(
    logits: Float[Tensor, "*batch n_classes"], labels: Int[Tensor, "*batch"]
) -> Int[Tensor, "*batch"]:
    """Rank of the correct class among all, 0 for the top.

    A tie goes to the class with the lower index, as in `argmax`: rank 0 means a correct prediction.

    Args:
        logits: one score a class.
        labels: index of the correct class.

    Returns:
        The number of classes placed before the correct one.

    Example:
        >>> class_rank(torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([2]))
        tensor([1])
    """
    correct = logits.gather(-1, labels.unsqueeze(-1))
    classes = torch.arange(logits.shape[-1], device=logits.device)
    ahead = (logits > correct) | ((logits == correct) & (classes < labels.unsqueeze(-1)))
    return ahead.sum(-1)


def entropy_nats(logits: Float[Tensor, "*batch n_classes"]) -> Float[Tensor, "*batch"]:
    """Shannon entropy of the distribution that logits stand for, in nats.

    Args:
        logits: one score a class.

    Returns:
        Values in [0, log(n_classes)], float32.

    Source: Shannon (1948), section 6.

    Example:
        >>> entropy_nats(torch.zeros(1, 8)).exp()
        tensor([8.0000])
    """
    entropy: Tensor = torch.special.entr(logits.float().softmax(-1)).sum(-1)
    return entropy


def first_correct_layer(correct: Bool[Tensor, "*batch resid_layer"]) -> Float[Tensor, "*batch"]:
    """The first place on the residual stream at which the lens is right.

    Args:
        correct: whether the lens predicts the correct class at each place.

    Returns:
        A `resid_layer`; NaN where it is never right.

    Example:
        >>> first_correct_layer(torch.tensor([[False, True, False], [False, False, False]]))
        tensor([1., nan])
    """
    first = correct.float().argmax(-1).float()
    return first.masked_fill(~correct.any(-1), torch.nan)


def last_change_layer(predicted: Int[Tensor, "*batch resid_layer"]) -> Float[Tensor, "*batch"]:
    """The place on the residual stream from which on the lens's prediction no longer changes.

    Args:
        predicted: the class that the lens predicts at each place.

    Returns:
        The first `resid_layer` from which on every prediction is the last one.

    Example:
        >>> last_change_layer(torch.tensor([[3, 7, 3, 3]]))
        tensor([2.])
    """
    settled = (predicted == predicted[..., -1:]).flip(-1).cumprod(-1).sum(-1)
    return (predicted.shape[-1] - settled).float()
