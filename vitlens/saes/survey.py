"""What a training asks of its source beforehand, in one pass over the tokens."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from .passes import blocks
from .tokens import Tokens


@dataclass(frozen=True)
class Survey:
    """What one pass over tokens showed.

    Attributes:
        mean: of the activations, float64.
        mean_norm: mean of ‖x‖.
        sha256: of all rows in order, in their precision; None if it was not asked for.
    """

    mean: Float[Tensor, " d_in"]
    mean_norm: float
    sha256: str | None

    def fitted_scale(self) -> float:
        """The factor that brings the mean norm to sqrt(d_in)."""
        return math.sqrt(len(self.mean)) / self.mean_norm


def survey(tokens: Tokens, *, checksum: bool) -> Survey:
    """Read all tokens once.

    Args:
        tokens: finite rows.
        checksum: whether their SHA-256 is wanted.

    Raises:
        SAEError: all tokens have the same activation.

    Example:
        >>> from vitlens.saes.tokens import InMemory
        >>> survey(InMemory(torch.tensor([[3.0, 4.0], [0.0, 1.0]])), checksum=False).mean_norm
        3.0
    """
    digest = hashlib.sha256()
    total = torch.zeros(tokens.d_in, dtype=torch.float64, device=tokens.device)
    norms, first, varies = [], None, False
    for block in blocks(tokens):
        first = block[:1] if first is None else first
        varies = varies or bool((block != first).any())
        total += block.double().sum(dim=0)
        norms.append(float(block.double().norm(dim=1).sum()))
        if checksum:
            # Viewed as bytes, since numpy has no bfloat16.
            digest.update(block.cpu().contiguous().view(torch.uint8).numpy().data)
    if not varies:
        raise SAEError(
            f"All {tokens.n_tokens} tokens of the source have the same activation.",
            expected="activations that vary",
            remedy="Check that the hook depends on the image (a class token entering block 0 does not).",
        )
    return Survey(
        mean=total / tokens.n_tokens,
        mean_norm=math.fsum(norms) / tokens.n_tokens,
        sha256=digest.hexdigest() if checksum else None,
    )
