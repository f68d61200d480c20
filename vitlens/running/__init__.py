"""Running: one forward pass per batch and condition for all analyses together."""

from .activations import activations
from .analysis import Analysis, Reduction
from .engine import measure, run
from .table import table

__all__ = ["Analysis", "Reduction", "activations", "measure", "run", "table"]
