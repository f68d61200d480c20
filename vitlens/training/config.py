"""What a fine-tuning run is: frozen, small, written beside its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import TrainingError
from ..images import Condition, parse_conditions


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune.

    Attributes:
        conditions: what corrupted images go through: `"gaussian_blur@3"`, a range `"gaussian_blur@1-5"`
            (a severity is drawn for each image), or one's own `{"name": callable on a batch}`.
        p_clean: probability that an image stays clean; 1 without conditions.
        steps: optimizer steps.
        batch_size: images a step.
        optimizer: timm's name of it.
        learning_rate: after the warm-up; it falls to zero along a half cosine.
        warmup_steps: steps in which the rate rises from zero.
        weight_decay: not applied to biases, gains and position embeddings (timm's rule).
        layer_decay: factor from each block to the one below it; None for one rate everywhere.
        label_smoothing: of the cross-entropy.
        max_grad_norm: gradients are clipped to this norm; None to leave them.
        checkpoint_every_steps: a killed run loses at most so many steps.
        seed: of the order of the data, the corruptions, dropout and drop path.

    Raises:
        TrainingError: a value makes no sense.
        ConditionError: a condition is not known.

    Example:
        >>> FinetuneConfig(conditions=["gaussian_blur@1-5"], steps=200).p_clean
        0.5
    """

    conditions: Sequence[str | Mapping[str, Any]] = ()
    p_clean: float = 0.5
    steps: int = 1000
    batch_size: int = 32
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    warmup_steps: int = 0
    weight_decay: float = 0.05
    layer_decay: float | None = None
    label_smoothing: float = 0.0
    max_grad_norm: float | None = 1.0
    checkpoint_every_steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        apart = [each.name for entry in self.choices() for each in entry if each.needs_model]
        if apart:
            raise TrainingError(
                f"The condition '{apart[0]}' looks inside the model.",
                expected="conditions that change pixels alone",
                remedy="Fine-tune on corruptions, and attack the result with vitlens.run.",
            )
        for name, holds, expected in (
            ("p_clean", 0 <= self.p_clean <= 1, "a probability"),
            ("p_clean", self.p_clean == 1 or bool(self.conditions), "1, as there are no conditions"),
            ("steps", self.steps >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 1, "1 or more"),
            ("learning_rate", self.learning_rate > 0, "more than 0"),
            ("warmup_steps", 0 <= self.warmup_steps < self.steps, f"0 to steps - 1 = {self.steps - 1}"),
            ("weight_decay", self.weight_decay >= 0, "0 or more"),
            ("layer_decay", self.layer_decay is None or 0 < self.layer_decay <= 1, "more than 0, at most 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "at least 0, less than 1"),
            ("max_grad_norm", self.max_grad_norm is None or self.max_grad_norm > 0, "more than 0, or None"),
            ("checkpoint_every_steps", self.checkpoint_every_steps >= 1, "1 or more"),
        ):
            if not holds:
                raise TrainingError(
                    f"{name} is {getattr(self, name)!r}.",
                    expected=expected,
                    remedy="Correct the FinetuneConfig.",
                )

    def choices(self) -> list[tuple[Condition, ...]]:
        """For each entry of `conditions`, the conditions that it stands for."""
        return [parse_conditions([spec]) for spec in self.conditions]

    def described(self) -> dict[str, Any]:
        """The configuration as JSON; a callable is known by its name."""
        named = [spec if isinstance(spec, str) else ",".join(spec) for spec in self.conditions]
        return {**vars(self), "conditions": named}
