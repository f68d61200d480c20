"""The tables of how often intervals hold the truth: exactly for proportions, simulated for means.

    python docs/tables/coverage.py

Writes docs/tables/coverage.md, which docs/statistics.md shows.

Of n images some are right under one checkpoint alone. Every outcome, how many in either direction, has a
known probability: added up where the interval holds the true difference they are its coverage, without any
error of simulation. Means have no such list of outcomes; they are drawn, from stated seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from vitlens.comparison.statistics import bootstrap_interval, mean_interval, resample_counts, tango_interval

HERE = Path(__file__).parent
SPLITS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0)
DESIGNS = ((50, 0.05), (50, 0.1), (100, 0.02), (100, 0.05), (100, 0.1), (200, 0.02), (1000, 0.02))
Bounds = tuple[np.ndarray, np.ndarray]


def bonett_price(gained: np.ndarray, lost: np.ndarray, n: np.ndarray) -> Bounds:
    """Wald's interval with one image added in either direction; Bonett and Price (2012)."""
    p_gained, p_lost = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    middle = p_gained - p_lost
    half = stats.norm.ppf(0.975) * np.sqrt((p_gained + p_lost - middle**2) / (n + 2))
    return np.maximum(middle - half, -1), np.minimum(middle + half, 1)


def wald(gained: np.ndarray, lost: np.ndarray, n: np.ndarray) -> Bounds:
    """The normal approximation; a bootstrap's interval, but for its randomness."""
    middle = (gained - lost) / n
    half = stats.norm.ppf(0.975) * np.sqrt(((gained + lost) / n - middle**2) / n)
    return middle - half, middle + half


def dirichlet(gained: np.ndarray, lost: np.ndarray, n: np.ndarray) -> Bounds:
    """Equal-tailed posterior interval under a Dirichlet prior of one half for each outcome (Jeffreys)."""
    rng = np.random.default_rng(0)
    bounds = [
        np.quantile(
            rng.dirichlet((g + 0.5, each + 0.5, m - g - each + 0.5), 20_000) @ (1, -1, 0), (0.025, 0.975)
        )
        for g, each, m in zip(gained, lost, n, strict=True)
    ]
    low, high = np.transpose(bounds)
    return low, high


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], Bounds]] = {
    "Tango": tango_interval,
    "Bonett–Price": bonett_price,
    "Dirichlet ½": dirichlet,
    "Wald": wald,
}


def coverage(n: int, discordant: float) -> dict[str, list[float]]:
    """Exact coverage of each method at each split of the images that change.

    Args:
        n: images.
        discordant: probability that an image changes, in either direction.

    Returns:
        Method -> coverage, in the order of `SPLITS`, which are the shares of the changes that are gains.
    """
    most = int(min(n, n * discordant + 6 * np.sqrt(n * discordant) + 8))
    gained, lost = (each.ravel() for each in np.indices((most + 1, most + 1)))
    kept = gained + lost <= most
    gained, lost = gained[kept], lost[kept]
    bounds = {name: method(gained, lost, np.full_like(gained, n)) for name, method in METHODS.items()}
    found: dict[str, list[float]] = {name: [] for name in METHODS}
    for split in SPLITS:
        p = discordant * split, discordant * (1 - split)
        outcome = np.stack([gained, lost, n - gained - lost], axis=-1)
        probability = stats.multinomial.pmf(outcome, n, [*p, 1 - sum(p)])
        truth = p[0] - p[1]
        for name, (low, high) in bounds.items():
            holds = (low <= truth + 1e-12) & (truth - 1e-12 <= high)
            found[name].append(float(probability[holds].sum()))
    return found


