"""What the model says: the predicted class, the rank and probability of the correct one, its certainty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import AnalysisError
from ..functional import class_rank, entropy_nats, is_distribution
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..running import Reduction, table, where_known


@dataclass(frozen=True)
class Prediction:
    """The model's output, per image.

    Variables (image): `label`, `predicted`, `rank` (0 = top; ties go to the lower index, as in argmax),
    `correct_probability` (softmax, of the label), `predicted_probability` (softmax, of the predicted class:
    the model's confidence), `entropy_nats` (of the softmax, in [0, log(n_classes)]). All but the label are
    NaN where the logits stand for no distribution, as after an overflow.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> sorted(vl.run(model, images, [Prediction()], progress=False))
        ['correct_probability', 'entropy_nats', 'label', 'predicted', 'predicted_probability', 'rank']
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """No hook: the logits say it all."""
        needs_classes(model, self)
        return {}

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        logits = logits.float()
        probability = logits.softmax(-1)
        predicted = logits.argmax(-1)
        known = is_distribution(logits)
        return table(
            {
                "label": ((), batch.labels),
                "predicted": ((), where_known(predicted, known)),
                "rank": ((), where_known(class_rank(logits, batch.labels), known)),
                "correct_probability": ((), _of_class(probability, batch.labels)),
                "predicted_probability": ((), _of_class(probability, predicted)),
                "entropy_nats": ((), entropy_nats(logits)),
            }
        )


def _of_class(
    probability: Float[Tensor, "batch n_classes"], classes: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    return probability.gather(-1, classes.unsqueeze(-1)).squeeze(-1)


def is_correct(logits: Float[Tensor, "batch n_classes"], labels: Int[Tensor, " batch"]) -> Tensor:
    """Whether the label is predicted; with NaN where the logits stand for no distribution."""
    logits = logits.float()
    return where_known(class_rank(logits, labels) == 0, is_distribution(logits))


def needs_classes(model: HookedViT, who: object) -> None:
    """Refuse a model without a classifier.

    Raises:
        AnalysisError: the model has no classes.
    """
    if not model.cfg.has_classifier:
        raise AnalysisError(
            f"{type(who).__name__} needs classes; this model has no classifier "
            f"(n_classes {model.cfg.n_classes}, pool '{model.cfg.pool}').",
            expected="a model with a classification head",
            remedy="Load the classifier's weights with the model, or leave this analysis out.",
        )
