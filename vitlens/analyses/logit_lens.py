"""The logit lens: what the head would say of the residual stream at every place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from ..functional import class_rank, entropy_nats, first_correct_layer, last_change_layer
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..names import resid_hook
from ..running import Reduction, table
from .prediction import needs_classes


@dataclass(frozen=True)
class LogitLens:
    """The model's own readout (final norm, pooling, head with its bias) applied along the residual stream.

    Variables (image, resid_layer): `lens_probability` (of the correct class), `lens_rank`,
    `lens_entropy_nats`; (image): `first_correct_layer` (a `resid_layer`; NaN: never),
    `last_change_layer` (the `resid_layer` from which on the prediction stays). At the last `resid_layer`
    the lens is the model's output.

    Source: nostalgebraist (2020), "interpreting GPT: the logit lens"; for ViTs Vilas et al. (2023),
    section 3.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> vl.run(model, images, [LogitLens()], progress=False)["lens_rank"].sizes["resid_layer"]
        13
    """

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """Every place on the residual stream, reduced to the head's logits as it streams by."""
        needs_classes(model, self)
        return dict.fromkeys(_places(model), model.readout)

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        lens = torch.stack([cache[name].float() for name in _places(model)], dim=1)
        labels = batch.labels.unsqueeze(1).expand(lens.shape[:2])
        rank = class_rank(lens, labels)
        probability = lens.softmax(-1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        by_place = ("resid_layer",)
        return table(
            {
                "lens_probability": (by_place, probability),
                "lens_rank": (by_place, rank),
                "lens_entropy_nats": (by_place, entropy_nats(lens)),
                "first_correct_layer": ((), first_correct_layer(rank == 0)),
                "last_change_layer": ((), last_change_layer(lens.argmax(-1))),
            },
            resid_layer=range(model.cfg.n_layers + 1),
        )


def _places(model: HookedViT) -> list[str]:
    n_layers = model.cfg.n_layers
    return [resid_hook(resid_layer, n_layers) for resid_layer in range(n_layers + 1)]
