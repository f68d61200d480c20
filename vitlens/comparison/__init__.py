"""Comparing checkpoints: the same images, paired statistics."""

from .calibration import calibration_error
from .comparing import compare
from .comparison import Comparison
from .corruption_error import ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, mean_corruption_error
from .gap import gap_closed, patching_agreement
from .latex import to_latex
from .recipes import across_seeds
from .summary import summarize
from .transfer import transfer

__all__ = [
    "ALEXNET_CLEAN_ERROR",
    "ALEXNET_ERROR",
    "Comparison",
    "across_seeds",
    "calibration_error",
    "compare",
    "gap_closed",
    "mean_corruption_error",
    "patching_agreement",
    "summarize",
    "to_latex",
    "transfer",
]
