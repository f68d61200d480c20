"""Objectives: which versions of a step's images go through the model, and the loss of each image.

All versions go through in one forward pass, and losses stay apart by image: the parts of a step, on several
processes or one after the other, add up to the step. Softmaxes are taken in float32 at least.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ..errors import TrainingError
from ..images import Attack, AttackObjective
from ..images.attacks import attacked
from ..images.attacks.spec import EPS_PIXEL, STEPS
from ..images.values import is_real
from ..models import HookedViT, evaluating
from .mixing import Mix, StepBatch


class Objective(ABC):
    """What training makes as small as it can, for each image by itself.

    One of your own is a frozen dataclass: a run is known by its `repr`.

    Example:
        See `CrossEntropy` and `Consistency`, which are two.
    """

    def check(self, model: HookedViT, mix: Mix) -> None:  # noqa: B027 - most make sense with any
        """Refuse, before the run, a model or a mix with which the objective makes no sense.

        Args:
            model: the model that will be trained.
            mix: what the images will go through.

        Raises:
            VitlensError: it makes none.
        """

    @abstractmethod
    def views(self, model: HookedViT, batch: StepBatch) -> list[Tensor]:
        """The versions of the images that go through the model together.

        Args:
            model: the model as it is now, in training mode; it is left as it is.
            batch: a part of a step.

        Returns:
            Batches [batch 3 height width] in [0, 1], each with the images of `batch` in its order.
        """

    @abstractmethod
    def __call__(
        self,
        logits: Sequence[Float[Tensor, "batch n_classes"]],
        labels: Int64[Tensor, " batch"],
        *,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, " batch"]:
        """The loss of each image, in nats, differentiable.

        Args:
            logits: of each view, in the order of `views`.
            labels: the correct classes.
            label_smoothing: of the cross-entropy with the labels.
        """


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross-entropy on the mix of clean and corrupted images.

    Example:
        >>> CrossEntropy()([torch.zeros(1, 4)], torch.tensor([2])).exp()
        tensor([4.])
    """

    def views(self, model: HookedViT, batch: StepBatch) -> list[Tensor]:
        """The step's own draw."""
        return [batch.drawn()]

    def __call__(
        self,
        logits: Sequence[Float[Tensor, "batch n_classes"]],
        labels: Int64[Tensor, " batch"],
        *,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, " batch"]:
        """The cross-entropy of each image."""
        (drawn,) = logits
        return _cross_entropy(drawn, labels, label_smoothing)


@dataclass(frozen=True)
class _Attacking(Objective):
    """What the objectives with an attack on the pixels inside them share."""

    eps_pixel: float = EPS_PIXEL
    alpha_pixel: float | None = None
    steps: int = STEPS
    norm: str = "linf"

    def __post_init__(self) -> None:
        self._attack()  # refuses values that make no sense

    def check(self, model: HookedViT, mix: Mix) -> None:
        """Refuse a model without a classifier.

        Raises:
            ConditionError: it has none.
        """
        Attack().check(model)

    def _attack(self, objective: AttackObjective | None = None) -> Attack:
        return Attack("pgd", self.eps_pixel, self.alpha_pixel, self.steps, self.norm, objective=objective)


@dataclass(frozen=True)
class Adversarial(_Attacking):
    """Cross-entropy on images that are attacked first, each time the model as it is now.

    The attack is `vitlens.pgd` with a random start, on the mix of clean and corrupted images (on clean ones,
    as in the paper, where no conditions are given). It runs in evaluation mode and in the precision of the
    parameters, raises the cross-entropy without label smoothing, and takes the worst of its points where the
    paper takes the last.

    Attributes:
        eps_pixel: the radius of the ball around each image, for pixels in [0, 1].
        alpha_pixel: the length of a step; None for 2.5 · ε / steps.
        steps: of the attack; each costs a forward and a backward pass, and one forward pass comes on top.
        norm: `"linf"` or `"l2"`.

    Raises:
        ConditionError: a value makes no sense.

    Source: Madry et al. (2018), Towards deep learning models resistant to adversarial attacks, section 2.

    Example:
        >>> Adversarial(eps_pixel=4 / 255, steps=3)([torch.zeros(1, 4)], torch.tensor([2])).exp()
        tensor([4.])
    """

    def views(self, model: HookedViT, batch: StepBatch) -> list[Tensor]:
        """The step's own draw, attacked."""
        return [_attacked(self._attack(), model, batch.drawn(), batch)]

    def __call__(
        self,
        logits: Sequence[Float[Tensor, "batch n_classes"]],
        labels: Int64[Tensor, " batch"],
        *,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, " batch"]:
        """The cross-entropy of each attacked image."""
        (adversarial,) = logits
        return _cross_entropy(adversarial, labels, label_smoothing)


