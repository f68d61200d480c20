"""The table of how often sign-flip tests find a change where the mean of the differences is 0.

    python docs/tables/sign_flips.py

Writes docs/tables/sign_flips.md, which docs/statistics.md shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from vitlens.comparison.statistics import max_t_p, sign_flip_p, sign_flips

HERE = Path(__file__).parent
SIZES = (10, 30, 100, 300, 1000)
CELLS = (24, 144)
N_TRIALS = 1000
DRAWS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "Laplace": lambda rng, shape: rng.laplace(size=shape),
    "exponential (skewness 2)": lambda rng, shape: rng.exponential(size=shape) - 1,
}
"""What differences of mean 0 are drawn from."""


def found(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray], n: int) -> list[float]:
    """How often p is below 0.05: of one metric, and of any cell of a map, for each number of cells.

    Args:
        draw: (generator, shape) -> differences.
        n: images.
    """
    flips = sign_flips(n, 1000)
    rng = np.random.default_rng(n)
    shares = [float(np.mean(sign_flip_p(draw(rng, (n, 4 * N_TRIALS)), flips) < 0.05))]
    for n_cells in CELLS:
        hits = 0
        for _ in range(10):  # by parts, for memory
            p = max_t_p(draw(rng, (n, N_TRIALS // 10, n_cells)), flips)
            hits += int((p.min(axis=1) < 0.05).sum())
        shares.append(hits / N_TRIALS)
    return shares


def main() -> None:
    """Write the table."""
    heads = ["differences", "n", "one metric", *(f"map of {n_cells} cells" for n_cells in CELLS)]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for name, draw in DRAWS.items():
        for n in SIZES:
            cells = [f"{100 * share:.1f}" for share in found(draw, n)]
            lines.append(f"| {name} | {n:,} | {' | '.join(cells)} |")
    lines += [
        "",
        "How often, in %, a nominal 5 % test finds a change where differences have mean 0; of a map, in any "
        f"cell. Cells are independent. {4 * N_TRIALS:,} draws of a metric and {N_TRIALS:,} of a map, 1,000 "
        "flips; standard error 0.35 and 0.7 at 5 %.",
    ]
    (HERE / "sign_flips.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
