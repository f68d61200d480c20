"""Calibration: how far a model's confidence lies from how often it is right."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from ..errors import AnalysisError, ShapeError


def calibration_error(
    confidence: Float[Tensor, " image"], correct: Bool[Tensor, " answer"], n_bins: int = 15
) -> Float64[Tensor, ""]:
    """Expected calibration error: the mean distance of confidence from accuracy, over bins of confidence.

    Bins are of equal width, (0, 1/n_bins] the first; each counts by its images. Finite samples make it too
    large: of a perfectly calibrated model it falls only as one over the root of the number of images, and it
    grows with the number of bins. Compare it at equal numbers of images and bins alone.

    Args:
        confidence: probability of the predicted class.
        correct: whether the predicted class is the correct one, an answer for each image.
        n_bins: number of bins.

    Returns:
        A value in [0, 1]; NaN without an image.

    Raises:
        ShapeError: the two differ in length.
        AnalysisError: a confidence lies outside [0, 1], or there is no bin.

    Source: Guo et al. (2017), On calibration of modern neural networks, section 2.

    Example:
        >>> confidence, correct = torch.tensor([0.75, 0.75, 0.5]), torch.tensor([True, False, True])
        >>> calibration_error(confidence, correct)
        tensor(0.3333, dtype=torch.float64)
    """
    if confidence.shape != correct.shape:
        raise ShapeError(
            f"There are {len(confidence)} confidences and {len(correct)} answers.",
            expected="one of each for every image",
            remedy="Give both of the same images.",
        )
    gaps = correct.double() - confidence.double()
    sums = gaps.new_zeros(n_bins).index_add_(0, confidence_bin(confidence, n_bins), gaps)
    return sums.abs().sum() / len(gaps)


def confidence_bin(confidence: Float[Tensor, "*axes"], n_bins: int = 15) -> Int64[Tensor, "*axes"]:
    """The bin of equal width that each confidence falls in, its upper edge included.

    Args:
        confidence: probabilities; 0 belongs to the first bin.
        n_bins: number of bins.

    Returns:
        Values from 0 to `n_bins` - 1.

    Raises:
        AnalysisError: a confidence lies outside [0, 1], or there is no bin.

    Example:
        >>> confidence_bin(torch.tensor([0.0, 0.25, 0.26, 1.0]), 4)
        tensor([0, 0, 1, 3])
    """
    if n_bins < 1:
        raise AnalysisError(f"n_bins is {n_bins}.", expected="1 or more", remedy="15 is usual.")
    precise = confidence.double()
    # A softmax may pass 1 by its rounding.
    is_probability = (precise >= 0) & (precise <= 1 + 1e-5)
    if not is_probability.all():
        raise AnalysisError(
            f"A confidence is {precise[~is_probability][0].item():g}.",
            expected="probabilities in [0, 1]",
            remedy="Give the softmax of the logits, of the predicted class.",
        )
    inner_edges = torch.arange(1, n_bins, dtype=torch.float64, device=confidence.device) / n_bins
    return torch.bucketize(precise, inner_edges)
