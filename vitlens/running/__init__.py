"""Running: one forward pass per batch and condition for all analyses together."""

from .activations import activations
from .analysis import (
    Analysis,
    AnyAnalysis,
    GradientAnalysis,
    PairedAnalysis,
    Pass,
    Reduction,
    SetStatistic,
    State,
    analysis_identity,
)
from .checkpoints import normalization, same_architecture
from .engine import run
from .passes import forward, measuring
from .table import table, where_known

__all__ = [
    "Analysis",
    "AnyAnalysis",
    "GradientAnalysis",
    "PairedAnalysis",
    "Pass",
    "Reduction",
    "SetStatistic",
    "State",
    "activations",
    "analysis_identity",
    "forward",
    "measuring",
    "normalization",
    "run",
    "same_architecture",
    "table",
    "where_known",
]
