"""Training a tuned lens: affine translators from each place on the residual stream to what the head reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..errors import AnalysisError, DatasetError
from ..functional.prediction import kl_nats
from ..images import Condition, collate
from ..models import HookedViT
from ..running.passes import forward, measuring
from ..running.showing import shown
from .logit_lens import places

MAX_KEPT_BYTES = 2**30
"""Residual streams that are kept between epochs, so that an image that comes again is not run again."""


@dataclass(frozen=True)
class Recipe:
    """How to train translators.

    Attributes:
        n_steps: optimizer steps.
        batch_size: images a step.
        learning_rate: at the first step; None stands for 0.8 / d_model.
        weight_decay: toward the plain lens, as a share of the learning rate.
        seed: of the order of the images, and of the corruptions.

    Raises:
        AnalysisError: a value makes no sense.
    """

    n_steps: int
    batch_size: int
    learning_rate: float | None
    weight_decay: float
    seed: int

    def __post_init__(self) -> None:
        for name, holds, expected in (
            ("n_steps", self.n_steps >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("learning_rate", self.learning_rate is None or self.learning_rate > 0, "more than 0, or None"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
        ):
            if not holds:
                raise AnalysisError(
                    f"{name} is {getattr(self, name)!r}.",
                    expected=expected,
                    remedy="Leave it out for what suits most models.",
                )

    def first_rate(self, model: HookedViT) -> float:
        """The learning rate at the first step."""
        # Adam moves every weight alike, and a token has d_model of them to add up.
        return self.learning_rate or 0.8 / model.cfg.d_model


def read_tokens(model: HookedViT, resid: Float[Tensor, "batch pos d_model"]) -> Tensor:
    """The tokens that the model's readout may look at: the prefix where it pools by token, else all."""
    return resid[:, : max(1, model.cfg.n_prefix_tokens)] if model.cfg.pool == "token" else resid


def translated_readout(
    model: HookedViT,
    resid: Float[Tensor, "batch pos d_model"],
    weight: Float[Tensor, "d_model d_model"],
    bias: Float[Tensor, " d_model"],
) -> Float[Tensor, "batch n_classes"]:
    """The model's readout of `resid + weight · resid + bias`.

    Args:
        model: a model with a classifier.
        resid: a place on the residual stream, with all tokens that the readout looks at.
        weight: what is added, by token; 0 leaves the plain lens.
        bias: what is added to every token.

    Returns:
        Logits, float32.
    """
    tokens = read_tokens(model, resid).float()
    translated = tokens + F.linear(tokens, weight, bias)
    return model.readout(translated.to(resid.dtype)).float()


def fit_translators(
    model: HookedViT,
    dataset: Any,
    conditions: Sequence[Condition],
    recipe: Recipe,
    *,
    what: str,
    progress: bool,
) -> tuple[Float[Tensor, "place d_model d_model"], Float[Tensor, "place d_model"]]:
    """Weights and biases that bring each place's readout near the model's output, KL(output ‖ lens).

    AdamW with a rate that falls to zero in a straight line, from the identity. Weight decay pulls toward
    the plain lens. A bias is trained in units of its stream's root mean square, so that one rate suits all.

    Args:
        model: the model; its parameters and their gradients are left alone.
        dataset: items by index; labels play no part, but where a condition attacks the model.
        conditions: each image is shown under each, once an epoch.
        recipe: how.
        what: the bar's name.
        progress: show a bar.

    Returns:
        For every place but the last; on the CPU.

    Raises:
        AnalysisError: the divergence is no longer finite.
        DatasetError: the data set has no items by index.
    """
    source = _Source(model, dataset, conditions, recipe.seed)
    d_model, device = model.cfg.d_model, model.device
    weights = [torch.zeros(d_model, d_model, device=device, requires_grad=True) for _ in places(model)]
    units = [torch.zeros(d_model, device=device, requires_grad=True) for _ in places(model)]
    scales: list[Tensor] = []
    learning_rate = recipe.first_rate(model)
    optimizer = torch.optim.AdamW(
        [*weights, *units],
        lr=learning_rate,
        weight_decay=recipe.weight_decay,
        # About a tenth of a gradient at the early places: where the plain lens is nearly the output already,
        # a gradient below is mostly this batch's, and Adam would make as large a step of it as of any other.
        eps=0.2 / d_model,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / recipe.n_steps)
    bar = tqdm(total=recipe.n_steps, desc=what, unit="step", disable=not progress)
    with bar, measuring([model]):
        for indices in _order(len(source), recipe):
            stream, logits = source.batch(indices)
            scales = scales or [resid.float().square().mean().sqrt() for resid in stream]
            total = 0.0
            for resid, weight, unit, scale in zip(stream, weights, units, scales, strict=True):
                with torch.enable_grad():
                    lens = translated_readout(model, resid, weight, unit * scale)
                    loss = kl_nats(logits, lens).mean()
                # Not backward(), which would leave gradients in the model's head and norm.
                weight.grad, unit.grad = torch.autograd.grad(loss, [weight, unit])
                total += loss.item()
            if not math.isfinite(total):
                raise AnalysisError(
                    f"The divergence of the output from the tuned lens is {total}.",
                    expected="a finite number of nats",
                    remedy=f"Lower learning_rate, which is {learning_rate:.2g}.",
                )
            optimizer.step()
            schedule.step()
            bar.set_postfix_str(f"mean KL {total / len(weights):.3f} nats", refresh=False)
            bar.update()
    biases = [unit * scale for unit, scale in zip(units, scales, strict=True)]
    return torch.stack(weights).detach().cpu(), torch.stack(biases).detach().cpu()


