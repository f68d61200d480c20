"""One forward pass: models in evaluation mode, pixels on their device, only what was asked for kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import AnalysisError
from ..models import ActivationCache, HookedViT, evaluating
from ..models.hook_point import Observer
from ..names import nearest
from .analysis import Reduction
from .finiteness import Notice, Watch, place_of, watched

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""What `precision` may be, besides None."""


@contextlib.contextmanager
def measuring(models: Sequence[HookedViT]) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module has its own mode again.

    An analysis that wants gradients may still enable them: no inference tensors are made.

    Args:
        models: some may share modules.

    Returns:
        A context manager that yields nothing.

    Example:
        >>> import timm
        >>> model = HookedViT(timm.create_model("vit_tiny_patch16_224", depth=1).train())
        >>> with measuring([model]):
        ...     inside = model.training, torch.is_grad_enabled()
        >>> inside, model.training
        ((False, False), True)
    """
    with evaluating(models), torch.no_grad():
        yield


def check_precision(precision: str | None) -> None:
    """Raise `AnalysisError` for a precision that is none."""
    if precision is not None and precision not in PRECISIONS:
        raise AnalysisError(
            f"The precision is {precision!r}.",
            expected=f"None (the model's own), {' or '.join(repr(name) for name in PRECISIONS)}",
            remedy="Choose 'bfloat16' to run the matrix products in mixed precision; results are float32.",
        )


@contextlib.contextmanager
def mixed(model: HookedViT, precision: str | None) -> Iterator[None]:
    """Mixed precision on the model's device; None leaves everything as it is."""
    if precision is None:
        yield
        return
    with torch.autocast(model.device.type, dtype=PRECISIONS[precision]):
        yield


def forward(
    model: HookedViT,
    pixels: Tensor,
    wanted: Sequence[Mapping[str, Reduction]],
    *,
    notice: Notice | None = None,
    names: Sequence[str] | None = None,
) -> tuple[Tensor, list[ActivationCache]]:
    """Run `model` once for several readers.

    Args:
        model: the model.
        pixels: [batch 3 height width] in [0, 1].
        wanted: for each reader, hook name -> reduction.
        notice: told of images whose activations, before any reduction, or logits are not finite.
        names: the readers', for `notice`.

    Returns:
        The logits, and for each reader its own view: just what it asked for, reduced as it asked.

    Example:
        >>> import timm
        >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=1)
        >>> name = "blocks.0.hook_resid_post"
        >>> wanted = [{name: None}, {name: lambda activation: activation[:, 0]}]
        >>> logits, (whole, reduced) = forward(HookedViT(vit.eval()), torch.rand(2, 3, 32, 32), wanted)
        >>> whole[name].shape, reduced[name].shape
        (torch.Size([2, 5, 192]), torch.Size([2, 192]))
    """
    views: list[dict[str, Tensor]] = [{} for _ in wanted]
    readers: dict[str, list[tuple[dict[str, Tensor], Reduction]]] = {}
    called: dict[str, list[str]] = {}
    for view, reductions, who in zip(views, wanted, names or [""] * len(wanted), strict=True):
        for name, reduction in reductions.items():
            readers.setdefault(name, []).append((view, reduction))
            called.setdefault(name, []).append(who)
    watch = None if notice is None else Watch(len(pixels))
    observers = {
        name: watched(watch, place_of(name, called[name]), _reader(model, name, each))
        for name, each in readers.items()
    }
    images = model.normalize(pixels.to(model.device))
    with model.observing(observers):
        logits = model(images)
    if watch is not None and notice is not None:
        watch.look("the logits", logits)
        watch.tell(notice)
    return logits, [ActivationCache(view, model) for view in views]


class Backward(NamedTuple):
    """One forward and one backward pass.

    Attributes:
        logits: [batch n_classes], detached.
        activations: hook name -> activation, detached.
        gradients: hook name -> gradient of each image's own score, of the activation's shape.
        logits_gradient: the same at the logits.
    """

    logits: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    logits_gradient: Tensor


def correct_logit(
    logits: Float[Tensor, "batch n_classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """The correct class's logit."""
    return logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)


def forward_and_backward(
    model: HookedViT,
    pixels: Float[Tensor, "batch 3 height width"],
    labels: Int[Tensor, " batch"],
    names: Sequence[str],
    score: Callable[[Tensor, Tensor], Tensor] = correct_logit,
) -> Backward:
    """Activations, and the gradients of each image's score with respect to them.

    Images do not see each other in a forward pass, so one backward pass from the sum of their scores gives
    each image its own gradient.

    Args:
        model: the model, in evaluation mode.
        pixels: in [0, 1].
        labels: the correct classes.
        names: hooks.
        score: (logits, labels) -> [batch].

    Returns:
        The logits, the activations and the gradients.

    Raises:
        AnalysisError: an activation does not depend on the image.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Observer:
        def observe(activation: Tensor) -> None:
            seen[name] = activation

        return observe

    with torch.enable_grad():
        # From the pixels on, so that a model with frozen parameters has a graph as well.
        images = model.normalize(pixels.to(model.device).detach()).requires_grad_()
        with model.observing({name: keep(name) for name in names}):
            logits = model(images)
        constant = next((name for name in names if not seen[name].requires_grad), None)
        if constant is not None:
            raise AnalysisError(
                f"'{constant}' does not depend on the image, and the model's parameters are frozen.",
                expected="a hook that the image passes through",
                remedy="Choose another hook, or let the parameters require gradients.",
            )
        total = score(logits, labels.to(model.device)).sum()
        of_logits, *gradients = torch.autograd.grad(total, [logits, *(seen[name] for name in names)])
    activations = {name: seen[name].detach() for name in names}
    return Backward(logits.detach(), activations, dict(zip(names, gradients, strict=True)), of_logits)


def _reader(model: HookedViT, name: str, readers: list[tuple[dict[str, Tensor], Reduction]]) -> Observer:
    def observe(activation: Tensor) -> None:
        for view, reduction in readers:
            # Two readers that keep the whole activation share it.
            view[name] = model.keep(activation) if reduction is None else reduction(activation)

    return observe


def check_hooks(model: HookedViT, wanted: Mapping[str, Reduction] | Sequence[str], who: object) -> None:
    """Raise `AnalysisError` where somebody asks for a hook that the model has not."""
    missing = [name for name in wanted if name not in model.hook_dict]
    if missing:
        raise AnalysisError(
            f"{type(who).__name__} needs '{missing[0]}', which this model has not.",
            expected=f"a hook of this model (nearest: {nearest(missing[0], model.hook_names)})",
            remedy="See model.hook_names; leave the analysis out where the architecture has no such place.",
        )