@dataclass(frozen=True)
class Trades(_Attacking):
    """TRADES: cross-entropy, and how far an attack can move the prediction, whatever the label.

    The loss is CE(p, label) + β · KL(p ‖ p'), with p the prediction for the image and p' that for the image
    attacked so as to raise KL(p ‖ p'). The gradient flows through both terms and both predictions. The image
    is the step's own draw from the mix: the clean one, as in the paper, where no conditions are given.

    The attack begins at a point drawn from the ball, as the divergence is flat at the image itself, keeps p
    fixed, runs in evaluation mode and in the precision of the parameters, and takes the worst of its points.
    The paper begins at normal noise of standard deviation 0.001, and takes the last.

    Attributes:
        beta: the weight of the divergence; the paper's 1/λ.
        eps_pixel: the radius of the ball around each image, for pixels in [0, 1].
        alpha_pixel: the length of a step; None for 2.5 · ε / steps.
        steps: of the attack; each costs a forward and a backward pass, and two forward passes come on top.
        norm: `"linf"` or `"l2"`.

    Raises:
        TrainingError: beta is negative or not finite.
        ConditionError: another value makes no sense.

    Source: Zhang et al. (2019), Theoretically principled trade-off between robustness and accuracy, algorithm
    1.

    Example:
        >>> even, sure = torch.zeros(1, 2), torch.tensor([[0.0, -1e4]])
        >>> Trades(beta=6.0)([even, even], torch.tensor([0])).exp()
        tensor([2.])
        >>> Trades(beta=6.0)([sure, even], torch.tensor([0])).div(6).exp()
        tensor([2.])
    """

    beta: float = 6.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_weight("beta", self.beta)

    def views(self, model: HookedViT, batch: StepBatch) -> list[Tensor]:
        """The step's own draw, and the same attacked."""
        drawn = batch.drawn()
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False), evaluating([model]):
            logits = model(model.normalize(drawn.to(model.device)))
        objective = _FromPrediction(_log_softmax(logits))
        return [drawn, _attacked(self._attack(objective), model, drawn, batch)]

    def __call__(
        self,
        logits: Sequence[Float[Tensor, "batch n_classes"]],
        labels: Int64[Tensor, " batch"],
        *,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, " batch"]:
        """The cross-entropy of each image, and β times the divergence."""
        natural, adversarial = logits
        divergence = _divergence(_log_softmax(natural), _log_softmax(adversarial))
        return _cross_entropy(natural, labels, label_smoothing) + self.beta * divergence


@dataclass(frozen=True)
class Consistency(Objective):
    """Cross-entropy on clean images, and agreement with two corrupted versions of each.

    The loss is CE(p, label) + weight · JS(p, p₁, p₂): the Jensen–Shannon divergence of the predictions for
    the clean image and for two independent draws of it from the mix, which is the mean of KL(pᵢ ‖ m) over
    the three, m being their mean. As in AugMix's own code, m is at least 1e-7. In the paper every second
    version is corrupted: give `p_clean=0` for that.

    Attributes:
        weight: of the divergence.

    Raises:
        TrainingError: the weight is negative or not finite.

    Source: Hendrycks et al. (2020), AugMix: a simple data processing method to improve robustness and
    uncertainty, section 3.

    Example:
        >>> same = [torch.zeros(1, 4)] * 3
        >>> Consistency(weight=12.0)(same, torch.tensor([2])).exp()
        tensor([4.])
    """

    weight: float = 12.0

    def __post_init__(self) -> None:
        _check_weight("weight", self.weight)

    def check(self, model: HookedViT, mix: Mix) -> None:
        """Refuse a `mix` that leaves all images clean, whatever the `model`.

        Raises:
            TrainingError: it does.
        """
        if not mix.choices or mix.p_clean == 1:
            raise TrainingError(
                f"Consistency is asked for with {len(mix.choices)} conditions and p_clean={mix.p_clean:g}.",
                expected="corrupted versions that can be compared with the clean image",
                remedy="Give conditions to draw from, and p_clean=0 to have all versions corrupted.",
            )

    def views(self, model: HookedViT, batch: StepBatch) -> list[Tensor]:
        """The clean images, and two independent draws."""
        return [batch.clean, batch.drawn(0), batch.drawn(1)]

    def __call__(
        self,
        logits: Sequence[Float[Tensor, "batch n_classes"]],
        labels: Int64[Tensor, " batch"],
        *,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, " batch"]:
        """The cross-entropy of each clean image, and the weighted divergence."""
        clean, first, second = logits
        said = torch.stack([_log_softmax(each) for each in (clean, first, second)])
        mean = said.exp().mean(0).clamp(1e-7, 1).log()
        divergence = torch.stack([_divergence(each, mean) for each in said]).mean(0)
        return _cross_entropy(clean, labels, label_smoothing) + self.weight * divergence


@dataclass(frozen=True, eq=False)
class _FromPrediction:
    """What TRADES's attack raises: the divergence from the prediction for the image as it was."""

    log_p: Tensor = field(repr=False)
    hook_names: tuple[str, ...] = ()

    def __call__(
        self,
        model: HookedViT,
        activations: Mapping[str, Tensor],
        clean: Mapping[str, Tensor],
        logits: Tensor,
        labels: Tensor | None,
    ) -> Float[Tensor, " batch"]:
        return _divergence(self.log_p, _log_softmax(logits))


def _attacked(attack: Attack, model: HookedViT, pixels: Tensor, batch: StepBatch) -> Tensor:
    """The start is another draw than that of an attack that the mix may hold."""
    found, _ = attacked(
        attack,
        model,
        pixels,
        batch.labels,
        image_ids=batch.stream_ids("objective"),
        seed=batch.seed,
        step=batch.step,
    )
    return found


def _log_softmax(logits: Tensor) -> Float[Tensor, "batch n_classes"]:
    return F.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), dim=-1)


def _cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Float[Tensor, " batch"]:
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(precise, labels, label_smoothing=label_smoothing, reduction="none")


def _divergence(log_p: Tensor, log_q: Tensor) -> Float[Tensor, " batch"]:
    """KL(p ‖ q), in nats."""
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)


def _check_weight(name: str, value: float) -> None:
    # Written so that NaN is refused too.
    if not is_real(value) or not 0 <= value < float("inf"):
        raise TrainingError(
            f"{name} is {value!r}.", expected="a finite number of 0 or more", remedy=f"Correct {name}."
        )
