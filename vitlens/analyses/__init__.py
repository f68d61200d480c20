"""Analyses: what can be measured of a model, per image."""

from .attention import AttentionEntropy, AttentionMap
from .logit_lens import LogitLens
from .prediction import Prediction

__all__ = ["AttentionEntropy", "AttentionMap", "LogitLens", "Prediction"]
