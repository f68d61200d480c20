"""The loop: the trainer fed with shuffled tokens, from any of its steps to the last."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import SAEError
from ._sae_lens import LoggingConfig, SAETrainerConfig, TrainStepOutput
from .evaluation import fvu
from .forms import new_sae, start_from_data
from .recipe import Recipe
from .resume import Rows, TrainingFolder
from .tokens import Tokens
from .trainer import Trainer

N_HISTORY_ROWS = 100
HISTORY_COLUMNS = ("n_tokens", "loss", "l0", "fvu", "n_dead", "learning_rate")


def new_trainer(
    recipe: Recipe,
    tokens: Tokens,
    mean: Float[Tensor, " d_in"],
    scale: float,
    device: torch.device | str,
) -> Trainer:
    """A trainer with an untrained SAE.

    Args:
        recipe: how to train.
        tokens: what to train on; decoder rows start in the directions of some of them.
        mean: of the activations, before scaling; the decoder's bias starts there.
        scale: every batch is multiplied by it.
        device: where to train. The initial weights are drawn on the CPU, from torch's global generator, so
            that they are the same on every device.

    Raises:
        SAEError: sae-lens refuses the recipe's options.
    """
    n_steps = recipe.n_steps(tokens.n_tokens)
    n_warm_up_steps = n_steps // 20
    sae = new_sae(recipe, tokens.d_in, n_warm_up_steps)
    first = next(tokens.shuffled(recipe.d_sae, seed=recipe.seed))
    start_from_data(sae, mean, scale, first, holds_bias="k_per_token" in recipe.own_arguments)
    sae.to(device)
    learning_rate = recipe.peak_learning_rate()
    return Trainer(
        SAETrainerConfig(
            total_training_samples=n_steps * recipe.batch_size,
            train_batch_size_samples=recipe.batch_size,
            lr=learning_rate,
            lr_end=learning_rate,
            lr_warm_up_steps=n_warm_up_steps,
            lr_decay_steps=n_steps // 5,
            device=str(sae.device),
            logger=LoggingConfig(log_to_wandb=False),
        ),
        sae,
        scale=scale,
        dead_window_tokens=recipe.dead_window(tokens.n_tokens),
    )


def fit(
    trainer: Trainer,
    tokens: Tokens,
    seed: int,
    folder: TrainingFolder | None,
    progress: bool,
) -> Rows:
    """Take all the steps that are left to take.

    Args:
        trainer: from `new_trainer`; its SAE is trained in place.
        tokens: what to train on.
        seed: gives their order.
        folder: where the state is kept, and from where it is taken up again.
        progress: show a progress bar.

    Returns:
        About a hundred rows of the history: `n_tokens` seen, and of that step's batch `loss` (of scaled
        activations, penalties included), `l0`, `fvu`; `n_dead` features of late; `learning_rate`.

    Raises:
        SAEError: the loss is no longer finite.
        CheckpointError: the state in the folder is damaged.
    """
    n_steps, batch_size = trainer.cfg.total_training_steps, trainer.cfg.train_batch_size_samples
    every = math.ceil(n_steps / N_HISTORY_ROWS)
    rows = [] if folder is None else folder.read(trainer)
    n_done = trainer.n_training_steps
    with tqdm(
        total=n_steps * batch_size, initial=n_done * batch_size, desc="Training SAE", unit="token",
        unit_scale=True, disable=not progress,
    ) as bar:  # fmt: skip
        batches = tokens.shuffled(batch_size, seed=seed, start_batch=n_done)
        for step, batch in zip(range(n_done + 1, n_steps + 1), batches, strict=False):
            learning_rate = trainer.optimizer.param_groups[0]["lr"]
            output = trainer.step(batch.float())
            bar.update(batch_size)
            if step % every == 0 or step == n_steps:
                rows.append(_measured(output, trainer, learning_rate))
                bar.set_postfix({name: f"{rows[-1][name]:.3g}" for name in ("loss", "l0", "fvu", "n_dead")})
            if folder is not None and (step == n_steps or folder.is_due()):
                _check_finite(float(output.loss.detach()), trainer)
                folder.keep(trainer, rows)
    return rows


@torch.no_grad()
def _measured(output: TrainStepOutput, trainer: Trainer, learning_rate: float) -> dict[str, float]:
    loss = float(output.loss.detach())
    _check_finite(loss, trainer)
    return {
        "n_tokens": trainer.n_training_samples,
        "loss": loss,
        "l0": output.metrics["l0"],
        "fvu": fvu(output.sae_in, output.sae_out),
        "n_dead": int(trainer.dead_neurons.sum()),
        "learning_rate": learning_rate,
    }


def _check_finite(loss: float, trainer: Trainer) -> None:
    if not math.isfinite(loss):
        raise SAEError(
            f"The loss is {loss} after {trainer.n_training_samples} tokens.",
            expected="a finite loss",
            remedy=f"Lower learning_rate, which rose to {trainer.cfg.lr:.2g}.",
        )
