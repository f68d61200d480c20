"""Passes over activations: in batches with a progress bar, or in blocks that are converted at a time."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

N_BLOCK_TOKENS = 65_536
"""Tokens that are converted to another precision at a time, so that a pass never copies all of them."""


def batches(
    activations: Float[Tensor, "token d_in"], batch_size: int, what: str, progress: bool
) -> Iterable[Tensor]:
    """The tokens in order, `batch_size` at a time; a pass of more than a second shows a bar named `what`."""
    bar: Iterable[Tensor] = tqdm(
        activations.split(batch_size), desc=what, unit="batch", delay=1, leave=False, disable=not progress
    )
    return bar


def blocks(activations: Float[Tensor, "token d_in"]) -> Iterable[Tensor]:
    """The tokens in order, `N_BLOCK_TOKENS` at a time."""
    parts: tuple[Tensor, ...] = activations.split(N_BLOCK_TOKENS)
    return parts


def mean_activation(activations: Float[Tensor, "token d_in"]) -> Float[Tensor, " d_in"]:
    """Mean over the tokens in float64.

    Example:
        >>> mean_activation(torch.tensor([[0.0, 2.0], [1.0, 4.0]]))
        tensor([0.5000, 3.0000], dtype=torch.float64)
    """
    total = torch.zeros(activations.shape[1], dtype=torch.float64, device=activations.device)
    for block in blocks(activations):
        total += block.double().sum(dim=0)
    return total / len(activations)
