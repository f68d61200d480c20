"""Comparing checkpoints: the same images, paired statistics."""

from .calibration import calibration_error
from .comparison import Comparison, compare
from .corruption_error import ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, mean_corruption_error
from .gap import gap_closed, patching_agreement
from .summary import summarize

__all__ = [
    "ALEXNET_CLEAN_ERROR",
    "ALEXNET_ERROR",
    "Comparison",
    "calibration_error",
    "compare",
    "gap_closed",
    "mean_corruption_error",
    "patching_agreement",
    "summarize",
]
