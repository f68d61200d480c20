"""Fine-tuning on corruptions: a client of the library."""

from .config import FinetuneConfig
from .curves import write_curves
from .evaluating import read_evaluations
from .finetune import finetune
from .losses import Adversarial, Consistency, CrossEntropy, Objective, Trades
from .mixing import StepBatch
from .result import FinetuneResult
from .trainable import set_trainable

__all__ = [
    "Adversarial",
    "Consistency",
    "CrossEntropy",
    "FinetuneConfig",
    "FinetuneResult",
    "Objective",
    "StepBatch",
    "Trades",
    "finetune",
    "read_evaluations",
    "set_trainable",
    "write_curves",
]
