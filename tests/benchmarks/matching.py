"""Time and memory of matching 16,384 with 16,384 features at d_in 768, and what a sparse assignment loses.

    OMP_NUM_THREADS=2 python tests/benchmarks/matching.py

Each row of the first table is a process of its own, so that its peak memory is its own; the SAEs' weights and
the imports are part of it. The second table compares assignments on 2,048 features with scipy's on the whole
matrix. Times are of this machine; nothing here is asserted.
"""

from __future__ import annotations

import multiprocessing
import resource
import time

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

N_FEATURES, D_IN, N_TOKENS = 16_384, 768, 4_096
ACTIVE_ABOVE = 2.9
"""Threshold that a standard normal exceeds in 0.2 % of cases: about 31 of 16,384."""

CASES = (
    ("random", "mutual", "decoder_cosine"),
    ("random", "hungarian", "decoder_cosine"),
    ("noisy permuted copy", "mutual", "decoder_cosine"),
    ("noisy permuted copy", "hungarian", "decoder_cosine"),
    ("noisy permuted copy", "hungarian", "activation_correlation"),
)
KINDS = (
    "random",
    "noisy permuted copy",
    "very noisy copy",
    "half of it a noisy copy",
    "random, of falling spectrum",
)
N_CANDIDATES = (1, 2, 4, 8, 16, 32, 64, 128)


def decoders(kind: str, n_features: int, d_in: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of norm 1 of two decoders."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n_features, d_in, generator=generator) for _ in range(2))
    spectrum = torch.arange(1, d_in + 1) ** -1.0
    half = torch.arange(n_features)[:, None] < n_features // 2
    a, b = {
        "random": (a, b),
        "noisy permuted copy": (a, a[torch.randperm(n_features, generator=generator)] + 1.5 * b),
        "very noisy copy": (a, a + 4 * b),
        "half of it a noisy copy": (a, torch.where(half, a + 0.5 * b, b)),
        "random, of falling spectrum": (a * spectrum, b * spectrum),
    }[kind]
    return torch.nn.functional.normalize(a, dim=1), torch.nn.functional.normalize(b, dim=1)


def one(kind: str, method: str, by: str) -> None:
    """Match once and print a row."""
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    from vitlens.saes.matching import match

    def sae(rows: torch.Tensor) -> JumpReLUSAE:
        made = JumpReLUSAE(JumpReLUSAEConfig(d_in=D_IN, d_sae=len(rows)))
        with torch.no_grad():
            made.W_dec.copy_(rows)
            made.W_enc.copy_(rows.T)
            made.threshold.fill_(ACTIVE_ABOVE)
        return made.eval().requires_grad_(False)

    a, b = (sae(rows) for rows in decoders(kind, N_FEATURES, D_IN))
    x = None
    if by == "activation_correlation":
        tokens = torch.randn(N_TOKENS, D_IN, generator=torch.Generator().manual_seed(1))
        x = (tokens, tokens)
    start, start_cpu = time.perf_counter(), time.process_time()
    found = match(a, b, x, method=method, by=by, progress=False)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{kind:<22}{method:<11}{by:<24}"
        f"{seconds:>8.1f}{cpu_seconds:>8.1f}{peak_gib:>8.2f}{len(found.pairs):>8}",
        flush=True,
    )


def losses() -> None:
    """What is lost of the total cosine of the whole matrix's assignment, by number of candidates."""
    from vitlens.saes.hungarian import assignment
    from vitlens.saes.nearest import neighbors

    n_features, d_in = 2_048, 384
    print(f"\nlost of the total cosine, {n_features:,} with {n_features:,} features at d_in {d_in}")
    print(f"{'candidates of each feature':<30}" + "".join(f"{n:>10}" for n in N_CANDIDATES))
    for kind in KINDS:
        a, b = decoders(kind, n_features, d_in)
        cosines = a @ b.T
        whole = np.maximum(cosines.double().numpy(), 0)
        full = whole[linear_sum_assignment(whole, maximize=True)].sum()
        cells = []
        for n_candidates in N_CANDIDATES:
            found = neighbors(cosines.__getitem__, n_features, n_features, n_candidates=n_candidates)
            chosen = assignment(found.rows, found.columns, found.similarities, n_features, n_features)
            cells.append(f"{max(0.0, 1 - found.similarities[chosen].sum() / full):>10.4%}")
        print(f"{kind:<30}" + "".join(cells), flush=True)


if __name__ == "__main__":
    print(f"{N_FEATURES:,} with {N_FEATURES:,} features at d_in {D_IN}, {torch.get_num_threads()} threads")
    print(f"{'b, seen from a':<22}{'method':<11}{'by':<24}{'s':>8}{'CPU s':>8}{'GiB':>8}{'pairs':>8}")
    for case in CASES:
        process = multiprocessing.get_context("spawn").Process(target=one, args=case)
        process.start()
        process.join()
    losses()
