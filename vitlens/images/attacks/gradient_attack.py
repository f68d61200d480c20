"""`fgsm` and `pgd`: the doors to attacks by the gradient of the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from torch import Tensor

from ...models import HookedViT
from .objectives import AttackObjective
from .report import AttackReport
from .search import attacked
from .spec import EPS_PIXEL, STEPS, Attack


@overload
def fgsm(
    model: HookedViT,
    pixels: Tensor,
    labels: Tensor | None = None,
    eps_pixel: float = EPS_PIXEL,
    *,
    targets: Tensor | None = None,
    objective: AttackObjective | None = None,
    return_report: Literal[False] = False,
) -> Tensor: ...


@overload
def fgsm(
    model: HookedViT,
    pixels: Tensor,
    labels: Tensor | None = None,
    eps_pixel: float = EPS_PIXEL,
    *,
    targets: Tensor | None = None,
    objective: AttackObjective | None = None,
    return_report: Literal[True],
) -> tuple[Tensor, AttackReport]: ...


def fgsm(
    model: HookedViT,
    pixels: Tensor,
    labels: Tensor | None = None,
    eps_pixel: float = EPS_PIXEL,
    *,
    targets: Tensor | None = None,
    objective: AttackObjective | None = None,
    return_report: bool = False,
) -> Tensor | tuple[Tensor, AttackReport]:
    """The fast gradient sign method: every pixel moves by ε the way that raises the cross-entropy.

    One step of `pgd` from the image itself, taken whether or not it raises the loss.

    Args:
        model: as in `pgd`.
        pixels: as in `pgd`.
        labels: as in `pgd`.
        eps_pixel: how far each pixel and channel is moved, for pixels in [0, 1].
        targets: as in `pgd`.
        objective: as in `pgd`.
        return_report: as in `pgd`.

    Returns:
        The attacked pixels, and with `return_report` how it went.

    Raises:
        ConditionError, HookError, LabelError, PixelError: as in `pgd`.

    Source: Goodfellow, Shlens & Szegedy (2015), Explaining and harnessing adversarial examples, section 4.

    Example:
        >>> import timm, torch, vitlens as vl
        >>> from vitlens.testing import randomize
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=2)
        >>> model = vl.HookedViT(randomize(vit))
        >>> pixels = torch.full((2, 3, 32, 32), 0.5)
        >>> attacked = fgsm(model, pixels, torch.tensor([3, 7]), eps_pixel=1 / 4)
        >>> attacked.unique()
        tensor([0.2500, 0.7500])
    """
    found, report = attacked(
        Attack.fgsm(eps_pixel, objective=objective), model, pixels, labels, targets=targets
    )
    return (found, report) if return_report else found


@overload
def pgd(
    model: HookedViT,
    pixels: Tensor,
    labels: Tensor | None = None,
    eps_pixel: float = EPS_PIXEL,
    alpha_pixel: float | None = None,
    steps: int = STEPS,
    norm: str = "linf",
    *,
    random_start: bool = True,
    restarts: int = 1,
    targets: Tensor | None = None,
    objective: AttackObjective | None = None,
    image_ids: Sequence[str] | None = None,
    seed: int = 0,
    return_report: Literal[False] = False,
) -> Tensor: ...


@overload
def pgd(
    model: HookedViT,
    pixels: Tensor,
    labels: Tensor | None = None,
    eps_pixel: float = EPS_PIXEL,
    alpha_pixel: float | None = None,
    steps: int = STEPS,
    norm: str = "linf",
    *,
    random_start: bool = True,
    restarts: int = 1,
    targets: Tensor | None = None,
    objective: AttackObjective | None = None,
    image_ids: Sequence[str] | None = None,
    seed: int = 0,
    return_report: Literal[True],
) -> tuple[Tensor, AttackReport]: ...


def pgd(
    model: HookedViT,
    pixels: Tensor,
    labels: Tensor | None = None,
    eps_pixel: float = EPS_PIXEL,
    alpha_pixel: float | None = None,
    steps: int = STEPS,
    norm: str = "linf",
    *,
    random_start: bool = True,
    restarts: int = 1,
    targets: Tensor | None = None,
    objective: AttackObjective | None = None,
    image_ids: Sequence[str] | None = None,
    seed: int = 0,
    return_report: bool = False,
) -> Tensor | tuple[Tensor, AttackReport]:
    """Projected gradient descent: repeated steps that raise the loss, inside a ball around each image.

    Taken is, for each image by itself, the point with the largest loss among the starts and all steps of all
    restarts: with steps of one length, more of them never weaken the attack, and neither do more restarts.

    ε and the steps are in units of pixels that go from 0 to 1: the normalization is part of what is attacked.
    The model runs in evaluation mode, in the precision of its parameters, with the hooks that are set on it,
    and is left as it was: parameters, their gradients and every module's mode. It may be called under
    `torch.no_grad` and `torch.inference_mode`.

    An image's result depends on its pixels, its id, the seed and the settings alone: not on the batch it
    comes in, but by rounding, which the sign of a gradient near 0 can turn into a whole step of that pixel.

    Args:
        model: the model that is attacked.
        pixels: [batch 3 height width], float32 or float64 in [0, 1], on any device.
        labels: [batch] the correct classes; targets, and an objective that has no use for them, do without.
        eps_pixel: the radius of the ball. 0 hands back a copy.
        alpha_pixel: the length of a step; None for 2.5 · ε / steps, with which the boundary can be reached
            from anywhere in the ball.
        steps: how many, for each restart; each is a forward and a backward pass.
        norm: `"linf"`, each pixel and channel changes by at most ε, and moves by the sign of its gradient;
            `"l2"`, the root of the summed squares is at most ε, and images move along their gradients.
        random_start: begin at a point drawn from the ball, otherwise at the image.
        restarts: how often to begin anew, each with a draw of its own.
        targets: [batch] classes to be reached, in place of leaving the correct ones.
        objective: what to raise in place of the cross-entropy: `ActivationChange`,
            `vitlens.saes.FeatureObjective`, or an `AttackObjective` of one's own.
        image_ids: one for each image, no two alike: the random starts hang on them. None numbers the images.
        seed: the study's seed.
        return_report: return an `AttackReport` as well.

    Returns:
        The attacked pixels, of the shape, dtype and device of `pixels`; with `return_report` also how it
        went.

    Raises:
        ConditionError: a setting makes no sense, the model has no classifier and there is no objective, ids
            do not fit, the objective breaks its protocol, or gradients are not finite.
        HookError: the model lacks a hook that the objective names.
        LabelError: labels or targets are none of the classes, or of another number than the images.
        PixelError: the pixels are no such batch, or do not fit the model.

    Source: Madry, Makelov, Schmidt, Tsipras & Vladu (2018), Towards deep learning models resistant to
    adversarial attacks, section 2.1.

    Example:
        >>> import timm, torch, vitlens as vl
        >>> from vitlens.testing import randomize
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=2)
        >>> model = vl.HookedViT(randomize(vit))
        >>> pixels = torch.stack([vl.images.digits("test")[i]["pixels"] for i in range(2)])
        >>> labels = torch.tensor([3, 7])
        >>> attacked, report = pgd(model, pixels, labels, eps_pixel=4 / 255, return_report=True)
        >>> bool((attacked - pixels).abs().max() <= 4 / 255)
        True
        >>> report.loss_per_step.shape  # image, restart, the start and ten steps
        torch.Size([2, 1, 11])
        >>> bool((report.loss_per_step[:, 0, -1] > report.loss_per_step[:, 0, 0]).all())
        True
    """
    attack = Attack("pgd", eps_pixel, alpha_pixel, steps, norm, restarts, random_start, objective=objective)
    found, report = attacked(attack, model, pixels, labels, targets=targets, image_ids=image_ids, seed=seed)
    return (found, report) if return_report else found
