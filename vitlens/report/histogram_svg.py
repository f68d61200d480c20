"""A histogram as SVG: bars whose heights are logarithms of counts, drawn in the page's own colors."""

from __future__ import annotations

import html
import math

import numpy as np
from jaxtyping import Float, Int

WIDTH, HEIGHT = 288, 124
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 6, 34


def histogram_svg(counts: Int[np.ndarray, " bin"], edges: Float[np.ndarray, " edge"], said: str) -> str:
    """A histogram with logarithmic counts.

    Args:
        counts: of each bin, at least one of them above 0.
        edges: of the bins, rising.
        said: what it shows, for who does not see it.

    Returns:
        An `svg` element. A bin of one count is as high as a twentieth of the plot, one without has no bar.

    Example:
        >>> svg = histogram_svg(np.array([100, 1]), np.array([0.0, 1.0, 2.0]), "Activations")
        >>> svg.count('class="bar"')
        2
    """
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    # From half a count, so that one count can be seen.
    floor, ceiling = math.log10(0.5), math.log10(int(counts.max())) or math.log10(2)

    def y(count: float) -> float:
        return TOP + height * (1 - (math.log10(count) - floor) / (ceiling - floor))

    def x(value: float) -> float:
        return LEFT + width * value / float(edges[-1])

    bars = "".join(
        f'<rect class="bar" x="{x(low):.1f}" y="{y(count):.1f}" '
        f'width="{x(high) - x(low) - 0.6:.1f}" height="{TOP + height - y(count):.1f}"/>'
        for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if count
    )
    powers = range(int(math.log10(int(counts.max()))) + 1)
    step = max(1, math.ceil(len(powers) / 4))
    lines = "".join(
        f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(10**power):.1f}" y2="{y(10**power):.1f}"/>'
        f'<text x="{LEFT - 5}" y="{y(10**power) + 3.5:.1f}" text-anchor="end">{_count(10**power)}</text>'
        for power in powers[::step]
    )
    ends = "".join(
        f'<text x="{x(value):.1f}" y="{TOP + height + 13}" text-anchor="{anchor}">{digits(value)}</text>'
        for value, anchor in ((0.0, "middle"), (float(edges[-1]) / 2, "middle"), (float(edges[-1]), "end"))
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{html.escape(said)}">{lines}{bars}{ends}'
        f'<text x="{LEFT + width / 2}" y="{HEIGHT - 5}" text-anchor="middle">activation</text></svg>'
    )


def digits(value: float) -> str:
    """Three digits of a number, or all of those before the point.

    Example:
        >>> digits(4.0), digits(123.4), digits(5678.0), digits(0.0)
        ('4.00', '123', '5,678', '0')
    """
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def _count(count: int) -> str:
    return f"{count // 1000:,}k" if count >= 1000 else str(count)
