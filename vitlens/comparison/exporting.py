"""Figures as images: SVG, PDF and PNG files, drawn by kaleido."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ComparisonError
from ..files import as_path, space_for

FORMATS = ("svg", "pdf", "png")

_WIDTH_PX = 760
_HEIGHT_PX = 480


def export(
    figures: Mapping[str, Any],
    folder: str | os.PathLike[str],
    formats: Sequence[str] = ("svg", "pdf"),
    *,
    scale: float = 2.0,
) -> list[Path]:
    """Write figures as images, named by their keys.

    A figure is as large as its layout says; one that fits itself to the page it stands on is 760 pixels wide,
    or as wide as it has to be.

    Args:
        figures: key -> plotly figure.
        folder: where to; made if need be.
        formats: some of `svg`, `pdf` and `png`.
        scale: pixels of a PNG for each pixel of the layout.

    Returns:
        The files, figure by figure.

    Raises:
        ComparisonError: a format is none of these, kaleido is not installed, or it finds no browser.
        SpaceError: the disk is full.
    """
    check(folder, formats, scale)
    import plotly.io

    target = Path(folder)
    names = [f"{name}.{kind}" for name in _file_names(list(figures)) for kind in formats]
    drawn = [figure for figure in figures.values() for _ in formats]
    if not drawn:
        return []
    target.mkdir(parents=True, exist_ok=True)
    # Beside their places first, so that no file is ever there in part.
    with space_for(target), tempfile.TemporaryDirectory(dir=target, prefix=".export.") as temporary:
        made = [Path(temporary) / name for name in names]
        try:
            plotly.io.write_images(
                fig=drawn,
                file=made,
                width=[_pixels(figure.layout.width, _wide_enough(figure)) for figure in drawn],
                height=[_pixels(figure.layout.height, _HEIGHT_PX) for figure in drawn],
                scale=[scale if name.endswith(".png") else 1 for name in names],
            )
        except RuntimeError as error:  # what plotly raises where there is no browser, or it ends
            raise ComparisonError(
                f"The figures could not be drawn ({' '.join(str(error).split()) or type(error).__name__}).",
                expected="a Chrome or Chromium that kaleido can start",
                remedy="Install one, or let the command plotly_get_chrome do so.",
            ) from error
        for path in made:
            path.replace(target / path.name)
    return [target / name for name in names]


def check(folder: str | os.PathLike[str], formats: Sequence[str], scale: float) -> None:
    """Refuse what `export` cannot do, before anything is drawn.

    Raises:
        ComparisonError: as `export`.
    """
    is_list = isinstance(formats, Sequence) and not isinstance(formats, str)
    if not is_list or any(each not in FORMATS for each in formats) or len({*formats}) != len(formats):
        raise ComparisonError(
            f"formats is {formats!r}.",
            expected=f"a list of some of {', '.join(FORMATS)}, each once",
            remedy='Write formats=("svg", "pdf").',
        )
    if not isinstance(scale, int | float) or not 0 < scale <= 20:
        raise ComparisonError(
            f"scale is {scale!r}.", expected="a number above 0, and 20 at most", remedy="Leave it out for 2."
        )
    target = as_path(folder, "folder", ComparisonError)
    if target.exists() and not target.is_dir():
        raise ComparisonError(
            f"{target} is a file.", expected="a folder", remedy="Name another, or one to be made."
        )
    if importlib.util.find_spec("kaleido") is None:
        raise ComparisonError(
            "Figures are drawn as images by kaleido, which is not installed.",
            expected="kaleido 1 or later, and Chrome or Chromium",
            remedy='Run pip install "vitlens[export]"; the report saves single figures as SVG without it.',
        )


def _file_names(keys: Sequence[str]) -> list[str]:
    """A name for each key that every file system takes, no two alike."""
    names: list[str] = []
    taken: set[str] = set()
    for key in keys:
        name = plain = re.sub(r"[^A-Za-z0-9_-]+", "_", key).strip("_")[:100] or "figure"
        n = 1
        while name.lower() in taken:
            n += 1
            name = f"{plain}_{n}"
        taken.add(name.lower())
        names.append(name)
    return names


def _wide_enough(figure: Any) -> float:
    meta = figure.layout.meta
    least = meta.get("min_width_px", 0) if isinstance(meta, Mapping) else 0
    return max(_WIDTH_PX, float(least))


def _pixels(said: float | None, otherwise: float) -> int:
    return round(otherwise if said is None else said)