DRAWS: dict[str, tuple[Callable[[np.random.Generator, tuple[int, int]], np.ndarray], float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "uniform": (lambda rng, shape: rng.random(shape), 0.5),
    "exponential (skewness 2)": (lambda rng, shape: rng.exponential(size=shape), 1.0),
    "log-normal, σ = ½ (skewness 1.8)": (lambda rng, shape: rng.lognormal(0, 0.5, shape), np.exp(0.125)),
    "log-normal, σ = 1 (skewness 6.2)": (lambda rng, shape: rng.lognormal(0, 1, shape), np.exp(0.5)),
    "Laplace": (lambda rng, shape: rng.laplace(size=shape), 0.0),
    "Student, 3 degrees of freedom": (lambda rng, shape: rng.standard_t(3, shape), 0.0),
}
"""What differences are drawn from, and their true mean."""


def simulated(n: int, n_trials: int) -> Iterator[tuple[float, float, float]]:
    """Coverage of the bootstrap alone, that of `mean_interval`, and the worse error of equivalence.

    The last is how often the interval lies below the truth, or above it, whichever is more: with the truth at
    a margin, that often a difference is called equivalent.
    """
    counts = resample_counts(n, 1000)
    for number, (draw, truth) in enumerate(DRAWS.values()):
        held, beyond = np.zeros(2), np.zeros(2)
        for part in range(n_trials // 1000):
            differences = draw(np.random.default_rng([n, number, part]), (n, 1000))
            ours = mean_interval(differences, counts)
            for place, (low, high) in enumerate((bootstrap_interval(differences, counts), ours)):
                held[place] += np.mean((low <= truth) & (truth <= high))
            beyond += np.mean(ours[1] < truth), np.mean(ours[0] > truth)
        bootstrap, hull = held / (n_trials // 1000)
        yield float(bootstrap), float(hull), float(beyond.max() / (n_trials // 1000))


def in_steps(n: int, discordant: float, n_pooled: int, n_trials: int = 4_000) -> str:
    """Least and greatest coverage over the splits, of the bootstrap and of `mean_interval`.

    Args:
        n: images.
        discordant: probability that an image's answer changes under one condition.
        n_pooled: conditions, independent of each other, over which an image's value is the mean.
        n_trials: samples for each split.
    """
    counts = resample_counts(n, 1000)
    held: tuple[list[float], list[float]] = ([], [])
    for number, split in enumerate(SPLITS):
        drawn = np.random.default_rng([n, n_pooled, number]).random((n_pooled, n, n_trials))
        answers = np.where(drawn < discordant * split, 1.0, np.where(drawn < discordant, -1.0, 0.0))
        truth, differences = discordant * (2 * split - 1), answers.mean(axis=0)
        for found, (low, high) in zip(
            held,
            (
                bootstrap_interval(differences, counts),
                mean_interval(differences, counts, reach=1.0),
            ),
            strict=True,
        ):
            found.append(float(np.mean((low <= truth + 1e-9) & (truth - 1e-9 <= high))))
    return " → ".join(f"{100 * min(each):.1f} to {100 * max(each):.1f}" for each in held)


def main() -> None:
    """Write the tables."""
    lines = [
        "| n | discordant | method | " + " | ".join(f"{split:g}" for split in SPLITS) + " | mean | least |",
        "| --- " * (len(SPLITS) + 5) + "|",
    ]
    for n, discordant in DESIGNS:
        for name, values in coverage(n, discordant).items():
            cells = [f"{100 * value:.1f}" for value in (*values, np.mean(values), np.min(values))]
            lines.append(f"| {n} | {100 * discordant:g} % | {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Exact coverage in % of nominal 95 % intervals of a paired difference of proportions, by the share "
        "of the changes that are gains.",
        "",
        "| differences | n = 30 | 100 | 1,000 |",
        "| --- | --- | --- | --- |",
    ]
    by_n = {n: list(simulated(n, n_trials)) for n, n_trials in ((30, 20_000), (100, 20_000), (1000, 4_000))}
    for number, name in enumerate(DRAWS):
        cells = [
            f"{100 * rows[number][0]:.1f} → {100 * rows[number][1]:.1f}; {100 * rows[number][2]:.1f}"
            for rows in by_n.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "Coverage in % of nominal 95 % intervals of a mean difference: the expanded percentile bootstrap → "
        "the interval that the summary prints; then how often, in %, a "
        "true difference at the margin, on the worse side, is called equivalent. 20,000 draws (4,000 at "
        "n = 1,000), 1,000 resamples; standard error 0.15 (0.35).",
        "",
        "| n | changed | one condition | mean of 2 | mean of 5 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for n in (30, 100, 300, 1000):
        for discordant in (0.02, 0.05, 0.1):
            cells = [in_steps(n, discordant, n_pooled) for n_pooled in (1, 2, 5)]
            lines.append(f"| {n} | {100 * discordant:g} % | {' | '.join(cells)} |")
    lines += [
        "",
        "Coverage in % of nominal 95 % intervals where a metric goes in steps of 1 and few images change, "
        "from the least to the greatest over the seven splits of the first table: the bootstrap → the "
        "interval that the summary prints. Of several conditions an image's value is its mean. 4,000 draws, "
        "1,000 resamples; standard error 0.35.",
    ]
    (HERE / "coverage.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
