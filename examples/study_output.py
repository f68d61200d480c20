"""What the study leaves: how long each step took, and tables and figures beside its page."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from study_figures import draw, layer_means
from study_page import BESIDE, PAGE, rendered

import vitlens as vl
from vitlens.files import whole


class Stopwatch:
    """How long each step took, over all calls that it needed; what is only read back does not count."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.steps: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time a step, and say that it begins."""
        print(f"\n== {step}")
        so_far = self.steps.get(step, {"seconds": 0.0, "is_done": False})
        start, is_done = time.monotonic(), so_far["is_done"]
        try:
            yield
            is_done = True
        finally:
            if not so_far["is_done"]:
                seconds = so_far["seconds"] + time.monotonic() - start
                self.steps[step] = {"seconds": seconds, "is_done": is_done}
                with whole(self.path) as part:
                    part.write_text(json.dumps(self.steps, indent=1))

    @property
    def seconds(self) -> dict[str, float]:
        """Step -> seconds."""
        return {step: spent["seconds"] for step, spent in self.steps.items()}


def write_page(
    folder: Path,
    comparison: vl.Comparison,
    tables: Mapping[str, pd.DataFrame],
    run: Mapping[str, Any],
) -> Path:
    """Write tables and figures into `study/` in a folder, and `study.md`, which is made of them, beside it.

    Args:
        folder: where to, such as `docs`.
        comparison: of the five models, for means along the layers.
        tables: `groups`, `conditions`, `similarity`, `saes`, `parts`, `claims` and `verdicts`.
        run: what a reader needs to know of it, as `reproduce_study.described_run` has it.

    Returns:
        The page.
    """
    beside = folder / BESIDE
    beside.mkdir(parents=True, exist_ok=True)
    layers = layer_means(comparison.data, run["groups"])
    for name, table in {**tables, "layers": layers}.items():
        with whole(beside / f"{name}.csv") as part:
            table.to_csv(part, index=False, float_format="%.6g")
    with whole(beside / "run.json") as part:
        part.write_text(json.dumps(run, indent=1) + "\n")
    for old in beside.glob("*.svg"):
        old.unlink()
    try:
        comparison.export(beside, ("svg",), figures=draw(tables, layers))
    except vl.errors.ComparisonError as error:  # kaleido or a browser is missing
        print(f"No figures beside the page: {error}")
    with whole(folder / PAGE) as part:
        part.write_text(rendered(folder))
    return folder / PAGE
