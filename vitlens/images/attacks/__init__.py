"""Attacks: small changes of the pixels, found by the model's own gradients."""

from .gradient_attack import fgsm, pgd
from .objectives import ActivationChange, AttackObjective
from .report import AttackReport
from .search import attacked
from .spec import Attack

__all__ = ["ActivationChange", "Attack", "AttackObjective", "AttackReport", "attacked", "fgsm", "pgd"]
