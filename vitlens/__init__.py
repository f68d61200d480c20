"""vitlens: what changed inside a Vision Transformer.

A researcher has two checkpoints of one ViT and asks what changed inside. vitlens answers with measurements
that can be trusted: exact activations, one streaming pass over the data, every number kept per image, every
difference with an interval, and a report that opens in a browser.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from . import errors, functional, images, names
from .analyses import (
    CKA,
    Ablation,
    ArtifactTokens,
    AttentionDistance,
    AttentionEntropy,
    AttentionMap,
    AttentionRollout,
    AttentionShare,
    AttributionPatching,
    GradientRollout,
    GradientTimesActivation,
    IntegratedGradients,
    LinearProbe,
    LogitAttribution,
    LogitLens,
    Prediction,
    Representation,
    TokenLens,
    Transplant,
    TunedLens,
    fourier_heat_map,
    interpolate,
    transplant,
    weight_distance,
)
from .images import CORRUPTIONS, corrupt, fgsm, pgd, register_corruption, spectrum
from .models import (
    ActivationCache,
    Family,
    HookedViT,
    ViTConfig,
    load,
    register_family,
    save,
    to_huggingface_state_dict,
    weights_sha256,
)
from .running import (
    Analysis,
    GradientAnalysis,
    PairedAnalysis,
    Pass,
    SetStatistic,
    activations,
    run,
    table,
)

if TYPE_CHECKING:
    from . import comparison, report, saes, testing, training
    from .comparison import (
        Comparison,
        calibration_error,
        compare,
        gap_closed,
        mean_corruption_error,
        patching_agreement,
    )

__version__ = _version("vitlens")

__all__ = [
    "CKA",
    "CORRUPTIONS",
    "Ablation",
    "ActivationCache",
    "Analysis",
    "ArtifactTokens",
    "AttentionDistance",
    "AttentionEntropy",
    "AttentionMap",
    "AttentionRollout",
    "AttentionShare",
    "AttributionPatching",
    "Comparison",
    "Family",
    "GradientAnalysis",
    "GradientRollout",
    "GradientTimesActivation",
    "HookedViT",
    "IntegratedGradients",
    "LinearProbe",
    "LogitAttribution",
    "LogitLens",
    "PairedAnalysis",
    "Pass",
    "Prediction",
    "Representation",
    "SetStatistic",
    "TokenLens",
    "Transplant",
    "TunedLens",
    "ViTConfig",
    "activations",
    "calibration_error",
    "compare",
    "comparison",
    "corrupt",
    "errors",
    "fgsm",
    "fourier_heat_map",
    "functional",
    "gap_closed",
    "images",
    "interpolate",
    "load",
    "mean_corruption_error",
    "names",
    "patching_agreement",
    "pgd",
    "register_corruption",
    "register_family",
    "report",
    "run",
    "saes",
    "save",
    "spectrum",
    "table",
    "testing",
    "to_huggingface_state_dict",
    "training",
    "transplant",
    "weight_distance",
    "weights_sha256",
]

# Rooms whose libraries (sae-lens, plotly) take long to import wait until they are entered.
_WHEN_USED = {
    "Comparison": ".comparison",
    "calibration_error": ".comparison",
    "compare": ".comparison",
    "comparison": None,
    "gap_closed": ".comparison",
    "mean_corruption_error": ".comparison",
    "patching_agreement": ".comparison",
    "report": None,
    "saes": None,
    "testing": None,
    "training": None,
}


def __getattr__(name: str) -> Any:
    if name not in _WHEN_USED:
        raise AttributeError(f"module 'vitlens' has no attribute '{name}'")
    where = _WHEN_USED[name]
    if where is None:
        return importlib.import_module(f".{name}", __name__)
    return getattr(importlib.import_module(where, __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
