"""The tables of a model's accuracy under every corruption, and under attack.

    python docs/tables/accuracy.py PHOTOGRAPHS WEIGHTS [--frost DIR] [--severity 3] [--output DIR]

PHOTOGRAPHS is a folder of ImageNet's class folders, WEIGHTS a state dict of DeiT-tiny. Writes
docs/tables/accuracy.md and docs/tables/attacks.md, which docs/corruptions.md shows. With --output, a run that
was stopped goes on, and `torchrun --nproc-per-node 2` shares it out.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from scipy.stats import binomtest

import vitlens as vl
from vitlens.comparison.statistics import tango_interval

ARCHITECTURE = "deit_tiny_patch16_224"
ATTACKS = ("fgsm:eps=4/255", "pgd:eps=4/255,steps=10")
HERE = Path(__file__).parent


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--frost", type=Path, metavar="DIR", help="a folder of photographs of frost")
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--output", type=Path, metavar="DIR", help="keep rows there")
    chosen = parser.parse_args()
    if chosen.frost:
        vl.register_corruption(vl.images.frost(chosen.frost))
    model = vl.load(chosen.weights, architecture=ARCHITECTURE)
    photographs = vl.images.folder(chosen.photographs, model)
    names = [name for name, spec in vl.CORRUPTIONS.items() if spec.is_ready]
    conditions = [f"{name}@{chosen.severity}" for name in names]
    data = vl.run(
        model,
        photographs,
        [vl.Prediction()],
        conditions=["clean", *conditions, *(f"{each}:jpeg_quality=85" for each in conditions), *ATTACKS],
        output=chosen.output,
    )
    if int(os.environ.get("RANK", "0")):
        return
    correct = {str(name): (data["rank"].sel(condition=name) == 0).values for name in data.condition.values}
    lines = [
        "| corruption | top-1 % | less than clean, in points | stored as JPEG 85: top-1 % |",
        "| --- | --- | --- | --- |",
        f"| clean | {_share(correct['clean'])} | | |",
    ]
    for name, condition in zip(names, conditions, strict=True):
        right = correct[condition]
        lines.append(
            f"| `{name}` | {_share(right)} | {_loss(correct['clean'], right)} "
            f"| {_share(correct[condition + ':jpeg_quality=85'])} |"
        )
    lines.append(
        f"\nn = {data.sizes['image']} photographs, severity {chosen.severity}, seed 0; 95 % intervals: "
        "Wilson's for the shares, Tango's for the paired differences."
    )
    _write(HERE / "accuracy.md", lines)
    lines = ["| attack | top-1 % | less than clean, in points |", "| --- | --- | --- |"]
    for name in ATTACKS:
        lines.append(f"| `{name}` | {_share(correct[name])} | {_loss(correct['clean'], correct[name])} |")
    _write(HERE / "attacks.md", lines)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines).replace("-0.0", "0.0") + "\n", encoding="utf-8")


def _share(correct: np.ndarray) -> str:
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(method="wilson")
    return f"{100 * correct.mean():.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _loss(clean: np.ndarray, corrupted: np.ndarray) -> str:
    lost, gained = (clean & ~corrupted).sum(), (corrupted & ~clean).sum()
    low, high = tango_interval(np.array(lost), np.array(gained), np.array(len(clean)))
    return f"{100 * (clean.mean() - corrupted.mean()):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