class _Source:
    """Residual streams and logits of images under conditions, by index."""

    def __init__(self, model: HookedViT, dataset: Any, conditions: Sequence[Condition], seed: int) -> None:
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and len(dataset)):
            raise DatasetError(
                f"The data set is a {type(dataset).__name__} without items by index.",
                expected="a sequence or a map-style torch Dataset with at least one item",
                remedy="Put the items into a list, or give the Dataset __len__ and __getitem__.",
            )
        self._model, self._dataset = model, dataset
        self._conditions, self._seed = tuple(conditions), seed
        for condition in conditions:
            condition.check({"model": model})
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._n_kept_bytes = 0

    def __len__(self) -> int:
        return len(self._dataset) * len(self._conditions)

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Streams [place batch pos d_model] and logits [batch n_classes], on the model's device."""
        rows = {index: self._kept[index] for index in indices if index in self._kept}
        for condition_number, condition in enumerate(self._conditions):
            new = [
                index
                for index in dict.fromkeys(indices)
                if index not in rows and index % len(self._conditions) == condition_number
            ]
            if new:
                rows |= self._run(new, condition)
        device = self._model.device
        streams = torch.stack([rows[index][0] for index in indices], dim=1)
        return streams.to(device), torch.stack([rows[index][1] for index in indices]).to(device)

    def _run(self, indices: Sequence[int], condition: Condition) -> dict[int, tuple[Tensor, Tensor]]:
        """Stream [place pos d_model] and logits [n_classes] of new images, kept while there is room."""
        model, names = self._model, places(self._model)
        clean = collate([self._dataset[index // len(self._conditions)] for index in indices])
        seen = shown(condition, clean, {"model": model}, seed=self._seed)["model"]
        reductions = dict.fromkeys(names, lambda resid: read_tokens(model, resid).clone())
        logits, (view,) = forward(model, seen.pixels, [reductions])
        streams = torch.stack([view[name] for name in names], dim=1).cpu()
        logits = logits.float().cpu()
        rows = dict(zip(indices, zip(streams, logits, strict=True), strict=True))
        if self._n_kept_bytes + streams.nbytes + logits.nbytes <= MAX_KEPT_BYTES:
            self._kept |= rows
            self._n_kept_bytes += streams.nbytes + logits.nbytes
        return rows


def _order(n_items: int, recipe: Recipe) -> Iterator[list[int]]:
    """Batches cut from shuffled epochs laid end to end."""
    generator = torch.Generator().manual_seed(recipe.seed)
    waiting: list[int] = []
    for _ in range(recipe.n_steps):
        while len(waiting) < recipe.batch_size:
            waiting += torch.randperm(n_items, generator=generator).tolist()
        yield waiting[: recipe.batch_size]
        del waiting[: recipe.batch_size]
