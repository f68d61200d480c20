"""What a fine-tuning run is: frozen, small, written beside its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Any

from timm.optim import get_optimizer_info, list_optimizers

from ..errors import TrainingError
from ..images import Condition, parse_conditions
from ..images.values import is_real, is_whole
from ..names import nearest
from ..running.passes import PRECISIONS
from .losses import CrossEntropy, Objective
from .mixing import Mix

DEFAULT_STEPS = 1000
"""Optimizer steps where neither `steps` nor `epochs` is said."""

_KINDS: Mapping[str, tuple[Callable[[Any], bool], Callable[[Any], Any], str]] = {
    "int": (is_whole, int, "a whole number"),
    "float": (is_real, float, "a number"),
    "str": (lambda value: isinstance(value, str), str, "a text"),
}
"""For what a field is annotated with: how it is told, what it is kept as, and its words."""

_SERIES = ("conditions", "evaluation_conditions", "snapshot_steps")


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune.

    Attributes:
        conditions: what corrupted images go through: `"gaussian_blur@3"`, a range `"gaussian_blur@1-5"` or a
            group `"adds_high_frequency@1-5"` (one is drawn for each image), an attack `"pgd:eps=4/255"`, a
            Fourier band, or one's own `{"name": callable on a batch}`.
        p_clean: probability that an image stays clean; 1 without conditions.
        steps: optimizer steps; 1,000 where `epochs` is not given either.
        epochs: passes over the data in its place, also a fraction of one; the last step is a whole one, and
            may reach into the next pass.
        batch_size: images of an optimizer step, over all processes and all accumulated parts.
        accumulation_steps: into how many parts, one after the other, a process cuts its share of a step.
        optimizer: timm's name of it.
        learning_rate: after the warm-up; it falls towards zero along a half cosine.
        warmup_steps: steps in which the rate rises, in equal parts.
        weight_decay: not applied to biases, gains and position embeddings (timm's rule).
        layer_decay: factor from each block to the one below it; None for one rate everywhere.
        drop_path_rate: stochastic depth of the last block; it grows from 0 linearly with depth. None leaves
            the model's.
        label_smoothing: of the cross-entropy.
        ema_decay: of an average over the steps' weights, which then is what is evaluated, kept as a snapshot
            and returned; None for the weights themselves.
        max_grad_norm: gradients are clipped to this norm; None to leave them.
        precision: `"bfloat16"` or `"float16"` trains in mixed precision; None in the model's own.
        trainable: "all", "head", "attention", "norm", or a tuple of "head", "attention", "norm", "embed",
            "blocks.10" and so on; all else stays as it is.
        loss: what is made small: `CrossEntropy()`, `Adversarial()`, `Trades()` or `Consistency()`.
        new_head: the number of classes of a new classifier, which takes the place of the model's own.
        evaluation_conditions: under what `evaluate_on` is shown.
        evaluate_every_steps: evaluate at the start, every so many steps, and at the end; None at the end.
        checkpoint_every_steps: a killed run loses at most so many steps.
        snapshot_steps: after how many steps to keep a copy of the model; 0 is the start.
        seed: of the order of the data, the corruptions, dropout, drop path and a new head.

    Raises:
        TrainingError: a value makes no sense.
        ConditionError: a condition is not known.

    Example:
        >>> config = FinetuneConfig(conditions=["gaussian_blur@1-5"], epochs=3, batch_size=64)
        >>> config.p_clean, config.n_steps(n_items=1000)
        (0.5, 47)
    """

    conditions: Sequence[str | Mapping[str, Any]] = ()
    p_clean: float = 0.5
    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 32
    accumulation_steps: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    weight_decay: float = 0.05
    layer_decay: float | None = None
    drop_path_rate: float | None = None
    label_smoothing: float = 0.0
    ema_decay: float | None = None
    max_grad_norm: float | None = 1.0
    precision: str | None = None
    trainable: str | tuple[str, ...] = "all"
    loss: Objective = field(default_factory=CrossEntropy)
    new_head: int | None = None
    evaluation_conditions: Sequence[str | Mapping[str, Any]] = ("clean",)
    evaluate_every_steps: int | None = None
    checkpoint_every_steps: int = 100
    snapshot_steps: Sequence[int] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for each in fields(self):
            # Kept as Python's own and unchangeable: what is written beside the result stays true.
            object.__setattr__(self, each.name, _plain(each.name, str(each.type), getattr(self, each.name)))
        self.choices()
        parse_conditions(self.evaluation_conditions)
        named = ", ".join(f"'{name}'" for name in PRECISIONS)
        optimizers = list_optimizers()
        name_alone = self.optimizer.lower().removeprefix("lookahead_")
        is_known = name_alone in optimizers
        for name, holds, expected in (
            ("p_clean", 0 <= self.p_clean <= 1, "a probability"),
            ("p_clean", self.p_clean == 1 or bool(self.conditions), "1, as there are no conditions"),
            ("steps", self.steps is None or self.steps >= 1, "1 or more"),
            ("steps", self.steps is None or self.epochs is None, "None, as epochs is given"),
            ("epochs", self.epochs is None or 0 < self.epochs < math.inf, "more than 0"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("accumulation_steps", self.accumulation_steps >= 1, "1 or more"),
            (
                "accumulation_steps",
                self.accumulation_steps <= self.batch_size,
                f"at most batch_size = {self.batch_size}",
            ),
            ("optimizer", is_known, f"a name that timm has (nearest: {nearest(name_alone, optimizers)})"),
            (
                "optimizer",
                not is_known or not get_optimizer_info(name_alone).second_order,
                "one that needs gradients alone",
            ),
            ("learning_rate", 0 < self.learning_rate < math.inf, "more than 0"),
            ("warmup_steps", self.warmup_steps >= 0, "0 or more"),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more"),
            ("layer_decay", self.layer_decay is None or 0 < self.layer_decay <= 1, "more than 0, at most 1"),
            (
                "drop_path_rate",
                self.drop_path_rate is None or 0 <= self.drop_path_rate < 1,
                "at least 0, less than 1",
            ),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "at least 0, less than 1"),
            ("ema_decay", self.ema_decay is None or 0 < self.ema_decay < 1, "between 0 and 1, or None"),
            ("max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0, "more than 0, or None"),
            ("precision", self.precision is None or self.precision in PRECISIONS, f"None, {named}"),
            ("loss", isinstance(self.loss, Objective), "an Objective, such as CrossEntropy()"),
            ("new_head", self.new_head is None or self.new_head >= 1, "1 class or more, or None"),
            (
                "evaluate_every_steps",
                self.evaluate_every_steps is None or self.evaluate_every_steps >= 1,
                "1 or more, or None",
            ),
            ("checkpoint_every_steps", self.checkpoint_every_steps >= 1, "1 or more"),
            ("snapshot_steps", all(step >= 0 for step in self.snapshot_steps), "0 or more each"),
        ):
            if not holds:
                raise _senseless(name, getattr(self, name), expected)
        if self.epochs is None:
            self._fits(self.n_steps(1))

    def n_steps(self, n_items: int) -> int:
        """How many optimizer steps the run has on a data set of `n_items` items.

        Raises:
            TrainingError: the warm-up or a snapshot lies beyond them.
        """
        if self.epochs is None:
            return DEFAULT_STEPS if self.steps is None else self.steps
        # As it is written: 1.1 is a little more than eleven tenths, and would be a step more.
        n_steps = math.ceil(Fraction(repr(self.epochs)) * n_items / self.batch_size)
        self._fits(n_steps)
        return n_steps

    def _fits(self, n_steps: int) -> None:
        if self.warmup_steps >= n_steps:
            raise _senseless("warmup_steps", self.warmup_steps, f"0 to steps - 1 = {n_steps - 1}")
        if max(self.snapshot_steps, default=0) > n_steps:
            raise _senseless("snapshot_steps", self.snapshot_steps, f"none above the run's {n_steps} steps")

    def choices(self) -> list[tuple[Condition, ...]]:
        """For each entry of `conditions`, the conditions that it stands for."""
        return [parse_conditions([spec]) for spec in self.conditions]

    def mix(self) -> Mix:
        """What is done to the images of a step."""
        return Mix(tuple(self.choices()), self.p_clean, self.seed)

    def described(self) -> dict[str, Any]:
        """The configuration as JSON; a callable is known by its name."""
        # Not by dataclasses.asdict, which copies what is inside: an operation of one's own need not bear it.
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        for name in ("conditions", "evaluation_conditions"):
            values[name] = [_condition_name(spec) for spec in values[name]]
        values["loss"] = _described(self.loss)
        values["snapshot_steps"] = list(self.snapshot_steps)
        values["trainable"] = self.trainable if isinstance(self.trainable, str) else list(self.trainable)
        return values


def _plain(name: str, annotation: str, value: Any) -> Any:
    """A field's value as it is kept."""
    if name in _SERIES:
        return _series(name, value)
    if name == "trainable":
        words = () if not isinstance(value, Iterable) else (value,) if isinstance(value, str) else (*value,)
        if not words or not all(isinstance(word, str) for word in words):
            raise _senseless(name, value, "'all', or names of some of the model's parts")
        return words[0] if len(words) == 1 else words
    kind, *rest = annotation.split(" | ")
    if kind not in _KINDS or (value is None and rest):
        return value
    is_such, kept_as, words_for = _KINDS[kind]
    if not is_such(value):
        raise _senseless(name, value, words_for + (" or None" if rest else ""))
    return kept_as(value)


def _series(name: str, value: Any) -> tuple[Any, ...]:
    of = "whole numbers" if name == "snapshot_steps" else "conditions"
    if isinstance(value, str | Mapping | Condition) or not isinstance(value, Iterable):
        raise _senseless(name, value, f"a list or tuple of {of}")
    members = tuple(value)
    if name != "snapshot_steps":
        return members
    if not all(map(is_whole, members)):
        raise _senseless(name, value, f"a list or tuple of {of}")
    return tuple(sorted(set(map(int, members))))


def _condition_name(spec: Any) -> str:
    if isinstance(spec, str):
        return spec
    return spec.name if isinstance(spec, Condition) else ",".join(spec)


def _described(objective: Objective) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name in getattr(objective, "__dataclass_fields__", ()):
        value = getattr(objective, name)
        settings[name] = value if isinstance(value, str | int | float | None) else repr(value)
    return {"kind": type(objective).__name__, **settings}


def _senseless(name: str, value: Any, expected: str) -> TrainingError:
    return TrainingError(f"{name} is {value!r}.", expected=expected, remedy="Correct the FinetuneConfig.")
