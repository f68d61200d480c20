"""The search: steps along the gradient of the pixels, the model left as it was."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import ConditionError
from ...models import HookedViT, evaluating
from ..image_ids import check_image_ids
from ..streams import stream
from .balls import BALLS, Ball
from .checks import check_classes, check_pixels
from .objectives import AttackObjective, LogOdds
from .report import AttackReport
from .spec import Attack


def attacked(
    attack: Attack,
    model: HookedViT,
    pixels: Tensor,
    labels: Tensor | None = None,
    *,
    targets: Tensor | None = None,
    image_ids: Sequence[str] | None = None,
    seed: int = 0,
    step: int | None = None,
) -> tuple[Float[Tensor, "batch 3 height width"], AttackReport]:
    """Attack a batch of images as a spec says; `pgd` and `fgsm` are the doors to it.

    Args:
        attack: what to do.
        model: the model that is attacked.
        pixels: [batch 3 height width], float32 or float64 in [0, 1].
        labels: [batch] correct classes; an objective may do without.
        targets: [batch] classes to be reached.
        image_ids: one for each image; None numbers them.
        seed: of the random starts.
        step: the training step, where each step shall start anew.

    Returns:
        The attacked pixels, on the device of `pixels`, and how it went.

    Raises:
        ConditionError, HookError, LabelError, PixelError: as `pgd`.
    """
    given: object = model
    if not isinstance(given, HookedViT):
        raise ConditionError(
            f"The model is a {type(model).__name__}.",
            expected="a HookedViT, which knows its normalization",
            remedy="Write vitlens.HookedViT(model).",
        )
    classes = _checked(attack, model, pixels, labels, targets, image_ids)
    ids = [str(place) for place in range(len(pixels))] if image_ids is None else image_ids
    if len(pixels) == 0 or attack.eps_pixel == 0:
        return pixels.detach().clone(), _unmoved(len(pixels), attack.restarts)
    # Tensors that inference mode made cannot be part of a graph: copies that are made outside of it can.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(model.device.type, enabled=False),
        evaluating([model]),
    ):
        clean = pixels.detach().clone().to(model.device)
        classes = None if classes is None else classes.detach().clone().to(model.device).long()
        search = _Search(attack, model, clean, classes, LogOdds(targets is not None), ids, (seed, step))
        found, report = search.run()
    n_without = int(report.has_no_gradient.sum())
    if n_without:
        warnings.warn(
            f"{n_without} of {len(pixels)} attacked images have an input gradient of exactly 0 at the first "
            "step: the attack is void for them, and says nothing of the model's robustness. The model masks "
            "its gradients, or the objective is flat where the attack starts (see random_start).",
            UserWarning,
            stacklevel=3,
        )
    return found.to(pixels.device), report


def _checked(
    attack: Attack,
    model: HookedViT,
    pixels: Tensor,
    labels: Tensor | None,
    targets: Tensor | None,
    image_ids: Sequence[str] | None,
) -> Tensor | None:
    """The classes that the attack is about, after everything was looked at."""
    check_pixels(pixels, attack)
    attack.check(model)
    if targets is not None and attack.objective is not None:
        raise ConditionError(
            "Both targets and an objective are given.",
            expected="one of them",
            remedy="Leave out targets, or let the objective look at the logits.",
        )
    given = {"The labels": labels, "The targets": targets}
    for what, classes in given.items():
        if classes is not None:
            check_classes(classes, what, len(pixels), max(model.cfg.n_classes, 1))
    if attack.objective is None and labels is None and targets is None:
        raise ConditionError(
            "The attack is given no labels.",
            expected="labels, targets, or an objective that needs neither",
            remedy="Pass the correct classes, [batch].",
        )
    if image_ids is not None:
        check_image_ids(image_ids, len(pixels), attack.method, draws=attack.random_start)
    return labels if targets is None else targets


class _Search:
    """One attack of one batch."""

    def __init__(
        self,
        attack: Attack,
        model: HookedViT,
        clean: Tensor,
        classes: Tensor | None,
        odds: LogOdds,
        image_ids: Sequence[str],
        drawn_from: tuple[int, int | None],
    ) -> None:
        self._attack, self._model, self._clean, self._classes = attack, model, clean, classes
        self._odds, self._ids, self._drawn_from = odds, image_ids, drawn_from
        self._objective: AttackObjective = attack.objective or odds
        self._ball: Ball = BALLS[attack.norm](clean, attack.eps_pixel)
        self._before: dict[str, Tensor] = {}
        if self._objective.hook_names:
            with torch.no_grad():
                _, seen = self._look(clean)
            self._before = {name: activation.clone() for name, activation in seen.items()}

    def run(self) -> tuple[Tensor, AttackReport]:
        """The pixels with the largest value for each image, and how it went."""
        attack, n = self._attack, len(self._clean)
        found, best = self._clean.clone(), self._clean.new_full((n,), -torch.inf)
        best_at = torch.zeros(n, 2, dtype=torch.long, device=best.device)
        losses, shares, moves = [], [], torch.zeros(n, dtype=torch.bool, device=best.device)
        for restart in range(attack.restarts):
            pixels = self._start(restart)
            for step in range(attack.steps + 1):
                is_last = step == attack.steps
                value, gradient = self._value(pixels, is_last)
                # FGSM is its step, whether or not that raised the loss.
                is_better = value > best if attack.method == "pgd" else torch.full_like(moves, is_last)
                found = torch.where(is_better.view(-1, 1, 1, 1), pixels, found)
                best = torch.where(is_better, value, best)
                best_at[is_better] = torch.tensor([restart, step], device=best.device)
                losses.append(value)
                if gradient is None:
                    break
                zero = (gradient == 0).flatten(1)
                shares.append(zero.float().mean(dim=1))
                if step == 0:
                    moves |= ~zero.all(dim=1)
                pixels = self._ball.step(pixels, gradient, attack.step_pixel)
        values = torch.stack(losses, dim=1)
        return found, AttackReport(
            loss_per_step=(values if attack.objective else self._odds.nats(values))
            .view(n, attack.restarts, -1)
            .cpu(),
            best_restart=best_at[:, 0].cpu(),
            best_step=best_at[:, 1].cpu(),
            zero_gradient_share=torch.stack(shares).mean(dim=0).cpu(),
            has_no_gradient=(~moves).cpu(),
            perturbation_norm=self._ball.norm(found - self._clean).cpu(),
        )

    def _start(self, restart: int) -> Tensor:
        if not self._attack.random_start:
            return self._clean
        seed, step = self._drawn_from
        return self._ball.start([stream(seed, each, "pgd", restart, step) for each in self._ids])

    def _value(self, pixels: Tensor, is_last: bool) -> tuple[Tensor, Tensor | None]:
        """What the attack raises, [batch], and its gradient, which the last step has no use for."""
        if is_last:
            with torch.no_grad():
                return self._measured(pixels), None
        pixels = pixels.detach().requires_grad_()
        value = self._measured(pixels)
        if not value.requires_grad:
            raise ConditionError(
                f"What the attack raises ({self._objective!r}) does not depend on the pixels.",
                expected="a value with a gradient",
                remedy="Choose a hook that the image passes through, and turn off gradient checkpointing.",
            )
        (gradient,) = torch.autograd.grad(value.sum(), pixels, allow_unused=True)
        gradient = torch.zeros_like(pixels) if gradient is None else gradient
        n_bad = int((~gradient.isfinite()).flatten(1).any(dim=1).sum())
        if n_bad:
            raise ConditionError(
                f"The input gradients of {n_bad} of {len(pixels)} images are NaN or infinite.",
                expected="finite gradients",
                remedy="Look for overflow in the model: half precision, or damaged weights.",
            )
        return value.detach(), gradient

    def _measured(self, pixels: Tensor) -> Tensor:
        logits, seen = self._look(pixels)
        value = self._objective(self._model, seen, self._before, logits, self._classes)
        if not isinstance(value, Tensor) or tuple(value.shape) != (len(pixels),):
            given = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ConditionError(
                f"The attack's objective gave {given} for {len(pixels)} images.",
                expected="a tensor with one value for each image, [batch]",
                remedy="Sum or average over all axes but the first.",
            )
        return value

    def _look(self, pixels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        seen: dict[str, Tensor] = {}
        observers = {name: partial(seen.__setitem__, name) for name in self._objective.hook_names}
        with self._model.observing(observers):
            logits = self._model(self._model.normalize(pixels))
        return logits, seen


def _unmoved(n_images: int, restarts: int) -> AttackReport:
    nowhere = torch.zeros(n_images, dtype=torch.long)
    return AttackReport(
        loss_per_step=torch.zeros(n_images, restarts, 0),
        best_restart=nowhere,
        best_step=nowhere,
        zero_gradient_share=torch.full((n_images,), torch.nan),
        has_no_gradient=nowhere.bool(),
        perturbation_norm=torch.zeros(n_images),
    )
