"""Pure functions of tensors: what each analysis computes, for use on a cache by hand."""

from .attention import attention_entropy
from .prediction import class_rank, entropy_nats, first_correct_layer, last_change_layer

__all__ = [
    "attention_entropy",
    "class_rank",
    "entropy_nats",
    "first_correct_layer",
    "last_change_layer",
]
