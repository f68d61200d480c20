"""Under which heading of a report a figure stands, by the variable it shows."""

from __future__ import annotations

FURTHER = "Further"
SECTIONS = (
    "Predictions",
    "Lenses",
    "Attention",
    "Representation",
    "Attribution",
    "Causal",
    "SAE features",
    FURTHER,
)
"""Headings, in a report's order; `Further` holds what the others do not name."""

# The first beginning that fits decides, so a longer one stands before the shorter one it starts with.
_BEGINNINGS = (
    ("attribution_patching", "Causal"),
    ("gradient_rollout", "Attention"),
    ("rank", "Predictions"),
    ("correct_probability", "Predictions"),
    ("predicted_probability", "Predictions"),
    ("entropy_nats", "Predictions"),
    ("lens_", "Lenses"),
    ("tuned_", "Lenses"),
    ("token_lens_", "Lenses"),
    ("first_correct_layer", "Lenses"),
    ("last_change_layer", "Lenses"),
    ("attention_", "Attention"),
    ("n_artifact_", "Attention"),
    ("artifact_", "Attention"),
    ("resid_", "Representation"),
    ("cka", "Representation"),
    ("probe_", "Representation"),
    ("attribution", "Attribution"),
    ("gradient_", "Attribution"),
    ("integrated_gradients", "Attribution"),
    ("transplant_", "Causal"),
    ("ablated_", "Causal"),
)


def section(variable: str) -> str:
    """The heading under which a variable's figure stands.

    Example:
        >>> section("attribution"), section("attribution_patching"), section("sparsity")
        ('Attribution', 'Causal', 'Further')
    """
    return next((where for start, where in _BEGINNINGS if variable.startswith(start)), FURTHER)
