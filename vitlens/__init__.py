"""vitlens: what changed inside a Vision Transformer.

A researcher has two checkpoints of one ViT and asks what changed inside. vitlens answers with measurements
that can be trusted: exact activations, one streaming pass over the data, every number kept per image, every
difference with an interval, and a report that opens in a browser.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING, Any

from . import errors, names

if TYPE_CHECKING:
    from . import comparison, functional, images, report, saes, testing, training
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
    from .comparison import (
        Comparison,
        calibration_error,
        compare,
        gap_closed,
        mean_corruption_error,
        patching_agreement,
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

# A room waits until it is entered, with its libraries (torch, sae-lens, plotly), which take long to import.
_ROOMS = {
    "analyses": (
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
    ),
    "comparison": (
        "Comparison",
        "calibration_error",
        "compare",
        "gap_closed",
        "mean_corruption_error",
        "patching_agreement",
    ),
    "functional": (),
    "images": ("CORRUPTIONS", "corrupt", "fgsm", "pgd", "register_corruption", "spectrum"),
    "models": (
        "ActivationCache",
        "Family",
        "HookedViT",
        "ViTConfig",
        "load",
        "register_family",
        "save",
        "to_huggingface_state_dict",
        "weights_sha256",
    ),
    "report": (),
    "running": (
        "Analysis",
        "GradientAnalysis",
        "PairedAnalysis",
        "Pass",
        "SetStatistic",
        "activations",
        "run",
        "table",
    ),
    "saes": (),
    "testing": (),
    "training": (),
}
_ROOM_OF = {name: room for room, held in _ROOMS.items() for name in held}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name in _ROOM_OF:
        return getattr(importlib.import_module(f".{_ROOM_OF[name]}", __name__), name)
    raise AttributeError(f"module 'vitlens' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
