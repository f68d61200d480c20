"""Running the rest of a model again, with its activation at an SAE's hook changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..errors import SAEError
from ..models import ActivationCache, HookedViT
from ..running import Reduction
from .codes import OfSAE

_STREAM = {"hook_resid_pre": 0, "hook_resid_post": 1}
"""Places between blocks, and how many blocks of their own layer lie before them."""


@dataclass(frozen=True)
class Rerun(OfSAE):
    """An analysis that asks what the model says when the activation that its SAE reads is another."""

    def hooks(self, model: HookedViT) -> Mapping[str, Reduction]:
        """The SAE's hook whole, and what enters its block."""
        self.place.check(model)
        if not model.cfg.has_classifier:
            raise SAEError(
                f"The model has no classifier (n_classes {model.cfg.n_classes}, pool '{model.cfg.pool}').",
                expected="a model with a classification head, whose answers say what a splice loses",
                remedy="Load the classifier's weights with the model, or evaluate with splice=False.",
            )
        layer = self.place.layer
        entry = [] if layer is None else [f"blocks.{layer}.hook_resid_pre"]
        return dict.fromkeys([self.place.hook_name, *entry])

    def logits_with(
        self, model: HookedViT, images: Tensor, cache: ActivationCache, changed: Tensor
    ) -> Float[Tensor, "batch n_classes"]:
        """The logits with `changed` at the hook; blocks before it are not run again."""
        start: dict[str, Any] = {}
        hooks = [(self.place.hook_name, lambda activation, hook: changed)]
        layer, point = self.place.layer, self.place.hook_name.rsplit(".", 1)[-1]
        if layer is not None and point in _STREAM:
            start, hooks = {"start_at_layer": layer + _STREAM[point], "resid": changed}, []
        elif layer is not None:
            start = {"start_at_layer": layer, "resid": cache[f"blocks.{layer}.hook_resid_pre"]}
        with model.hooks(fwd_hooks=hooks):
            logits: Tensor = model(images, **start)
        return logits
