"""What our loop adds to a step of sae-lens's trainer: time with batches, history and bar over time without.

Both sides take the same steps on the same batches, in turn, so that a machine whose speed drifts does not
favor either; what is printed is the median of the ratios of neighbors.
"""

from __future__ import annotations

import statistics
import time

import torch

from vitlens.saes import loop
from vitlens.saes.loop import fit, new_trainer, shuffled_batches
from vitlens.saes.recipe import Recipe

D_IN, D_SAE, N_STEPS, N_ROUNDS = 192, 768, 8, 7


def trainer(recipe: Recipe, n_tokens: int):
    """A trainer at the start of its training, always with the same weights."""
    torch.manual_seed(0)
    return new_trainer(recipe, torch.zeros(D_IN), 1.0, n_tokens, "cpu")


def seconds(work) -> float:
    """Processor time that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(kind: str, batch_size: int) -> tuple[float, float]:
    """Milliseconds of a bare step, and the ratio of ours to it."""
    activations = torch.randn(4 * batch_size, D_IN, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(kind, D_SAE, 32, 1.0, N_STEPS * batch_size, batch_size, None, None, 0, None, None)
    indices = torch.arange(len(activations))

    def bare() -> None:
        for batch in batches:
            bare_trainer.step(batch)
            bare_trainer.n_training_steps += 1

    def ours() -> None:
        fit(our_trainer, activations, indices, torch.Generator().manual_seed(0), progress=True)

    bare_seconds, ratios = [], []
    for turn in range(N_ROUNDS + 1):
        order = shuffled_batches(indices, N_STEPS, batch_size, torch.Generator().manual_seed(0))
        batches = [activations[batch] for batch in order]
        bare_trainer, our_trainer = trainer(recipe, len(activations)), trainer(recipe, len(activations))
        one, other = (seconds(work) for work in ((bare, ours) if turn % 2 else (ours, bare)))
        if turn:  # the first warms up
            bare_seconds.append(one if turn % 2 else other)
            ratios.append(other / one if turn % 2 else one / other)
    return 1000 * statistics.median(bare_seconds) / N_STEPS, statistics.median(ratios)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"d_in {D_IN}, d_sae {D_SAE}, {N_STEPS} steps, {N_ROUNDS} rounds, one core")
    print(f"{'kind':<12}{'batch':>8}{'history row every':>20}{'bare step, ms':>16}{'ours / bare':>14}")
    for kind in ("batch_topk", "vanilla"):
        for batch_size in (256, 1024):
            for every in (1, 4):  # ten epochs of a small data set are a few hundred steps, for a hundred rows
                loop.N_HISTORY_ROWS = N_STEPS // every
                milliseconds, ratio = compare(kind, batch_size)
                print(f"{kind:<12}{batch_size:>8}{every:>20}{milliseconds:>16.1f}{ratio:>14.3f}")
