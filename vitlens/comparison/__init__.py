"""Comparing checkpoints: the same images, paired statistics."""

from .comparison import Comparison, compare
from .summary import summarize

__all__ = ["Comparison", "compare", "summarize"]
