"""Timing variants side by side in one process, as ratios: noise of the machine falls on all alike."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable


def interleaved(
    timed: dict[str, Callable[[], object]], rounds: int, reference: Callable[[str], str]
) -> dict[str, list[float]]:
    """Each round times every variant once, in an order drawn anew, over its reference of the same round.

    Args:
        timed: variant -> what is timed; each is run once before.
        rounds: how many.
        reference: variant -> the variant that it is divided by.

    Returns:
        Variant -> its ratio in each round.
    """
    for run in timed.values():
        run()
    ratios: dict[str, list[float]] = {variant: [] for variant in timed}
    order = list(timed)
    for _ in range(rounds):
        random.shuffle(order)
        seconds = {}
        for variant in order:
            start = time.perf_counter()
            kept = timed[variant]()
            seconds[variant] = time.perf_counter() - start
            del kept
        for variant in timed:
            ratios[variant].append(seconds[variant] / seconds[reference(variant)])
    return ratios


def print_table(title: str, columns: dict[str, dict[str, list[float]]]) -> None:
    """Print medians and quartiles, a row a variant."""
    print(f"{title:<58}" + "".join(f"{case:>26}" for case in columns))
    for variant in next(iter(columns.values())):
        cells = []
        for ratios in columns.values():
            low, median, high = statistics.quantiles(ratios[variant], n=4)
            cells.append(f"{f'{median:.3f} [{low:.3f}, {high:.3f}]':>26}")
        print(f"{variant:<58}" + "".join(cells))
