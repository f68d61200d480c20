"""Draws the two figures on the first page from a comparison of a base and a tuned checkpoint.

python docs/figures/first_page.py COMPARISON [FOLDER]

COMPARISON is what `vitlens compare` leaves in its folder, with accuracy and the residual streams' cosine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

import vitlens as vl

WIDTH = 372
FONT = 'font-family="system-ui, sans-serif" font-size="12" fill="currentColor"'
TUNED, CLEAN, OTHER = "#0072B2", "#737373", "#D55E00"
"""Colors with a contrast of 3 to 1 on white and on the dark background."""


def svg(height: int, title: str, parts: list[str]) -> str:
    """A picture that takes the color of its lines from the page."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{title}" {FONT}>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def text(x: float, y: float, words: str, anchor: str = "start", more: str = "") -> str:
    """Words at a base line."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{words}</text>'


def line(path: str, color: str = "currentColor", more: str = "") -> str:
    """A line along `path`."""
    return f'<path d="{path}" fill="none" stroke="{color}" {more}/>'


def accuracy(summary: pd.DataFrame, trained: str) -> str:
    """The difference in top-1 accuracy under each condition, in points, with its interval."""
    rows = summary[summary["metric"] == "top1_accuracy"].sort_values("difference", ascending=False)
    left, right, top, step = 128, WIDTH - 10, 40, 25
    low, high = 100 * rows["ci_low"].min() - 1, 100 * rows["ci_high"].max() + 1
    bottom = top + step * len(rows)

    def across(points: float) -> float:
        return left + (points - low) / (high - low) * (right - left)

    parts = [text(0, 14, "Top-1 accuracy, tuned minus base, in points", more='font-weight="600"')]
    for tick in range(5 * int(np.ceil(low / 5)), int(high) + 1, 5):
        x, strength = across(tick), 0.7 if tick == 0 else 0.2
        parts.append(line(f"M{x:.1f} {top - 12}V{bottom}", more=f'stroke-opacity="{strength}"'))
        parts.append(text(x, bottom + 16, f"{tick:+d}".replace("-", "−") if tick else "0", "middle"))
    for place, row in enumerate(rows.itertuples()):
        y = top + step * place
        color = TUNED if row.condition == trained else OTHER if row.condition != "clean" else CLEAN
        ends = across(100 * row.ci_low), across(100 * row.ci_high)
        parts.append(text(0, y + 4, str(row.condition)))
        parts.append(line(f"M{ends[0]:.1f} {y}H{ends[1]:.1f}", color, 'stroke-width="2"'))
        said = f"{100 * row.difference:+.1f} [{100 * row.ci_low:+.1f}, {100 * row.ci_high:+.1f}]"
        dot = f'cx="{across(100 * row.difference):.1f}" cy="{y}" r="4.5" fill="{color}"'
        parts.append(f"<circle {dot}><title>{row.condition}: {said}</title></circle>")
    return svg(bottom + 24, "Difference in top-1 accuracy under each condition", parts)


def streams(cosine: xr.DataArray, conditions: dict[str, str]) -> str:
    """How far the two checkpoints' residual streams point the same way, place by place."""
    left, right, top, bottom = 34, WIDTH - 126, 40, 226
    places = cosine["resid_layer"].values
    low = 0.7

    def at(place: float, value: float) -> tuple[float, float]:
        return (
            left + (right - left) * place / places[-1],
            bottom - (value - low) / (1 - low) * (bottom - top),
        )

    parts = [text(0, 14, "Cosine between the two residual streams", more='font-weight="600"')]
    for tick in np.arange(low, 1.01, 0.1):
        _, y = at(0, tick)
        parts.append(line(f"M{left} {y:.1f}H{right}", more='stroke-opacity="0.2"'))
        parts.append(text(left - 8, y + 4, f"{tick:.1f}", "end"))
    parts += [text(at(place, low)[0], bottom + 16, str(place), "middle") for place in places[::3]]
    parts.append(text((left + right) / 2, bottom + 34, "resid_layer", "middle"))
    taken: list[float] = []
    for condition, color in conditions.items():
        means = cosine.sel(condition=condition).mean("image").values
        points = [at(place, mean) for place, mean in zip(places, means, strict=True)]
        parts.append(line("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), color, 'stroke-width="2"'))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>' for x, y in points]
        y = points[-1][1] + 4
        y = next((y + off for off in (0, 14, -14) if all(abs(y + off - t) > 12 for t in taken)), y)
        taken.append(y)
        parts.append(text(right + 8, y, condition))
    return svg(bottom + 42, "Cosine between the residual streams of the two checkpoints", parts)


def main(comparison: vl.Comparison, folder: Path) -> None:
    """Draw both, and say how wide the intervals are that are too narrow to draw."""
    trained = "gaussian_blur@3"
    (tuned,) = (name for name in comparison.data["checkpoint"].values if name != "base")
    cosine = comparison.data["resid_cosine"].sel(checkpoint=tuned)
    shown = {"clean": CLEAN, "gaussian_noise@3": OTHER, trained: TUNED}
    pictures = {
        "first_accuracy.svg": accuracy(comparison.summary(), trained),
        "first_streams.svg": streams(cosine, shown),
    }
    for name, picture in pictures.items():
        (folder / name).write_text(picture, encoding="utf-8")
    width = 1.96 * cosine.std("image", ddof=1) / cosine.sizes["image"] ** 0.5
    last = cosine.isel(resid_layer=-1).mean("image").to_series().round(3).to_dict()
    sys.stdout.write(f"half-width of the cosines' intervals: at most {float(width.max()):.4f}\n{last}\n")


if __name__ == "__main__":
    into = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent
    main(vl.Comparison.load(sys.argv[1]), into)
