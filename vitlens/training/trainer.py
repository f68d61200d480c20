"""One optimizer step: its parts, their gradients as one, the update and the average."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor

from ..errors import TrainingError
from ..images import Batch
from ..images.streams import stream
from ..models import HookedViT
from ..running.passes import mixed
from .config import FinetuneConfig
from .generators import kept, seed_torch
from .mixing import StepOrder
from .processes import Processes
from .trainable import set_trainable

Loaded: TypeAlias = Sequence[Any]
"""Pixels [batch 3 height width], labels [batch] and image ids, as a loader hands them over."""


class Trainer:
    """A model in training: all that a step needs and changes.

    A step has `n_parts` parts, `accumulation_steps` in each process. A part draws its dropout and drop path
    from (seed, step, part); gradients are sums over images, divided by `batch_size` alone, so that parts of
    unequal size add up to the gradient of the whole step.

    Args:
        model: the model, which is trained in place; it is moved to the process's device.
        order: which images make up each step.
        n_steps: how many steps the run has.
        config: the recipe.
        together: the processes of the run.
    """

    def __init__(
        self, model: HookedViT, order: StepOrder, n_steps: int, config: FinetuneConfig, together: Processes
    ) -> None:
        self.config, self.order, self.together = config, order, together
        self.model = model.to(together.device)
        set_trainable(model, config.trainable)
        self._trained = [each for each in model.model.parameters() if each.requires_grad]
        self.n_parts = together.n * config.accumulation_steps
        first = together.rank * config.accumulation_steps
        self.parts = range(first, first + config.accumulation_steps)
        self._mix = config.mix()
        self.optimizer = self._new_optimizer()
        self._schedule = CosineLRScheduler(
            self.optimizer,
            # Of a single step the length says nothing, but timm has its doubts about 1.
            t_initial=max(2, n_steps - config.warmup_steps),
            warmup_t=config.warmup_steps,
            # Not from 0: the first step would be made in vain.
            warmup_lr_init=config.learning_rate / (config.warmup_steps + 1),
            warmup_prefix=True,
            t_in_epochs=False,
        )
        # What is too small for float16 is scaled up; the other precisions have the range of float32.
        self._scaler = torch.amp.GradScaler(together.device.type, enabled=config.precision == "float16")
        self._ema = None if config.ema_decay is None else ModelEmaV3(model.model, decay=config.ema_decay)
        self._averaged = None
        if self._ema is not None:
            self._averaged = HookedViT(self._ema.module, data_config=model.data_config)
            self._averaged.provenance, self._averaged.description = model.provenance, model.description
            self._averaged.requires_grad_(False)

    @property
    def shown(self) -> HookedViT:
        """What is evaluated and kept: the averaged model where there is one, else the model itself."""
        return self._averaged or self.model

    @property
    def learning_rate(self) -> float:
        """The rate of the step that was made last; with layer decay that of the layer which has most."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    def step(self, step: int, batches: Iterator[Loaded], wants_to_stop: bool = False) -> Tensor:
        """Make one optimizer step.

        Args:
            step: how many were made before it.
            batches: hands over this process's parts of the step.
            wants_to_stop: whether this process was asked to stop.

        Returns:
            On the model's device, not waited for: the mean loss of the step's images, and how many processes
            were asked to stop.
        """
        self._schedule.step_update(step)
        self.optimizer.zero_grad()
        # Inside another autocast torch would keep the weights that it has cast, whatever becomes of them.
        torch.clear_autocast_cache()
        device = self.model.device
        said = torch.tensor([0.0, float(wants_to_stop)]).to(device, non_blocking=True)
        with kept(device):
            for part in self.parts:
                loaded = next(batches)
                self._seed(f"step {step} part {part}", "dropout")
                said[0] += self._part(step, part, loaded)
            gradients = [each.grad for each in self._trained if each.grad is not None]
            self.together.add_up([*gradients, said])
            # Some optimizers draw too, and all processes have to draw the same.
            self._seed(f"step {step}", "update")
            self._update()
        torch.clear_autocast_cache()
        return said

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the position, which says the place in the schedule."""
        return {
            "model": self.model.model.state_dict(),
            "averaged": {} if self._ema is None else self._ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scale": self._scaler.state_dict(),
        }

    def restore(self, parts: Mapping[str, Any]) -> None:
        """Go back to where `state` was asked."""
        self.model.model.load_state_dict(parts["model"])
        if self._ema is not None:
            self._ema.module.load_state_dict(parts["averaged"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self._scaler.load_state_dict(parts["scale"])

    @torch.no_grad()
    def is_finite(self) -> bool:
        """Whether all weights are numbers; waits for the device."""
        return bool(torch.stack([each.isfinite().all() for each in self._trained]).all())

    def _new_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        try:
            made: torch.optim.Optimizer = create_optimizer_v2(
                self.model.model,
                opt=config.optimizer,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                layer_decay=config.layer_decay,
            )
        except Exception as error:  # whatever a package that is missing or too old leads to
            raise TrainingError(
                f"timm cannot make the optimizer '{config.optimizer}' here "
                f"({type(error).__name__}: {error}).",
                expected="an optimizer whose packages and device are there",
                remedy="Install what it needs, or choose another, such as optimizer='adamw'.",
            ) from error
        return made

    def _seed(self, name: str, use: str) -> None:
        seed_torch(self.model.device, stream(self.config.seed, name, use, 0).initial_seed())

    def _part(self, step: int, part: int, loaded: Loaded) -> Tensor:
        """Add one part's gradients; its share of the step's loss."""
        pixels, labels, image_ids = loaded
        device, config = self.model.device, self.config
        batch = Batch(
            pixels.to(device, non_blocking=True), labels.to(device, non_blocking=True), tuple(image_ids)
        )
        occurrences = self.order.occurrences(step, self.n_parts, part)
        drawn = self._mix.batch(batch, step=step, occurrences=occurrences, model=self.model)
        self.model.train()
        views = config.loss.views(self.model, drawn)
        with mixed(self.model, config.precision):
            logits = self.model(self.model.normalize(torch.cat(views)))
        losses = config.loss(logits.split(len(batch)), drawn.labels, label_smoothing=config.label_smoothing)
        loss = losses.sum() / config.batch_size
        self._scaler.scale(loss).backward()
        return loss.detach()

    def _update(self) -> None:
        if self.config.max_grad_norm is not None:
            self._scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self._trained, self.config.max_grad_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._ema is not None:
            self._ema.update(self.model.model)
