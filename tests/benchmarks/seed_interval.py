"""How often the interval of a similarity share covers the true share, under crossed random effects.

    python tests/benchmarks/seed_interval.py

Prints a table: seeds of reference, checkpoint and unrelated model; true share; standard deviations of what an
SAE and what a pair of SAEs adds; the correlation of two SAEs that share a seed (blank where none do: then
every pair exists); coverage and median width of the nominal 95 % interval, how often there are no bounds, and
the coverage of the percentile bootstrap over seeds. Cases without bounds count as not covered.
"""

from __future__ import annotations

import itertools

import numpy as np

from vitlens.saes.yardstick import seed_interval, similarity_share

N_DRAWS, N_BOOTSTRAP_DRAWS, N_RESAMPLES = 1_000, 100, 400
SEED_TO_SEED, UNRELATED = 0.7, 0.25


def draw(
    rng: np.random.Generator,
    n: tuple[int, int, int],
    share: float,
    deviations: tuple[float, float],
    correlation: float | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices of similarities: a mean, an effect of either SAE, and one of the pair."""
    sd_sae, sd_pair = deviations
    a, b, u = (rng.normal(size=each) for each in n)
    if correlation is not None:
        shared = min(n[:2])
        b[:shared] = correlation * a[:shared] + np.sqrt(1 - correlation**2) * b[:shared]

    def crossed(mean: float, rows: np.ndarray, columns: np.ndarray, scale: float = 1.0) -> np.ndarray:
        noise = sd_pair * rng.normal(size=(len(rows), len(columns)))
        return mean + scale * (sd_sae * (rows[:, None] + columns) + noise)

    pair = crossed(UNRELATED + share * (SEED_TO_SEED - UNRELATED), a, b)
    if correlation is not None:
        np.fill_diagonal(pair, np.nan)
    seeds = np.where(np.triu(np.ones((n[0], n[0])), 1), crossed(SEED_TO_SEED, a, a), np.nan)
    return pair, seeds, crossed(UNRELATED, a, u, 0.3)


def bootstrap(
    rng: np.random.Generator, ends: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[float, float]:
    """The percentile bootstrap over SAEs."""
    pair, seeds, unrelated = ends
    seeds = np.fmax(seeds, seeds.T)
    values = []
    for _ in range(N_RESAMPLES):
        a, b, u = (rng.integers(n, size=n) for n in (*pair.shape, unrelated.shape[1]))
        resampled = pair[np.ix_(a, b)], seeds[np.ix_(a, a)], unrelated[np.ix_(a, u)]
        values.append(similarity_share(*resampled).value)
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Run all cases."""
    print(f"{'seeds':<12}{'share':>6}{'SAE':>8}{'pair':>8}{'shared':>8}"
          f"{'covered':>10}{'width':>8}{'no bounds':>11}{'bootstrap':>11}")  # fmt: skip
    for n, share, deviations, correlation in itertools.product(
        [(3, 3, 2), (4, 4, 3), (6, 6, 3)], [0.6, 1.0], [(0.02, 0.002), (0.005, 0.01)], [None, 0.7, -0.7]
    ):
        rng = np.random.default_rng(0)
        covered, widths, boundless, by_bootstrap = 0, [], 0, 0
        for number in range(N_DRAWS):
            ends = draw(rng, n, share, deviations, correlation)
            found = seed_interval(*ends)
            covered += found.ci_low <= share <= found.ci_high
            boundless += np.isnan(found.ci_low)
            widths.append(found.ci_high - found.ci_low)
            if correlation is None and number < N_BOOTSTRAP_DRAWS:
                low, high = bootstrap(rng, ends)
                by_bootstrap += low <= share <= high
        print(
            f"{n!s:<12}{share:>6}{deviations[0]:>8}{deviations[1]:>8}"
            f"{'' if correlation is None else correlation:>8}{covered / N_DRAWS:>10.3f}"
            f"{np.nanmedian(widths):>8.3f}{boundless / N_DRAWS:>11.3f}"
            + (f"{by_bootstrap / N_BOOTSTRAP_DRAWS:>11.2f}" if correlation is None else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
