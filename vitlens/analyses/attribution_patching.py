"""Attribution patching: the first-order estimate of every transplant, from one backward pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor

from ..functional.attribution import correct_log_probability, gradient_times_activation
from ..images import Batch
from ..models import HookedViT
from ..running import Reduction, same_architecture, table
from ..running.analysis import Pass
from ..running.passes import forward_and_backward
from .interventions import BLOCK_PARTS, KINDS, check_kinds, components_of
from .prediction import needs_classes


@dataclass(frozen=True)
class AttributionPatching:
    """What `Transplant` would find, to first order, for the price of one backward pass.

    The reference is the recipient; the checkpoint is the donor. Variable (image, patching_component):
    `attribution_patching` in nats, the estimated change of the recipient's log-probability of the correct
    class: (donor's activation - recipient's) · its gradient at the recipient. The labels are those of
    `Transplant`, without `none` and `all`; for `classifier` the activation is the logits that either
    classifier gives of the recipient's feature.

    It is exact in the limit of small differences only. Where the log-probability is far from linear between
    the checkpoints (a saturated softmax, a norm whose scale changes, attention that moves elsewhere), it can
    have the wrong size or sign: `vl.patching_agreement` says how it fares against the exact sweep.

    Cost: a forward pass of each checkpoint and a backward pass of the recipient, whose memory is that of a
    training step, and four residual streams a layer of each checkpoint beside it.

    Args:
        components: kinds of component, as for `Transplant`.

    Source: Nanda (2023), "Attribution patching: activation patching at industrial scale"; Syed et al. (2023),
    "Attribution patching outperforms automated circuit discovery"; its failures, Kramár et al. (2024),
    "AtP*".

    Example:
        >>> AttributionPatching(components=("head",))
        AttributionPatching(components=('head',))
    """

    components: tuple[str, ...] = KINDS

    def __post_init__(self) -> None:
        check_kinds(self.components, KINDS, "AttributionPatching")

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """None: the passes have to be its own, for gradients, and are not held between the checkpoints."""
        needs_classes(model, self)
        return {}

    def compare(self, reference: Pass, checkpoint: Pass, batch: Batch) -> xr.Dataset:
        """Values of one batch."""
        recipient, donor = reference.model, checkpoint.model
        same_architecture({"recipient": recipient, "donor": donor})
        components = components_of(recipient, self.components)
        if recipient is donor:
            effects = torch.zeros(len(batch), len(components))
        else:
            by_kind = self._effects(recipient, donor, batch)
            effects = torch.cat([by_kind[kind].reshape(len(batch), -1) for kind in self.components], dim=1)
        attributes = {
            "units": "nats",
            "long_name": "Estimated change of the correct class's log-probability "
            "by one part of the checkpoint",
        }
        return table(
            {"attribution_patching": (("patching_component",), effects, attributes)},
            patching_component=[component.label for component in components],
        )

    def _effects(self, recipient: HookedViT, donor: HookedViT, batch: Batch) -> dict[str, Tensor]:
        """By kind of component: [batch], [batch layer] or [batch layer head]."""
        layers = range(recipient.cfg.n_layers)
        names = {
            kind: [f"blocks.{layer}.{BLOCK_PARTS[kind]}" for layer in layers]
            for kind in self.components
            if kind in BLOCK_PARTS
        }
        if {"feature", "classifier"} & {*self.components}:
            names["feature"] = ["hook_pooled"]
        every = [name for group in names.values() for name in group]
        _, given = donor.run_with_cache(
            donor.normalize(batch.pixels.to(donor.device)), names_filter=every, device=recipient.device
        )
        passed = forward_and_backward(recipient, batch.pixels, batch.labels, every, correct_log_probability)
        logits, own, gradients = passed.logits, passed.activations, passed.gradients
        effects = {}
        for kind in self.components:
            if kind == "classifier":
                exchanged = donor.family.classify(donor.model, own["hook_pooled"].to(donor.device))
                difference = exchanged.to(logits.device) - logits
                effects[kind] = gradient_times_activation(difference, passed.logits_gradient)
                continue
            by_name = [
                gradient_times_activation(given[name] - own[name], gradients[name]) for name in names[kind]
            ]
            if kind == "feature":
                # Two heads read two tokens: [batch 2].
                effects[kind] = by_name[0].reshape(len(batch), -1).sum(1)
            else:
                effects[kind] = torch.stack([effect.sum(1) for effect in by_name], dim=1)
        return effects
