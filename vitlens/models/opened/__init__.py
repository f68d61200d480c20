"""timm's modules opened: its own submodules in its own order, with hooks."""

from .attention import ATTENTIONS, OpenedAttention
from .base import Opened, native_or
from .block import BLOCKS, OpenedBlock, OpenedStep
from .mlp import MLPS, OpenedMlp
from .norm import OpenedNorm, open_norm
from .parallel import PARALLEL_BLOCKS, OpenedParallelBlock
from .side_by_side import SIDE_BY_SIDE_BLOCKS, OpenedThingsBlock

__all__ = [
    "ATTENTIONS",
    "BLOCKS",
    "MLPS",
    "PARALLEL_BLOCKS",
    "SIDE_BY_SIDE_BLOCKS",
    "Opened",
    "OpenedAttention",
    "OpenedBlock",
    "OpenedMlp",
    "OpenedNorm",
    "OpenedParallelBlock",
    "OpenedStep",
    "OpenedThingsBlock",
    "native_or",
    "open_norm",
]
