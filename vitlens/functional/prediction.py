"""Figures of logits: rank of the correct class, entropy, divergence, and where an answer first stands."""

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
        The number of classes placed before the correct one. Where the logits stand for no distribution (see
        `is_distribution`) it is `n_classes`, a rank that no class has.

    Example:
        >>> class_rank(torch.tensor([[0.1, 0.7, 0.2], [0.1, 0.7, torch.nan]]), torch.tensor([2, 1]))
        tensor([1, 3])
    """
    correct = logits.gather(-1, labels.unsqueeze(-1))
    classes = torch.arange(logits.shape[-1], device=logits.device)
    ahead = (logits > correct) | ((logits == correct) & (classes < labels.unsqueeze(-1)))
    # NaN has no class before it: without this, the model would be right wherever it says nothing.
    return ahead.sum(-1).masked_fill(~is_distribution(logits), logits.shape[-1])


def is_distribution(logits: Float[Tensor, "*batch n_classes"]) -> Bool[Tensor, "*batch"]:
    """Whether logits stand for a distribution over the classes.

    They do not where one is NaN or +inf, as after an overflow, or all are -inf: their softmax is NaN.

    Args:
        logits: one score a class.

    Returns:
        True where they do.

    Example:
        >>> is_distribution(torch.tensor([[0.0, -torch.inf], [0.0, torch.inf], [0.0, torch.nan]]))
        tensor([ True, False, False])
    """
    return logits.amax(-1).isfinite()


def entropy_nats(logits: Float[Tensor, "*batch n_classes"]) -> Float[Tensor, "*batch"]:
    """Shannon entropy of the distribution that logits stand for, in nats.

    Args:
        logits: one score a class.

    Returns:
        Values in [0, log(n_classes)], float32; NaN where the logits stand for no distribution.

    Source: Shannon (1948), "A mathematical theory of communication", section 6.

    Example:
        >>> entropy_nats(torch.zeros(1, 8)).exp()
        tensor([8.0000])
    """
    entropy: Tensor = torch.special.entr(logits.float().softmax(-1)).sum(-1)
    return entropy


def kl_nats(
    logits: Float[Tensor, "*batch n_classes"], other: Float[Tensor, "*batch n_classes"]
) -> Float[Tensor, "*batch"]:
    """Kullback-Leibler divergence of what other logits say from what logits say, KL(logits ‖ other), in nats.

    What is lost by believing `other` where `logits` is the truth; it is not symmetric.

    Args:
        logits: one score a class; the distribution over which the mean is taken.
        other: one score a class.

    Returns:
        Values of 0 or more up to rounding, float32; 0 where the two distributions are one.

    Source: Kullback and Leibler (1951), "On information and sufficiency".

    Example:
        >>> kl_nats(torch.tensor([0.0, -torch.inf]), torch.zeros(2)).exp()
        tensor(2.)
    """
    log_p, log_q = logits.float().log_softmax(-1), other.float().log_softmax(-1)
    p = log_p.exp()
    # A class that `logits` excludes adds nothing, whatever `other` says of it.
    divergence: Tensor = (p * (log_p - log_q)).masked_fill(p == 0, 0).sum(-1)
    return divergence


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
