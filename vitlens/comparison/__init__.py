"""Comparing checkpoints: the same images, paired statistics."""

from .comparison import Comparison, compare
from .gap import gap_closed, patching_agreement
from .summary import summarize

__all__ = ["Comparison", "compare", "gap_closed", "patching_agreement", "summarize"]
