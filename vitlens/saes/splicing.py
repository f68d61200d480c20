"""What a model says with an SAE's reconstruction, or zeros, in the place of an activation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from ..functional import class_rank, correct_log_probability, is_distribution
from ..images import Batch
from ..models import ActivationCache, HookedViT
from ..running import table, where_known
from .reading import reconstruction
from .rerun import Rerun

INTERVENTIONS = ("original", "spliced", "zeroed")
"""The activation as it is, as the SAE reconstructs it, and as zeros."""


@dataclass(frozen=True)
class Splice(Rerun):
    """What the model still knows when it reads the SAE's reconstruction in place of the activation.

    Variables (image, token_kind, intervention), where `name` is `sae`: `sae_splice_correct` (whether the
    prediction is correct), `sae_splice_correct_probability`, `sae_splice_loss_nats` (cross-entropy).
    Interventions are made at the tokens of each kind that the SAE reads, one kind after the other, and at
    `all` of them where there are several: `original`, none; `spliced`, x̂ in place of x; `zeroed`, 0 in place
    of x. The SAE's error is left out, not added back.

    Cost: two passes a kind of token, from the spliced block on.

    Args:
        sae: as in `SAECode`.
        hook_name: as in `SAECode`; any hook whose activation is [batch pos d_in].
        tokens: as in `SAECode`.
        name: as in `SAECode`.
        warns: as in `SAECode`.

    Raises:
        SAEError: as in `SAECode`; in a run also where the model has no classifier.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(12)]
        >>> source = (model, images, "blocks.9.hook_resid_post")
        >>> settings = dict(d_sae=16, k_per_token=2, batch_size=8, n_tokens=80, progress=False)
        >>> sae = vl.saes.train(source, **settings)
        >>> data = vl.run(model, images, [Splice(sae)], progress=False)
        >>> data["sae_splice_loss_nats"].dims
        ('condition', 'image', 'token_kind', 'intervention')
    """

    def __call__(self, model: HookedViT, cache: ActivationCache, logits: Tensor, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        activation = cache[self.place.hook_name]
        x_hat = reconstruction(self.sae, self.place.select(model, activation)).to(activation)
        spliced = activation.clone()
        spliced[:, model.cfg.positions(self.place.tokens)] = x_hat
        zeroed = torch.zeros_like(activation)
        images = model.normalize(batch.pixels.to(model.device))
        by_kind = []
        for kind in self.place.kinds(model):
            said = [_said(logits, batch)]
            positions = model.cfg.positions(kind)
            for source in (spliced, zeroed):
                changed = activation.clone()
                changed[:, positions] = source[:, positions]
                said.append(_said(self.logits_with(model, images, cache, changed), batch))
            by_kind.append(torch.stack(said, dim=1))
        correct, probability, loss = torch.stack(by_kind, dim=1).unbind(-1)
        dims = ("token_kind", "intervention")
        variables = {
            "correct": (where_known(correct == 1, ~correct.isnan()), "share", "Correct prediction"),
            "correct_probability": (probability, "probability", "Probability of the correct class"),
            "loss_nats": (loss, "nats", "Cross-entropy"),
        }
        return table(
            {
                f"{self.name}_splice_{name}": (dims, values, {"units": units, "long_name": long_name})
                for name, (values, units, long_name) in variables.items()
            },
            token_kind=self.place.kinds(model),
            intervention=INTERVENTIONS,
        )


def _said(logits: Tensor, batch: Batch) -> Float[Tensor, "batch 3"]:
    """Whether the prediction is correct, the correct class's probability, and the loss."""
    labels = batch.labels.to(logits.device)
    log_probability = correct_log_probability(logits, labels)
    is_correct = where_known(class_rank(logits.float(), labels) == 0, is_distribution(logits.float()))
    return torch.stack([is_correct.float(), log_probability.exp(), -log_probability], dim=-1)
