"""Corruptions: the suite of ImageNet-C as batched torch, seeded by image."""

from .catalogue import IMAGENET_C, IMAGENET_C_EXTRA
from .corrupt import corrupt
from .frost import frost
from .groups import frequency_group, frequency_groups, measured_frequency
from .registry import CORRUPTIONS, find_corruption, ready_corruption, register_corruption
from .spec import SEVERITIES, Corruption, check_severity

__all__ = [
    "CORRUPTIONS",
    "IMAGENET_C",
    "IMAGENET_C_EXTRA",
    "SEVERITIES",
    "Corruption",
    "check_severity",
    "corrupt",
    "find_corruption",
    "frequency_group",
    "frequency_groups",
    "frost",
    "measured_frequency",
    "ready_corruption",
    "register_corruption",
]
