"""The loop: sae-lens's trainer fed with shuffled epochs, and the way from its training form to inference."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import SAEError
from ._sae_lens import (
    SAE,
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    LoggingConfig,
    SAETrainer,
    SAETrainerConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
    TrainingSAE,
    TrainStepOutput,
)
from .evaluation import fvu, l0
from .recipe import Recipe

N_HISTORY_ROWS = 100
HISTORY_COLUMNS = ("n_tokens", "loss", "l0", "fvu", "n_dead", "learning_rate")


def new_trainer(
    recipe: Recipe,
    mean: Float[Tensor, " d_in"],
    scale: float,
    n_train_tokens: int,
    device: torch.device | str,
) -> SAETrainer:
    """sae-lens's trainer with an untrained SAE, silent and writing no files.

    Args:
        recipe: how to train.
        mean: of the activations, before scaling; the decoder's bias starts there.
        scale: every batch is multiplied by it.
        n_train_tokens: size of an epoch.
        device: where to train. The initial weights are drawn on the CPU, from torch's global generator, so
            that they are the same on every device.
    """
    n_steps = recipe.n_steps(n_train_tokens)
    n_warm_up_steps = n_steps // 20
    sizes = {"d_in": len(mean), "d_sae": recipe.d_sae}
    if recipe.kind == "vanilla":
        sae = StandardTrainingSAE(
            StandardTrainingSAEConfig(
                **sizes, l1_coefficient=recipe.l1_coefficient, l1_warm_up_steps=n_warm_up_steps
            )
        )
    else:
        sae = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**sizes, k=recipe.k_per_token))
    sae.b_dec.data.copy_(mean * scale)
    sae.to(device)
    learning_rate = recipe.peak_learning_rate()
    trainer = SAETrainer(
        SAETrainerConfig(
            total_training_samples=n_steps * recipe.batch_size,
            train_batch_size_samples=recipe.batch_size,
            lr=learning_rate,
            lr_end=learning_rate,
            lr_warm_up_steps=n_warm_up_steps,
            lr_decay_steps=n_steps // 5,
            device=str(sae.device),
            dead_feature_window=recipe.dead_window_steps(n_train_tokens),
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        data_provider=iter(()),  # asked only by the trainer's own loop
    )
    trainer.activation_scaler.scaling_factor = scale
    return trainer


def shuffled_batches(
    indices: Int[Tensor, " token"], n_steps: int, batch_size: int, generator: torch.Generator
) -> Iterator[Int[Tensor, " batch"]]:
    """Whole batches cut from shuffled epochs laid end to end: no token comes twice in an epoch.

    Example:
        >>> batches = shuffled_batches(torch.arange(6), 3, 4, torch.Generator().manual_seed(0))
        >>> stream = torch.cat(list(batches))
        >>> stream[:6].sort().values, stream[6:].sort().values
        (tensor([0, 1, 2, 3, 4, 5]), tensor([0, 1, 2, 3, 4, 5]))
    """
    stream = indices[:0]
    for _ in range(n_steps):
        while len(stream) < batch_size:
            epoch = indices[torch.randperm(len(indices), generator=generator)]
            stream = torch.cat([stream, epoch])
        yield stream[:batch_size]
        stream = stream[batch_size:]


def fit(
    trainer: SAETrainer,
    activations: Float[Tensor, "source_token d_in"],
    indices: Int[Tensor, " token"],
    generator: torch.Generator,
    progress: bool,
) -> list[dict[str, float]]:
    """Take all the steps that `trainer` is configured for.

    Args:
        trainer: from `new_trainer`; its SAE is trained in place.
        activations: the whole source, on any device.
        indices: the tokens to train on.
        generator: gives their order.
        progress: show a progress bar.

    Returns:
        About a hundred rows of the history: `n_tokens` seen, and of that step's batch `loss` (of scaled
        activations, penalties included), `l0`, `fvu`; `n_dead` features of late; `learning_rate`.

    Raises:
        SAEError: the loss is no longer finite.
    """
    n_steps, batch_size = trainer.cfg.total_training_steps, trainer.cfg.train_batch_size_samples
    every = math.ceil(n_steps / N_HISTORY_ROWS)
    rows = []
    with tqdm(
        total=n_steps * batch_size, desc="Training SAE", unit="token", unit_scale=True, disable=not progress
    ) as bar:
        batches = shuffled_batches(indices, n_steps, batch_size, generator)
        for step, batch in enumerate(batches, start=1):
            learning_rate = trainer.optimizer.param_groups[0]["lr"]
            output = trainer.step(activations[batch.to(activations.device)].float())
            trainer.n_training_steps = step
            bar.update(batch_size)
            if step % every == 0 or step == n_steps:
                row = {
                    "n_tokens": step * batch_size,
                    **_measure(output, trainer),
                    "learning_rate": learning_rate,
                }
                if not math.isfinite(row["loss"]):
                    raise SAEError(
                        f"The loss is {row['loss']} after {row['n_tokens']} tokens.",
                        expected="a finite loss",
                        remedy=f"Lower learning_rate, which rose to {trainer.cfg.lr:.2g}.",
                    )
                rows.append(row)
                bar.set_postfix({name: f"{row[name]:.3g}" for name in ("loss", "l0", "fvu", "n_dead")})
    return rows


@torch.no_grad()
def _measure(output: TrainStepOutput, trainer: SAETrainer) -> dict[str, float]:
    return {
        "loss": float(output.loss),
        "l0": l0(output.feature_acts),
        "fvu": fvu(output.sae_in, output.sae_out),
        "n_dead": int(trainer.dead_neurons.sum()),
    }


def inference_form(trained: TrainingSAE, scale: float) -> SAE:
    """The SAE for raw activations, with decoder rows of norm 1; changes `trained`.

    Args:
        trained: trained on activations times `scale`.
        scale: folded into the weights.

    Returns:
        A `StandardSAE` or a `JumpReLUSAE` in eval mode, without gradients, on the device of `trained`.
    """
    trained.fold_activation_norm_scaling_factor(scale)
    state: dict[str, Any] = trained.state_dict()
    trained.process_state_dict_for_saving_inference(state)
    # Made on the CPU: its initial weights, soon overwritten, must not draw from the device's generator.
    sae = SAE.from_dict(trained.cfg.get_inference_sae_cfg_dict() | {"device": "cpu"})
    sae.load_state_dict(state)
    sae.fold_W_dec_norm()
    return sae.to(trained.device).eval().requires_grad_(False)
