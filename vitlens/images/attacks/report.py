"""What an attack says of itself, image by image."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class AttackReport:
    """How an attack went. All tensors are on the CPU.

    Attributes:
        loss_per_step: what the attack raises, at the start and after each step: the cross-entropy in nats;
            with targets, minus the targets' cross-entropy; with an objective, its value. No steps where ε
            is 0: then nothing is computed.
        best_restart: the restart whose pixels were taken.
        best_step: after which of its steps; 0 is its start.
        zero_gradient_share: the share of the image's pixels and channels whose gradient is exactly 0, the
            mean over all steps; NaN where ε is 0. A model that masks its gradients looks robust and is not.
        has_no_gradient: whether the gradient is 0 everywhere at the first step of every restart: such an
            image was not attacked.
        perturbation_norm: how far the pixels were moved, in the attack's norm.

    Example:
        See `pgd`.
    """

    loss_per_step: Float[Tensor, "batch restart step"]
    best_restart: Int64[Tensor, " batch"]
    best_step: Int64[Tensor, " batch"]
    zero_gradient_share: Float[Tensor, " batch"]
    has_no_gradient: Bool[Tensor, " batch"]
    perturbation_norm: Float[Tensor, " batch"]
