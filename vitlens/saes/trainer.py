"""Training steps: sae-lens's trainer, with a state that can be kept and dead latents counted in tokens."""

from __future__ import annotations

import json
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import SAEError
from ._sae_lens import SAETrainer, SAETrainerConfig, TrainingSAE, TrainStepInput, TrainStepOutput

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Trainer(SAETrainer[Any, Any]):  # type: ignore[misc]  # untyped there
    """sae-lens's `SAETrainer`, driven step by step: its optimizer, schedules and clipping of gradients.

    What differs: Adam is fused; a latent is dead after so many tokens, not steps; which latents fired is read
    from sparse codes where the SAE gives them; and the whole state can be taken out and put back. It draws no
    random numbers. sae-lens's own counters of firing (`feature_sparsity`, `n_forward_passes_since_fired`) are
    not kept, and `fit` is of no use: it asks a data provider, and there is none.

    Args:
        cfg: of sae-lens; its `dead_feature_window`, in steps, is not looked at.
        sae: one of sae-lens's training classes or a subclass, trained in place.
        scale: every batch is multiplied by it.
        dead_window_tokens: a latent that has not fired on the last so many tokens is dead.

    Example:
        >>> from vitlens.saes._sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
        >>> sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(d_in=4, d_sae=8, k=2))
        >>> cfg = SAETrainerConfig(total_training_samples=160, train_batch_size_samples=16, lr_end=3e-4)
        >>> trainer = Trainer(cfg, sae, scale=1.0, dead_window_tokens=64)
        >>> output = trainer.step(torch.randn(16, 4, generator=torch.Generator().manual_seed(0)))
        >>> output.metrics["l0"], trainer.n_training_steps
        (2.0, 1)
    """

    def __init__(
        self, cfg: SAETrainerConfig, sae: TrainingSAE[Any], *, scale: float, dead_window_tokens: int
    ) -> None:
        super().__init__(cfg, sae, data_provider=iter(()))
        self.activation_scaler.scaling_factor = scale
        self.dead_window_tokens = dead_window_tokens
        self.n_tokens_since_fired = torch.zeros(sae.cfg.d_sae, dtype=torch.int64, device=sae.device)
        for group in self.optimizer.param_groups:
            group["fused"] = True

    @property
    def dead_neurons(self) -> Bool[Tensor, " d_sae"]:
        """Which latents have not fired on the last `dead_window_tokens` tokens."""
        return self.n_tokens_since_fired >= self.dead_window_tokens

    def step(self, batch: Float[Tensor, "batch d_in"]) -> TrainStepOutput:
        """Take one step.

        Args:
            batch: activations as they are, not scaled.

        Returns:
            sae-lens's output, of scaled activations, from before the weights changed; `metrics["l0"]` is the
            mean number of active latents per token.
        """
        output = super().step(batch)
        self.n_training_steps += 1
        return output

    def _train_step(self, sae: TrainingSAE[Any], sae_in: Float[Tensor, "batch d_in"]) -> TrainStepOutput:
        # Overridden because sae-lens's makes several dense passes over [batch d_sae] to see which latents
        # fired; the order of everything else is the same.
        sae.train()
        with self.autocast_if_enabled:
            output = sae.training_forward_pass(
                TrainStepInput(
                    sae_in=sae_in,
                    coefficients=self.get_coefficients(),
                    dead_neuron_mask=self.dead_neurons,
                    n_training_steps=self.n_training_steps,
                    is_logging_step=False,
                )
            )
        n_firings = _n_firings(output.feature_acts.detach())
        output.metrics["l0"] = float(n_firings.sum()) / len(sae_in)
        self.n_tokens_since_fired += len(sae_in)
        self.n_tokens_since_fired[n_firings > 0] = 0

        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.lr_scheduler.step()
        for scheduler in self.coefficient_schedulers.values():
            scheduler.step()
        return output

    def state(self) -> dict[str, Tensor]:
        """All that a resumed training needs besides its configuration and its place in the data.

        Returns:
            Copies by flat name, as safetensors holds them: `sae.*` (parameters and buffers), `adam.*` (its
            moments; none before the first step), `n_tokens_since_fired`, and `progress` (JSON as bytes:
            counters, learning rate and schedules).
        """
        progress = {
            "n_training_steps": self.n_training_steps,
            "n_training_samples": self.n_training_samples,
            "learning_rates": [group["lr"] for group in self.optimizer.param_groups],
            "learning_rate_schedule": self.lr_scheduler.state_dict(),
            "coefficients": {name: each.state_dict() for name, each in self.coefficient_schedulers.items()},
        }
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for name, parameter in self.sae.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"adam.{name}.{moment}": tensor for moment, tensor in moments.items()}
        tensors["n_tokens_since_fired"] = self.n_tokens_since_fired
        copies = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
        return copies | {"progress": torch.tensor(list(json.dumps(progress).encode()), dtype=torch.uint8)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` gave; the next steps are those of the unbroken training, bit for bit.

        Args:
            state: of a trainer with the same configuration, and an SAE of the same class and configuration.

        Raises:
            SAEError: the state has not the names and shapes that this trainer's would have.
        """
        self._check(state)
        progress = json.loads(bytes(state["progress"].tolist()))
        self.n_training_steps = progress["n_training_steps"]
        self.n_training_samples = progress["n_training_samples"]
        self.lr_scheduler.load_state_dict(progress["learning_rate_schedule"])
        for group, learning_rate in zip(self.optimizer.param_groups, progress["learning_rates"], strict=True):
            group["lr"] = learning_rate
        for name, schedule in progress["coefficients"].items():
            self.coefficient_schedulers[name].load_state_dict(schedule)
        self.sae.load_state_dict({name: state[f"sae.{name}"] for name in self.sae.state_dict()})
        self.n_tokens_since_fired.copy_(state["n_tokens_since_fired"])
        self.optimizer.state.clear()
        if self.n_training_steps:
            for name, parameter in self.sae.named_parameters():
                self.optimizer.state[parameter] = {
                    moment: state[f"adam.{name}.{moment}"].to(parameter.device, copy=True)
                    for moment in _MOMENTS
                }

    def _check(self, state: dict[str, Tensor]) -> None:
        own = {f"sae.{name}": tensor.shape for name, tensor in self.sae.state_dict().items()}
        own |= {"n_tokens_since_fired": self.n_tokens_since_fired.shape}
        given = {name: tensor.shape for name, tensor in state.items() if name in own}
        moments = {f"adam.{name}.{moment}" for name, _ in self.sae.named_parameters() for moment in _MOMENTS}
        others = state.keys() - own.keys() - {"progress"}  # the moments, or before the first step nothing
        differing = {name for name in own if given.get(name) != own[name]} | {"progress"} - state.keys()
        differing |= others ^ moments if others else set()
        if differing:
            raise SAEError(
                f"The state does not fit this training, in {', '.join(sorted(differing))}.",
                expected="what state() of a training with the same class, configuration and widths gave",
                remedy="Set up the training as it was, or begin a new one.",
            )


def _n_firings(feature_acts: Float[Tensor, "batch d_sae"]) -> Int[Tensor, " d_sae"]:
    """On how many tokens each latent is active."""
    if feature_acts.is_sparse:
        # Not coalesced, which would sort: no place is listed twice, but a listed code may be zero.
        latents = feature_acts._indices()[-1][feature_acts._values() != 0]
        return torch.bincount(latents, minlength=feature_acts.shape[-1])
    return (feature_acts != 0).sum(dim=0, dtype=torch.int32)  # a quarter of count_nonzero's time
