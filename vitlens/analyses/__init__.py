"""Analyses: what can be measured of a model, or of two, per image."""

from .ablation import Ablation
from .artifacts import ArtifactTokens, AttentionShare
from .attention import AttentionEntropy, AttentionMap
from .attention_distance import AttentionDistance
from .attribution_patching import AttributionPatching
from .cka import CKA
from .fourier_heat_map import fourier_heat_map
from .gradient_maps import GradientTimesActivation, IntegratedGradients
from .linear_probe import LinearProbe
from .logit_attribution import LogitAttribution
from .logit_lens import LogitLens
from .prediction import Prediction
from .representation import Representation
from .rollout import AttentionRollout, GradientRollout
from .token_lens import TokenLens
from .transplant import Transplant, transplant
from .tuned_lens import TunedLens
from .weight_space import interpolate, weight_distance

__all__ = [
    "CKA",
    "Ablation",
    "ArtifactTokens",
    "AttentionDistance",
    "AttentionEntropy",
    "AttentionMap",
    "AttentionRollout",
    "AttentionShare",
    "AttributionPatching",
    "GradientRollout",
    "GradientTimesActivation",
    "IntegratedGradients",
    "LinearProbe",
    "LogitAttribution",
    "LogitLens",
    "Prediction",
    "Representation",
    "TokenLens",
    "Transplant",
    "TunedLens",
    "fourier_heat_map",
    "interpolate",
    "transplant",
    "weight_distance",
]
