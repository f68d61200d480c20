"""What an attack raises: the log-odds against a class, the change of an activation, or one's own measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ...errors import ConditionError
from ...models import HookedViT

_NOT_BY_POSITION = ("hook_pattern", "hook_attn_scores", "hook_pooled")


@runtime_checkable
class AttackObjective(Protocol):
    """What an attack makes as large as it can, for each image by itself.

    Attributes:
        hook_names: the activations that it looks at.

    Example:
        >>> class Brightness:
        ...     hook_names = ("blocks.0.hook_resid_post",)
        ...
        ...     def __call__(self, model, activations, clean, logits, labels):
        ...         return activations["blocks.0.hook_resid_post"].mean((1, 2))
        >>> isinstance(Brightness(), AttackObjective)
        True
    """

    @property
    def hook_names(self) -> Sequence[str]:
        """The activations that it looks at."""

    def __call__(
        self,
        model: HookedViT,
        activations: Mapping[str, Tensor],
        clean: Mapping[str, Tensor],
        logits: Tensor,
        labels: Tensor | None,
    ) -> Tensor:
        """The value for each image, differentiable.

        Args:
            model: the model that is attacked.
            activations: hook name -> activation on the attacked pixels.
            clean: the same on the pixels as they were, without a graph.
            logits: what the model says of the attacked pixels.
            labels: the correct classes, if they were given.

        Returns:
            [batch]; the larger, the stronger.
        """


@dataclass(frozen=True)
class LogOdds:
    """The logarithm of the odds against the correct class, or those for a target.

    The cross-entropy is softplus of the log-odds against a class. So the two are largest at the same pixels
    and their gradients point the same way, but the cross-entropy's vanishes in float32 where the model is
    sure of itself, and this one's does not.

    Example:
        >>> odds = LogOdds().of(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        >>> expected = F.cross_entropy(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([0]))
        >>> torch.allclose(LogOdds().nats(odds), expected)
        True
    """

    is_targeted: bool = False
    hook_names: tuple[str, ...] = ()

    def __call__(
        self,
        model: HookedViT,
        activations: Mapping[str, Tensor],
        clean: Mapping[str, Tensor],
        logits: Tensor,
        labels: Tensor | None,
    ) -> Float[Tensor, " batch"]:
        """The log-odds of one batch."""
        assert labels is not None  # refused before
        return self.of(logits, labels)

    def of(self, logits: Float[Tensor, "batch n_classes"], classes: Tensor) -> Float[Tensor, " batch"]:
        """The log-odds, from logits."""
        precise = logits if logits.dtype == torch.float64 else logits.float()
        index = classes.unsqueeze(-1)
        of_class = precise.gather(-1, index).squeeze(-1)
        of_others = precise.scatter(-1, index, -torch.inf).logsumexp(-1)
        return of_class - of_others if self.is_targeted else of_others - of_class

    def nats(self, log_odds: Tensor) -> Tensor:
        """The cross-entropy of the correct class; minus that of the target."""
        return -F.softplus(-log_odds) if self.is_targeted else F.softplus(log_odds)


@dataclass(frozen=True)
class ActivationChange:
    """How far an activation is from where it is on the clean image: the L2 norm of the difference.

    It is 0 at the clean image, where no direction is better than another: give `pgd` its random start.

    Args:
        hook_name: which activation.
        tokens: of which tokens: `all`, `patch`, `cls`, `register` or `distillation`; with `all`, activations
            without a `pos` axis will do.

    Raises:
        ConditionError: some tokens are asked for of an activation that is not [batch pos ...].

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> objective = ActivationChange("blocks.9.hook_resid_post", tokens="patch")
        >>> pixels = vl.images.digits("test")[0]["pixels"].unsqueeze(0)
        >>> attacked, report = vl.pgd(
        ...     model, pixels, objective=objective, steps=2, return_report=True
        ... )
        >>> bool(report.loss_per_step[0, 0, -1] > report.loss_per_step[0, 0, 0])
        True
    """

    hook_name: str
    tokens: str = "all"

    def __post_init__(self) -> None:
        if self.tokens != "all" and self.hook_name.endswith(_NOT_BY_POSITION):
            raise ConditionError(
                f"ActivationChange asks for the {self.tokens} tokens of '{self.hook_name}', which is not "
                "[batch pos ...].",
                expected="tokens='all', or another hook",
                remedy="Choose a hook of the residual stream, of an output, or of q, k, v or z.",
            )

    @property
    def hook_names(self) -> tuple[str, ...]:
        """The one hook."""
        return (self.hook_name,)

    def __call__(
        self,
        model: HookedViT,
        activations: Mapping[str, Tensor],
        clean: Mapping[str, Tensor],
        logits: Tensor,
        labels: Tensor | None,
    ) -> Float[Tensor, " batch"]:
        """The change of one batch."""
        change = activations[self.hook_name] - clean[self.hook_name]
        if self.tokens != "all":
            change = change[:, model.cfg.positions(self.tokens)]
        squares = change if change.dtype == torch.float64 else change.float()
        # The root has no slope at 0: keep away from it by less than any change that rounding leaves.
        return squares.square().flatten(1).sum(dim=1).clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
