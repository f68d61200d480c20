"""The logit lens: what the head would say of the residual stream at every place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import xarray as xr
from jaxtyping import Float, Int, Real
from torch import Tensor

from ..functional import (
    class_rank,
    entropy_nats,
    first_correct_layer,
    is_distribution,
    last_change_layer,
)
from ..functional.prediction import kl_nats
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..names import resid_hook
from ..running import Reduction, table, where_known
from .prediction import needs_classes

_DEFINED = {
    "probability": "Probability that the correct class has when the lens reads the residual stream there.",
    "entropy_nats": "Entropy of the lens's class probabilities: low where it is certain of one class.",
    "kl_nats": "Kullback-Leibler divergence of the output's class probabilities from the lens's: 0 where the "
    "lens already says what the output will say.",
}


@dataclass(frozen=True)
class LogitLens:
    """The model's own readout (final norm, pooling, head with its bias) applied along the residual stream.

    Variables (image, resid_layer): `lens_predicted`, `lens_probability` (of the correct class), `lens_rank`
    (0 = top), `lens_entropy_nats`, `lens_kl_nats` (of the output from the lens, KL(output ‖ lens)); (image):
    `first_correct_layer` (a `resid_layer`; NaN: never), `last_change_layer` (the `resid_layer` from which on
    the prediction stays). At the last `resid_layer` the lens is the model's output. Where a place's logits
    stand for no distribution, as after an overflow, its values are NaN, and so are those of the image.

    Source: nostalgebraist (2020), "interpreting GPT: the logit lens"; for ViTs Vilas et al. (2023),
    "Analyzing Vision Transformers for image classification in class embedding space"; the divergence from
    Belrose et al. (2023), "Eliciting latent predictions from transformers with the tuned lens".

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> vl.run(model, images, [LogitLens()], progress=False)["lens_rank"].sizes["resid_layer"]
        13
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every place on the residual stream but the last, reduced to the head's logits as it streams by."""
        needs_classes(model, self)
        return dict.fromkeys(places(model), model.readout)

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        lens = torch.stack([*(cache[name].float() for name in places(model)), logits.float()], dim=1)
        by_place = lens_variables(lens, batch.labels, "lens", "the logit lens")
        settled = last_change_layer(lens.argmax(-1)).masked_fill(~is_distribution(lens).all(-1), torch.nan)
        return table(
            {
                **by_place,
                "first_correct_layer": first_correct(by_place["lens_rank"][1], "the logit lens"),
                "last_change_layer": (
                    (),
                    settled,
                    {
                        "units": "resid_layer",
                        "long_name": "Place from which on the logit lens's prediction stays",
                    },
                ),
            },
            resid_layer=range(model.cfg.n_layers + 1),
        )


def places(model: HookedViT) -> list[str]:
    """The hooks on the residual stream before the last place, at which a lens gives the output itself."""
    n_layers = model.cfg.n_layers
    return [resid_hook(resid_layer, n_layers) for resid_layer in range(n_layers)]


def lens_variables(
    lens: Float[Tensor, "batch resid_layer n_classes"], labels: Int[Tensor, " batch"], prefix: str, who: str
) -> dict[str, tuple[Any, ...]]:
    """What a lens says at each place, as variables for `table`.

    Args:
        lens: the lens's logits; at the last place, the output's.
        labels: the correct classes.
        prefix: of the variables' names.
        who: the lens's name in titles.
    """
    by_label = labels.unsqueeze(1).expand(lens.shape[:2])
    probability = lens.softmax(-1).gather(-1, by_label.unsqueeze(-1)).squeeze(-1)
    known = is_distribution(lens)
    values = {
        "predicted": (where_known(lens.argmax(-1), known), "class", "Class predicted by {}"),
        "probability": (probability, "probability", "Probability of the correct class by {}"),
        "rank": (
            where_known(class_rank(lens, by_label), known),
            "rank",
            "Rank of the correct class by {} (0: top)",
        ),
        "entropy_nats": (entropy_nats(lens), "nats", "Entropy of {}"),
        "kl_nats": (
            kl_nats(lens[:, -1:].expand_as(lens), lens),
            "nats",
            "Divergence of the output from {}, KL(output ‖ lens)",
        ),
    }
    return {
        f"{prefix}_{name}": (
            ("resid_layer",),
            value,
            {"units": units, "long_name": long_name.format(who)}
            | ({"description": _DEFINED[name]} if name in _DEFINED else {}),
        )
        for name, (value, units, long_name) in values.items()
    }


def first_correct(rank: Real[Tensor, "batch resid_layer"], who: str) -> tuple[Any, ...]:
    """The first place at which a lens is right, as a variable for `table`; NaN where a rank is not known."""
    attributes = {"units": "resid_layer", "long_name": f"First place at which {who} is right"}
    first = first_correct_layer(rank == 0).masked_fill(rank.isnan().any(-1), torch.nan)
    return (), first, attributes
