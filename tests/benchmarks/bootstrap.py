"""Time and memory of the summary's statistics: 20 metrics × 20 conditions × 10,000 images × 2,000 resamples.

    python tests/benchmarks/bootstrap.py

Prints a table: the bare product of resamples and differences, which no bootstrap of means goes below; the
intervals alone; the whole summary with every p-value, then with margins too; a map over 12 layers and 12
heads. The peak is that of the whole process, libraries and all. Times are of this machine; nothing here is
asserted.
"""

from __future__ import annotations

import resource
import time

import numpy as np
import xarray as xr

from vitlens.comparison.statistics import mean_interval, resample_counts
from vitlens.comparison.summary import summarize

N_METRICS, N_CONDITIONS, N_IMAGES, N_RESAMPLES = 20, 20, 10_000, 2_000
DIMS = ("checkpoint", "condition", "image")


def main() -> None:
    """Run them and print them."""
    rng = np.random.default_rng(0)
    coordinates = {"checkpoint": ["base", "tuned"]}

    columns = rng.normal(size=(N_IMAGES, N_METRICS * N_CONDITIONS))
    counts = resample_counts(N_IMAGES, N_RESAMPLES)
    as_floats = counts.astype(np.float32), columns.astype(np.float32)
    start = time.perf_counter()
    np.matmul(*as_floats)
    report("bare product, 2,000 × 10,000 × 400 in float32", start)
    del as_floats

    start = time.perf_counter()
    mean_interval(columns, counts)
    report("intervals, 400 columns", start)

    scalars = {
        f"metric_{i}": (DIMS, rng.normal(size=(2, N_CONDITIONS, N_IMAGES)).astype(np.float32))
        for i in range(N_METRICS)
    }
    names = list(scalars)
    data = xr.Dataset(scalars, coordinates)
    start = time.perf_counter()
    summarize(data, n_resamples=N_RESAMPLES, primary=names)
    report("summary, 20 metrics × 20 conditions, all primary", start)

    start = time.perf_counter()
    summarize(data, n_resamples=N_RESAMPLES, primary=names, margins=dict.fromkeys(names, 0.05))
    report("the same, with a margin for each metric", start)

    shape = (2, N_CONDITIONS, N_IMAGES, 12, 12)
    maps = xr.Dataset({"map": ((*DIMS, "layer", "head"), rng.random(shape, dtype=np.float32))}, coordinates)
    start = time.perf_counter()
    summarize(maps, n_resamples=N_RESAMPLES)
    report("summary, a 12 × 12 map × 20 conditions", start)


def report(what: str, start: float) -> None:
    """Print one line: what, seconds, peak memory of the process so far."""
    seconds = time.perf_counter() - start
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{what:<50} {seconds:6.2f} s   peak so far {peak_gib:5.2f} GiB", flush=True)


if __name__ == "__main__":
    main()
