"""Conditions: under what the images are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from ..errors import ConditionError
from ..models import HookedViT
from ..names import nearest
from .attacks import Attack, attacked
from .corruptions import check_severity, corrupt, find_corruption, ready_corruption
from .corruptions.jpeg import check_quality
from .corruptions.registry import own_operation, source_sha256
from .fourier import FourierPerturbation
from .pixels import check_returned


@dataclass(frozen=True)
class WhiteBox:
    """An operation of one's own that looks inside the model: each checkpoint gets pixels of its own.

    Analyses that pair the activations of two checkpoints refuse it.

    Attributes:
        operation: (model, pixels [batch 3 height width] in [0, 1], labels [batch]) -> the same pixels'
            shape, in [0, 1]. It is called without gradients; enable them inside.

    Example:
        >>> Condition("mine", WhiteBox(lambda model, pixels, labels: pixels / 2)).shares_pixels
        False
    """

    operation: Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Condition:
    """Something that is done to the images before a model sees them.

    Attributes:
        name: what it is called in tables: the string itself, such as "gaussian_blur@3".
        corruption: a key of `CORRUPTIONS`, a `FourierNoise` or `FourierWave`, an `Attack`, one's own
            operation on a batch, a `WhiteBox`, or None for clean images.
        severity: 1 to 5 for a key of `CORRUPTIONS`, else None.
        jpeg_quality: for a key of `CORRUPTIONS`, as in `corrupt`.

    Raises:
        ConditionError: `corruption` is a string that is no key of `CORRUPTIONS`, lacks its severity or the
            files it needs, or the quality is none.

    Example:
        >>> import torch
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> Condition("dark", lambda pixels: pixels / 2).apply(grey, ["a"]).unique()
        tensor([0.2500])
    """

    name: str
    corruption: str | FourierPerturbation | Attack | Callable[[Tensor], Tensor] | WhiteBox | None = None
    severity: int | None = None
    jpeg_quality: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.corruption, str):
            ready_corruption(self.corruption)
            check_severity(self.corruption, self.severity)
        if self.jpeg_quality is not None:
            check_quality(self.jpeg_quality)
            if not isinstance(self.corruption, str):
                raise ConditionError(
                    f"The condition '{self.name}' has a jpeg_quality, and is no corruption of the registry.",
                    expected="jpeg_quality with a key of vitlens.CORRUPTIONS",
                    remedy="Leave it out; vitlens.corrupt(..., 'jpeg', ...) stores any pixels as JPEG.",
                )

    @property
    def identity(self) -> str:
        """The name, and what it stands for where the name alone does not say.

        The parameters, the files, and of an operation of one's own its source.
        """
        if isinstance(self.corruption, Attack | FourierPerturbation):
            # An object's address says nothing about what it does.
            return re.sub(r" at 0x[0-9a-f]+", "", f"{self.name} {self.corruption}")
        if self.corruption is None:
            return self.name
        if not isinstance(self.corruption, str):
            own = self.corruption.operation if isinstance(self.corruption, WhiteBox) else self.corruption
            return f"{self.name} {source_sha256(own)}"
        spec = find_corruption(self.corruption)
        row = spec.parameters[(self.severity or 1) - 1]
        return " ".join(filter(None, (self.name, str(row), spec.assets, own_operation(spec))))

    @property
    def shares_pixels(self) -> bool:
        """Whether all checkpoints see the same pixels."""
        return not self.needs_model or self.attacked_checkpoint is not None

    @property
    def needs_model(self) -> bool:
        """Whether the pixels depend on a model."""
        return isinstance(self.corruption, Attack | WhiteBox)

    @property
    def attacked_checkpoint(self) -> str | None:
        """The one checkpoint whose attacked pixels all checkpoints see; None where there is no such one."""
        return self.corruption.on if isinstance(self.corruption, Attack) else None

    def check(self, models: Mapping[str, HookedViT]) -> None:
        """Refuse checkpoints to which the images cannot be shown so, before any image is read.

        Args:
            models: checkpoint name -> model; `model` is the name of one that was given alone.

        Raises:
            ConditionError: the checkpoint that shall be attacked is not there, or lacks a classifier.
            HookError: it lacks a hook that the attack aims at.

        Example:
            >>> import timm
            >>> vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10, depth=1)
            >>> Condition("pgd:on=bass", Attack(on="bass")).check({"base": HookedViT(vit)})
            Traceback (most recent call last):
            ...
            vitlens.errors.ConditionError: The condition 'pgd:on=bass' attacks the checkpoint 'bass'. ...
        """
        if not isinstance(self.corruption, Attack):
            return
        on = self.corruption.on
        if on is not None and on not in models:
            raise ConditionError(
                f"The condition '{self.name}' attacks the checkpoint '{on}'.",
                expected=f"one of {', '.join(map(repr, models))} (nearest: {nearest(on, models)})",
                remedy="Correct the name, or leave out on= to attack each checkpoint by itself.",
            )
        for name, model in models.items():
            if on in (None, name):
                self.corruption.check(model)

    def apply(
        self,
        pixels: Tensor,
        image_ids: Sequence[str],
        *,
        seed: int = 0,
        step: int | None = None,
        model: Any = None,
        labels: Tensor | None = None,
    ) -> Tensor:
        """The images under this condition.

        Args:
            pixels: [batch 3 height width] in [0, 1].
            image_ids: one for each image.
            seed: the study's seed.
            step: the training step, where each step shall draw anew.
            model: the model that is attacked, or that a white-box condition asks.
            labels: [batch] the correct classes; an attack or a white-box condition may want them.

        Returns:
            The same shape, in [0, 1]; clean images are handed back as they are.

        Raises:
            ConditionError: one's own operation gave something else, or there is no model to attack.
            LabelError: an attack is given labels that are none of the model's classes.
            PixelError: the pixels cannot be corrupted or attacked.
        """
        if self.corruption is None:
            return pixels
        if isinstance(self.corruption, str):
            severity = check_severity(self.corruption, self.severity)
            return corrupt(
                pixels,
                self.corruption,
                severity,
                image_ids=image_ids,
                seed=seed,
                step=step,
                jpeg_quality=self.jpeg_quality,
            )
        if isinstance(self.corruption, FourierPerturbation):
            return self.corruption.apply(pixels, image_ids, seed=seed, step=step)
        if self.needs_model and (model is None or (labels is None and isinstance(self.corruption, WhiteBox))):
            raise ConditionError(
                f"The condition '{self.name}' looks inside the model, and there is none here.",
                expected="a condition that changes pixels alone",
                remedy="Use it with vitlens.run, which has a model and labels.",
            )
        if isinstance(self.corruption, Attack):
            found, _ = attacked(
                self.corruption, model, pixels, labels, image_ids=image_ids, seed=seed, step=step
            )
            return found
        # A copy: an operation that writes in place must not reach the clean images.
        own = pixels.clone()
        if isinstance(self.corruption, WhiteBox):
            changed = self.corruption.operation(model, own, cast(Tensor, labels))
        else:
            changed = self.corruption(own)
        remedy = "Correct the operation; end it with .clamp(0, 1) if it leaves the range."
        return check_returned(changed, pixels, f"condition '{self.name}'", remedy)
