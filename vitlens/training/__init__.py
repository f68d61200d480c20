"""Fine-tuning on corruptions: a client of the library."""

from .config import FinetuneConfig
from .finetune import FinetuneResult, finetune

__all__ = ["FinetuneConfig", "FinetuneResult", "finetune"]
