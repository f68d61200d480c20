"""Passes over tokens, in batches with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from .tokens import Tokens, block_size


def blocks(tokens: Tokens) -> Iterator[Float[Tensor, "block d_in"]]:
    """The tokens in order, in their precision, `block_size` at a time."""
    return tokens.in_order(block_size(tokens.d_in))


def batches(
    tokens: Tokens, batch_size: int, what: str, progress: bool
) -> Iterator[Float[Tensor, "batch d_in"]]:
    """The tokens in order, in float32, `batch_size` at a time; a pass of over a second shows a bar `what`."""
    with tqdm(
        total=tokens.n_tokens, desc=what, unit="token", unit_scale=True, delay=1, leave=False,
        disable=not progress,
    ) as bar:  # fmt: skip
        for batch in tokens.in_order(batch_size):
            yield batch.float()
            bar.update(len(batch))


def mean_activation(tokens: Tokens) -> Float[Tensor, " d_in"]:
    """Mean over the tokens in float64.

    Example:
        >>> from vitlens.saes.tokens import InMemory
        >>> mean_activation(InMemory(torch.tensor([[0.0, 2.0], [1.0, 4.0]])))
        tensor([0.5000, 3.0000], dtype=torch.float64)
    """
    total = torch.zeros(tokens.d_in, dtype=torch.float64, device=tokens.device)
    for block in blocks(tokens):
        total += block.double().sum(dim=0)
    return total / tokens.n_tokens
