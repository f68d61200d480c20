"""How alike two codes of one image are: cosines, and overlaps of what is active."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

VARIABLES = {
    "code_cosine_token": ("cosine", "Cosine of the codes, mean over tokens"),
    "code_cosine_image": ("cosine", "Cosine of the image's mean codes"),
    "code_jaccard_token": ("share", "Overlap of the active features, mean over tokens"),
    "code_jaccard_image": ("share", "Overlap of the features active on the image"),
    "code_n_compared_tokens": ("tokens", "Tokens with an active feature on either side"),
}
"""What two codes of one image are compared by: name -> units and long name."""


def similarity_of_codes(
    a: Float[Tensor, "image token feature"], b: Float[Tensor, "image token feature"]
) -> Float[Tensor, "image 5"]:
    """The values of `code_similarity` for each image, in the order of `VARIABLES`.

    Args:
        a: codes.
        b: the codes to compare them with, feature by feature.

    Returns:
        float64; exactly 1 where the codes are equal.

    Example:
        >>> a, b = torch.tensor([[[3.0, 4.0], [0.0, 0.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 0.0]]])
        >>> similarity_of_codes(a, b).round(decimals=3).tolist()
        [[0.6, 0.6, 0.5, 0.5, 1.0]]
    """
    cosine, overlap = _cosine(a, b), _jaccard(a != 0, b != 0)
    n_compared = overlap.isfinite().sum(dim=1).double()
    mean_a, mean_b = (codes.mean(dim=1, dtype=torch.float64) for codes in (a, b))
    return torch.stack(
        [
            cosine.nanmean(dim=1),
            _cosine(mean_a, mean_b),
            overlap.nanmean(dim=1),
            _jaccard((a != 0).any(dim=1), (b != 0).any(dim=1)),
            n_compared,
        ],
        dim=1,
    )


def _cosine(a: Float[Tensor, "*rows feature"], b: Float[Tensor, "*rows feature"]) -> Float[Tensor, "*rows"]:
    """Cosine of codes: 0 where one of the two is empty, NaN where both are."""
    product, square_a, square_b = (
        (x * y).sum(dim=-1, dtype=torch.float64) for x, y in ((a, b), (a, a), (b, b))
    )
    # One root of the product: of equal codes it is their square exactly.
    norms = (square_a * square_b).sqrt()
    cosine = (product / norms).clamp(-1, 1).masked_fill(norms == 0, 0)
    return cosine.masked_fill((square_a == 0) & (square_b == 0), torch.nan)


def _jaccard(a: Bool[Tensor, "*rows feature"], b: Bool[Tensor, "*rows feature"]) -> Float[Tensor, "*rows"]:
    """Features in both sets as a share of those in either; NaN where both are empty."""
    return (a & b).sum(dim=-1).double() / (a | b).sum(dim=-1)
