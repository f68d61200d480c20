"""Pure functions of tensors: what each analysis computes, for use on a cache by hand."""

from .artifacts import artifact_tokens
from .attention import attention_distance, attention_entropy, patch_distances
from .attribution import (
    correct_log_probability,
    gradient_times_activation,
    head_attribution,
    integrated_gradients,
    sum_by_patch,
)
from .calibration import calibration_error, confidence_bin
from .cka import cka_from_moments, cka_moments, grouped_jackknife_se, linear_cka, merge_cka_moments
from .prediction import (
    class_rank,
    entropy_nats,
    first_correct_layer,
    is_distribution,
    kl_nats,
    last_change_layer,
)
from .representation import cosine, relative_distance, ridge_regression
from .rollout import attention_relevance, attention_rollout, discard_smallest, fuse_heads, gradient_rollout

__all__ = [
    "artifact_tokens",
    "attention_distance",
    "attention_entropy",
    "attention_relevance",
    "attention_rollout",
    "calibration_error",
    "cka_from_moments",
    "cka_moments",
    "class_rank",
    "confidence_bin",
    "correct_log_probability",
    "cosine",
    "discard_smallest",
    "entropy_nats",
    "first_correct_layer",
    "fuse_heads",
    "gradient_rollout",
    "gradient_times_activation",
    "grouped_jackknife_se",
    "head_attribution",
    "integrated_gradients",
    "is_distribution",
    "kl_nats",
    "last_change_layer",
    "linear_cka",
    "merge_cka_moments",
    "patch_distances",
    "relative_distance",
    "ridge_regression",
    "sum_by_patch",
]
