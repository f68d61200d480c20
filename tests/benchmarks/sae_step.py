"""A training step of an SAE against sae-lens's own class and trainer, on the same batches.

    OMP_NUM_THREADS=1 python tests/benchmarks/sae_step.py

Both take the same steps in turn in one process. Printed are the ratios of their times, and that of the
encoder's product alone, which no exact step can do without; the losses, which show that both do the same
work; and, from a process for each, the peak of memory that the steps add. Times are of this machine;
nothing is asserted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path

import torch
from interleaved import interleaved, print_table

from vitlens.saes._sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    SAETrainer,
    SAETrainerConfig,
    StandardTrainingSAE,
    StandardTrainingSAEConfig,
)
from vitlens.saes.lean import LeanStandardTrainingSAE
from vitlens.saes.sparse import SparseBatchTopKTrainingSAE
from vitlens.saes.trainer import Trainer

K, N_BATCHES, N_STEPS_BEFORE, N_MEMORY_STEPS = 32, 4, 3, 3
CASES = {  # name: kind, d_in, d_sae, batch, whether half of the latents are dead, rounds
    "BatchTopK 384 × 3072, batch 2048": ("batch_topk", 384, 3072, 2048, False, 9),
    "BatchTopK 384 × 3072, batch 2048, half dead": ("batch_topk", 384, 3072, 2048, True, 7),
    "BatchTopK 768 × 12288, batch 4096": ("batch_topk", 768, 12288, 4096, False, 3),
    "vanilla 384 × 3072, batch 2048": ("vanilla", 384, 3072, 2048, False, 9),
}
OURS, THEIRS, PRODUCT = "vitlens", "sae-lens", "the encoder's product alone"


def new_trainer(whose: str, kind: str, d_in: int, d_sae: int, batch: int, half_dead: bool) -> SAETrainer:
    """A trainer, always with the same weights; with `half_dead`, every other latent stays dead."""
    torch.manual_seed(0)
    if kind == "batch_topk":
        cfg = BatchTopKTrainingSAEConfig(d_in=d_in, d_sae=d_sae, k=K)
        sae = (SparseBatchTopKTrainingSAE if whose == OURS else BatchTopKTrainingSAE)(cfg)
    else:
        cfg = StandardTrainingSAEConfig(d_in=d_in, d_sae=d_sae, l1_coefficient=1.0)
        sae = (LeanStandardTrainingSAE if whose == OURS else StandardTrainingSAE)(cfg)
    settings = SAETrainerConfig(
        total_training_samples=10**9, train_batch_size_samples=batch, lr=3e-4, lr_end=3e-4
    )
    if half_dead:
        sae.b_enc.data[::2] = -1.0  # never among the largest
    never = 10**12
    if whose == THEIRS:
        trainer = SAETrainer(settings, sae, data_provider=iter(()))
        trainer.activation_scaler.scaling_factor = 1.0
        if half_dead:
            trainer.n_forward_passes_since_fired[::2] = never
    else:
        trainer = Trainer(settings, sae, scale=1.0, dead_window_tokens=10**9)
        if half_dead:
            trainer.n_tokens_since_fired[::2] = never
    return trainer


def new_batches(d_in: int, batch: int) -> torch.Tensor:
    """Activations of no structure."""
    return torch.randn(N_BATCHES, batch, d_in, generator=torch.Generator().manual_seed(0))


def time_case(name: str) -> None:
    """Print one case."""
    kind, d_in, d_sae, batch, half_dead, rounds = CASES[name]
    batches = new_batches(d_in, batch)
    trainers = {whose: new_trainer(whose, kind, d_in, d_sae, batch, half_dead) for whose in (OURS, THEIRS)}
    losses: dict[str, list[float]] = {whose: [] for whose in trainers}
    endless = {whose: cycle(batches) for whose in trainers}

    def step(whose: str) -> None:
        losses[whose].append(trainers[whose].step(next(endless[whose])).loss.item())

    for _ in range(N_STEPS_BEFORE):
        for whose in trainers:
            step(whose)
    W_enc = trainers[OURS].sae.W_enc.detach().clone()
    timed = {whose: (lambda whose=whose: step(whose)) for whose in trainers}
    timed[PRODUCT] = lambda: batches[0] @ W_enc
    ratios = interleaved(timed, rounds, reference=lambda variant: THEIRS)
    print_table(name, {"of sae-lens's time": ratios})
    start = time.perf_counter()
    step(THEIRS)
    step(OURS)
    print(f"{'a step of each, seconds':<58}{time.perf_counter() - start:>26.2f}")
    differences = [abs(a - b) / abs(b) for a, b in zip(losses[OURS], losses[THEIRS], strict=True)]
    last = "".join(f"{each[-1]:>13.4f}" for each in losses.values())
    print(f"{'loss of the last step, vitlens and sae-lens':<58}{last}")
    print(f"{'largest relative difference of losses':<58}{max(differences):>26.1e}")
    for whose in trainers:
        peak = subprocess.run(
            [sys.executable, __file__, whose, name], check=True, capture_output=True, text=True
        ).stdout
        print(f"{f'peak memory that the steps of {whose} add, MiB':<58}{float(peak):>26.0f}")
    print(flush=True)


def peak_mib(whose: str, name: str) -> float:
    """What the highest use of memory lies above that with everything in place but the first step."""
    kind, d_in, d_sae, batch, half_dead, _ = CASES[name]
    batches = new_batches(d_in, batch)
    trainer = new_trainer(whose, kind, d_in, d_sae, batch, half_dead)
    before = highest_mib()
    for batch_of_tokens in batches[:N_MEMORY_STEPS]:
        trainer.step(batch_of_tokens)
    return highest_mib() - before


def highest_mib() -> float:
    """The most memory that this process has held (Linux; ru_maxrss would start from the parent's)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) / 2**10


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:]:
        print(peak_mib(*sys.argv[1:]))
    else:
        for case in CASES:
            time_case(case)
