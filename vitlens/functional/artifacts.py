"""Artifact tokens: the few patches whose norm stands far out among those of their image."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor


def artifact_tokens(
    norms: Float[Tensor, "*batch patch"], norm_threshold: float | None = None, *, norm_ratio: float = 4.0
) -> Bool[Tensor, "*batch patch"]:
    """Which patches are artifacts: those of a norm above a threshold.

    Args:
        norms: of the patches' residual stream, at one place.
        norm_threshold: the threshold, the same for all images; best set in the gap between the two modes of
            the model's norms, if there are two. None takes `norm_ratio` times the image's own median.
        norm_ratio: how many times the median. An artifact has some ten times the norm of its neighbors.
            In a model without artifacts norms are skewed, but reach less than three medians: the default
            stands between. A multiple of their spread would call that skew artifacts.

    Returns:
        True for an artifact.

    Source: Darcet et al. (2024), "Vision transformers need registers", section 2.1, with a threshold set by
    hand. The median is ours: it follows the norm's growth along the layers, and does not feel artifacts while
    they are fewer than half of the patches (there, some 2 %).

    Example:
        >>> import torch
        >>> artifact_tokens(torch.tensor([9.0, 10.0, 11.0, 20.0, 100.0]))
        tensor([False, False, False, False,  True])
    """
    if norm_threshold is not None:
        return norms > norm_threshold
    return norms > norm_ratio * norms.median(-1, keepdim=True).values
