"""The analyses that a command can name: what each is, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import analyses
from ..errors import AnalysisError
from ..names import nearest


@dataclass(frozen=True)
class Measure:
    """An analysis on the command line.

    Attributes:
        make: makes it.
        told: what it is and, after a semicolon, what it costs.
    """

    make: Callable[[], Any]
    told: str


MEASURES: Mapping[str, Measure] = {
    "prediction": Measure(
        analyses.Prediction, "accuracy, probability and rank of the class; nothing besides"
    ),
    "logit_lens": Measure(analyses.LogitLens, "from which layer on the class is predicted; a little"),
    "attention_entropy": Measure(analyses.AttentionEntropy, "how widely each head looks; a fifth of a pass"),
    "attention_distance": Measure(analyses.AttentionDistance, "how far each head looks; a fifth of a pass"),
    "attention_share": Measure(
        analyses.AttentionShare, "attention to class, register and artifact tokens; a fifth of a pass"
    ),
    "artifact_tokens": Measure(analyses.ArtifactTokens, "patches with outlying norms; a little"),
    "logit_attribution": Measure(
        analyses.LogitAttribution, "what each head and MLP adds to the class's logit; a little"
    ),
    "representation": Measure(
        analyses.Representation, "distance of the residual streams; a little, and memory"
    ),
    "cka": Measure(analyses.CKA, "likeness of the representations over all images; a little"),
    "ablation": Measure(analyses.Ablation, "the answer without each head, layer and MLP; a pass for each"),
    "attribution_patching": Measure(
        analyses.AttributionPatching, "which part carries the difference, estimated; two passes"
    ),
    "transplant": Measure(
        analyses.Transplant, "which part carries the difference, tried out; a pass for each part"
    ),
}

USUAL = ("prediction", "logit_lens", "attention_entropy")
"""What is measured unless something else is asked for."""


def chosen(names: Sequence[str]) -> list[Any]:
    """The analyses of these names, each once, in this order.

    Raises:
        AnalysisError: a name is none.

    Example:
        >>> chosen(["prediction", "cka", "prediction"])
        [Prediction(), CKA(tokens='pooled', n_groups=1)]
    """
    strange = next((name for name in names if name not in MEASURES), None)
    if strange is not None:
        raise AnalysisError(
            f"--analyses names '{strange}'.",
            expected=f"some of {', '.join(MEASURES)}",
            remedy=f"Nearest: {nearest(strange, MEASURES)}.",
        )
    return [MEASURES[name].make() for name in dict.fromkeys(names)]


def told() -> str:
    """All of them as lines of a help page."""
    width = max(map(len, MEASURES))
    return "\n".join(f"  {name:<{width}}  {measure.told}" for name, measure in MEASURES.items())
