"""A sheet of small pictures: a row for each image, a column for its pixels and one for each checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import UInt8

from .pictures import picture_uri
from .reading import clean_first, names
from .style import CHARACTER_PX, LINE_PX, escape, lines, n_columns, wrap

CELL_PX = 150.0
GAP_PX = 18.0
HEAD_PX = 26.0
FOOT_PX = 2 * LINE_PX + 12.0
SIDE_PX = 10.0
COLORBAR_PX = 92.0
CELL_COLUMNS = int(CELL_PX / CHARACTER_PX)


class Sheet:
    """The sheet of pictures: a row for each image, a column for the pixels and one for each checkpoint.

    Its width is fixed, so that every picture keeps its shape and every line of text its room.
    """

    def __init__(self, examples: xr.Dataset, class_names: Sequence[str] | None) -> None:
        self.examples = examples
        self.class_names = class_names
        self.images = names(examples, "image")
        self.checkpoints = names(examples, "checkpoint")
        self.conditions = clean_first(names(examples, "condition"))
        self.first_map = 1 if "pixels" in examples else 0
        self.n_columns = self.first_map + len(self.checkpoints)
        n_rows, n_columns = examples.sizes["patch_row"], examples.sizes["patch_column"]
        self.cell_px = float(np.clip(CELL_PX * n_rows / n_columns, 40, 300))

    @property
    def row_px(self) -> float:
        """Height of a row: the image's name, the pictures, what is predicted."""
        return HEAD_PX + self.cell_px + FOOT_PX

    @property
    def plot_px(self) -> float:
        """Height of all rows together."""
        return self.row_px * len(self.images)

    @property
    def inner_px(self) -> float:
        """Width of all columns together."""
        return self.n_columns * CELL_PX + (self.n_columns - 1) * GAP_PX

    @property
    def width_px(self) -> float:
        """Width of the figure."""
        return max(SIDE_PX + self.inner_px + COLORBAR_PX, 420)

    @property
    def title_lines(self) -> int:
        """Lines of the tallest title of a column."""
        return max(len(lines(name, CELL_COLUMNS)) for name in self.checkpoints)

    def left(self, column: int) -> float:
        """Left edge of a column, as a share of the inner width."""
        return column * (CELL_PX + GAP_PX) / self.inner_px

    def top(self, row: int, px: float) -> float:
        """A height `px` below the top of a row, as a share of the inner height."""
        return 1 - (row * self.row_px + px) / self.plot_px

    def draw(self, figure: go.Figure, at: int, unit: str) -> None:
        """Add one condition's traces, seen if it is the first: the pictures, then the maps still empty."""
        condition = self.conditions[at]
        axis = {"visible": at == 0}
        for row in range(len(self.images)):
            if self.first_map:
                # A picture that was not kept is drawn in full transparency: traces are counted by condition.
                opacity = 1.0 if self.has_picture(condition, row) else 0.0
                pixels = self.examples["pixels"].sel(condition=condition).isel(image=row)
                source = picture_uri(_colored(pixels.transpose("row", "column", "channel").values))
                figure.add_image(
                    source=source, opacity=opacity, hoverinfo="skip", **self.axes(row, 0), **axis
                )
            for k, name in enumerate(self.checkpoints):
                figure.add_heatmap(
                    coloraxis="coloraxis",
                    name=escape(name),
                    hovertemplate=f"patch row %{{y}}, column %{{x}}<br>%{{z:.4g}} {escape(unit)}",
                    **self.axes(row, self.first_map + k),
                    **axis,
                )

    def axes(self, row: int, column: int) -> dict[str, str]:
        """The names of one cell's axes, as a trace says them."""
        number = row * self.n_columns + column + 1
        suffix = "" if number == 1 else str(number)
        return {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}

    def set_axes(self, figure: go.Figure) -> None:
        """Give every cell its place."""
        n_patch_rows, n_patch_columns = (self.examples.sizes[dim] for dim in ("patch_row", "patch_column"))
        for row in range(len(self.images)):
            for column in range(self.n_columns):
                names_of = self.axes(row, column)
                x, y = (names_of[key].replace(key[0], key, 1) for key in ("xaxis", "yaxis"))
                hidden = {"visible": False, "fixedrange": True}
                left = self.left(column)
                domain_x = [left, min(1.0, left + CELL_PX / self.inner_px)]
                domain_y = [self.top(row, HEAD_PX + self.cell_px), self.top(row, HEAD_PX)]
                picture = column < self.first_map
                reach_x, reach_y = {}, {}
                if not picture:
                    reach_x = {"range": [-0.5, n_patch_columns - 0.5]}
                    reach_y = {"range": [n_patch_rows - 0.5, -0.5]}
                figure.update_layout(
                    {
                        x: {"domain": domain_x, "anchor": names_of["yaxis"], **hidden, **reach_x},
                        y: {"domain": domain_y, "anchor": names_of["xaxis"], **hidden, **reach_y},
                    }
                )

    def annotations(self, at: int) -> list[dict[str, object]]:
        """All text of one condition: columns' titles, rows' images and classes, maps' predictions."""
        said = []
        for column, name in enumerate(["image"] * self.first_map + self.checkpoints):
            middle = self.left(column) + CELL_PX / 2 / self.inner_px
            said.append(_text(f"<b>{wrap(name, CELL_COLUMNS)}</b>", middle, 1.0, "center", "bottom"))
        for row, image in enumerate(self.images):
            of_class = ""
            if "label" in self.examples:
                of_class = f" · {self.class_name(self.examples['label'].isel(image=row))}"
            room = int(self.inner_px / CHARACTER_PX)
            head = escape(_fitted(image, of_class, room))
            said.append(_text(head, 0.0, self.top(row, HEAD_PX - 4), "left", "bottom"))
            if self.first_map and not self.has_picture(self.conditions[at], row):
                middle, high = CELL_PX / 2 / self.inner_px, self.top(row, HEAD_PX + self.cell_px / 2)
                said.append(_text("no picture kept", middle, high, "center", "middle"))
            for k in range(len(self.checkpoints)):
                middle = self.left(self.first_map + k) + CELL_PX / 2 / self.inner_px
                foot = self.prediction(self.conditions[at], row, k)
                said.append(_text(foot, middle, self.top(row, HEAD_PX + self.cell_px + 4), "center", "top"))
        return said

    def has_picture(self, condition: str, row: int) -> bool:
        """Whether an image's pixels were kept under a condition."""
        if "pixels_known" not in self.examples:
            return True
        return bool(self.examples["pixels_known"].sel(condition=condition).isel(image=row))

    def prediction(self, condition: str, row: int, checkpoint: int) -> str:
        """What a checkpoint predicts for an image, and how probable it finds the correct class."""
        values = self.examples.sel(condition=condition).isel(image=row, checkpoint=checkpoint)
        told = []
        if "predicted" in values and bool(values["predicted"].isnull()):
            told.append("no prediction: its logits are not finite")
        elif "predicted" in values:
            mark = ""
            if "label" in values:
                mark = "✓ " if int(values["predicted"]) == int(values["label"]) else "✗ "
            told.append(wrap(mark + self.class_name(values["predicted"]), CELL_COLUMNS, 1))
        if "correct_probability" in values:
            told.append(f"correct class: {float(values['correct_probability']):.1%}")
        return "<br>".join(told)

    def class_name(self, index: xr.DataArray) -> str:
        """The name of a class, or its number where it has none."""
        number = int(index)
        if self.class_names is not None and 0 <= number < len(self.class_names):
            return str(self.class_names[number])
        return f"class {number}"


def _fitted(image: str, of_class: str, room: int) -> str:
    """An image's name and class in one line: where they are too long the folder goes first, then the class.

    Example:
        >>> _fitted("long_folder/7.png", " · terrier", 18)
        '…/7.png · terrier'
        >>> _fitted("long_folder/7.png", " · American Staffordshire terrier", 18)
        '…/7.png · America…'
    """
    _, slash, file = image.rpartition("/")
    if slash and n_columns(image + of_class) > room:
        image = f"…/{file}"
    return lines(image + of_class, room, 1)[0]


def _text(text: str, x: float, y: float, xanchor: str, yanchor: str) -> dict[str, object]:
    return {
        "text": text,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": xanchor,
        "yanchor": yanchor,
        "showarrow": False,
        "align": xanchor,
        "borderpad": 0,
    }


def _colored(levels: UInt8[np.ndarray, "row column channel"]) -> UInt8[np.ndarray, "row column 3"]:
    """Gray pictures as three equal channels."""
    return levels.repeat(3, axis=-1) if levels.shape[-1] == 1 else levels
