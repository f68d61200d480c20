"""Under which heading of a report a figure stands, by the variable it shows."""

from __future__ import annotations

FURTHER = "Further"
SECTIONS = (
    "Accuracy",
    "Certainty",
    "Lens",
    "Attention",
    "Representation",
    "Features",
    "Attribution",
    "Causal sweep",
    "Corruptions",
    FURTHER,
)
"""Headings, in a report's order; `Further` holds what the others do not name."""

# The first beginning that fits decides, so a longer one stands before the shorter one it starts with.
_BEGINNINGS = (
    ("attribution_patching", "Causal sweep"),
    ("gradient_rollout", "Attention"),
    ("rank", "Accuracy"),
    ("correct_probability", "Certainty"),
    ("predicted_probability", "Certainty"),
    ("entropy_nats", "Certainty"),
    ("lens_", "Lens"),
    ("tuned_", "Lens"),
    ("token_lens_", "Lens"),
    ("first_correct_layer", "Lens"),
    ("last_change_layer", "Lens"),
    ("attention_", "Attention"),
    ("n_artifact_", "Attention"),
    ("artifact_", "Attention"),
    ("feature_similarity", "Features"),
    ("corruption_", "Corruptions"),
    ("resid_", "Representation"),
    ("cka", "Representation"),
    ("probe_", "Representation"),
    ("attribution", "Attribution"),
    ("gradient_", "Attribution"),
    ("integrated_gradients", "Attribution"),
    ("transplant_", "Causal sweep"),
    ("ablated_", "Causal sweep"),
)


def section(variable: str) -> str:
    """The heading under which a variable's figure stands.

    Example:
        >>> section("attribution"), section("attribution_patching"), section("sparsity")
        ('Attribution', 'Causal sweep', 'Further')
    """
    return next((where for start, where in _BEGINNINGS if variable.startswith(start)), FURTHER)
