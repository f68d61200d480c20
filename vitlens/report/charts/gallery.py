"""Figures of a gallery: the pictures of a feature or a matched pair, each with its heat, for a report."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from ...saes.gallery_data import Exhibit, Gallery, ShownImage
from ..histogram_svg import digits
from .pictures import HEAT_RGB, MOST_OPAQUE, picture_uri
from .style import CHARACTER_PX, LINE_PX, escape, finish, wrap

SECTION = "Features"
CELL_PX = 132.0
GAP_PX = 10.0
FOOT_PX = 3 * LINE_PX + 6
SIDE_PX = 12.0
COLORBAR_PX = 84.0
COLORBAR_LENGTH_PX = 180.0
N_COLUMNS = 6
CELL_COLUMNS = int(CELL_PX / CHARACTER_PX)


def gallery_figures(gallery: Gallery) -> dict[str, go.Figure]:
    """A figure for each exhibit that has pictures.

    Args:
        gallery: what `vitlens.saes.gallery` or `pair_gallery` gave.

    Returns:
        Figures by name: `feature_<index>`, or `features_<index>_<index>` of a pair. A pointer on a patch is
        told its activation.

    Example:
        See `vitlens.saes.gallery`.
    """
    return {_name(exhibit): _figure(gallery, exhibit) for exhibit in gallery.exhibits if exhibit.images}


def _name(exhibit: Exhibit) -> str:
    what = "features" if len(exhibit.features) > 1 else "feature"
    return "_".join([what, *(str(profile.feature) for profile in exhibit.features)])


def _figure(gallery: Gallery, exhibit: Exhibit) -> go.Figure:
    n_sides = len(exhibit.features)
    n_per_line = min(N_COLUMNS, len(exhibit.images))
    n_lines = math.ceil(len(exhibit.images) / n_per_line)
    height, width = exhibit.images[0].pixels.shape[:2]
    cell_px = CELL_PX * height / width
    line_px = n_sides * cell_px + (n_sides - 1) * GAP_PX + FOOT_PX
    inner_px = n_per_line * CELL_PX + (n_per_line - 1) * GAP_PX
    plot_px = n_lines * line_px

    figure = go.Figure()
    for place, image in enumerate(exhibit.images):
        line, column = divmod(place, n_per_line)
        left = column * (CELL_PX + GAP_PX) / inner_px
        for at in range(n_sides):
            top_px = line * line_px + at * (cell_px + GAP_PX)
            domains = (
                [left, left + CELL_PX / inner_px],
                [1 - (top_px + cell_px) / plot_px, 1 - top_px / plot_px],
            )
            _add_cell(figure, gallery, exhibit, image, place * n_sides + at, at, domains)
        figure.add_annotation(
            text=_foot(gallery, image),
            x=left,
            y=1 - ((line + 1) * line_px - FOOT_PX + 4) / plot_px,
            xref="paper",
            yref="paper",
            xanchor="left",
            yanchor="top",
            align="left",
            showarrow=False,
            borderpad=0,
        )
    has_heat = any(image.heat is not None for image in exhibit.images)
    if has_heat:
        figure.update_layout(
            {f"coloraxis{at + 1 if at else ''}": _color_axis(gallery, exhibit, at) for at in range(n_sides)}
        )
    caption = (
        "Images with the largest activations, and after them, marked ∗, some drawn from the middle half of "
        "the images on which the feature is active."
    )
    if n_sides > 1:
        caption += f" Each image above in {gallery.checkpoints[0]}, below in {gallery.checkpoints[1]}."
    finish(
        figure,
        title=exhibit.name,
        subtitle=_subtitle(gallery, exhibit),
        caption=caption,
        plot_px=plot_px,
        left_px=SIDE_PX,
        right_px=14 + COLORBAR_PX * n_sides if has_heat else SIDE_PX,
        bottom_px=8,
    )
    # A fixed width, so that every picture keeps its shape.
    figure.update_layout(width=SIDE_PX + inner_px + figure.layout.margin.r)
    figure.layout.meta = {**figure.layout.meta, "section": SECTION}
    return figure


def _add_cell(
    figure: go.Figure,
    gallery: Gallery,
    exhibit: Exhibit,
    image: ShownImage,
    number: int,
    at: int,
    domains: tuple[list[float], list[float]],
) -> None:
    """One picture under one checkpoint's heat."""
    suffix = str(number + 1) if number else ""
    heat = image.heat
    n_rows, n_columns = (1, 1) if heat is None else heat.shape[1:]
    hidden = {"visible": False, "fixedrange": True}
    figure.update_layout(
        {
            f"xaxis{suffix}": {
                "domain": domains[0],
                "anchor": f"y{suffix}",
                "range": [-0.5, n_columns - 0.5],
                **hidden,
            },
            f"yaxis{suffix}": {
                "domain": domains[1],
                "anchor": f"x{suffix}",
                "range": [n_rows - 0.5, -0.5],
                **hidden,
            },
        }
    )
    figure.add_layout_image(
        source=picture_uri(image.pixels),
        xref=f"x{suffix}",
        yref=f"y{suffix}",
        x=-0.5,
        y=-0.5,
        sizex=n_columns,
        sizey=n_rows,
        sizing="stretch",
        layer="below",
    )
    figure.add_heatmap(
        z=[[0.0]] if heat is None else heat[at].round(4).tolist(),
        coloraxis=None if heat is None else f"coloraxis{at + 1 if at else ''}",
        opacity=0.0 if heat is None else 1.0,
        name=escape(gallery.checkpoints[at]),
        hovertemplate=f"{escape(image.image_id)}<br>patch row %{{y}}, column %{{x}}<br>activation %{{z:.4g}}",
        hoverinfo="skip" if heat is None else None,
        showscale=False if heat is None else None,
        xaxis=f"x{suffix}",
        yaxis=f"y{suffix}",
    )


def _color_axis(gallery: Gallery, exhibit: Exhibit, at: int) -> dict[str, Any]:
    red, green, blue = HEAT_RGB
    name = f"activation in {gallery.checkpoints[at]}" if len(exhibit.features) > 1 else "activation"
    return {
        "colorscale": [
            [0, f"rgba({red},{green},{blue},0)"],
            [1, f"rgba({red},{green},{blue},{MOST_OPAQUE})"],
        ],
        "cmin": 0,
        "cmax": exhibit.largest_heat(at) or 1.0,
        "colorbar": {
            "title": {"text": wrap(name, 24, 1), "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
            "len": COLORBAR_LENGTH_PX,
            "lenmode": "pixels",
            "x": 1.0,
            "xpad": 14 + at * COLORBAR_PX,
            "y": 1.0,
            "yanchor": "top",
            "ypad": 0,
        },
    }


def _foot(gallery: Gallery, image: ShownImage) -> str:
    values = " / ".join(digits(value) for value in image.activation.tolist())
    mark = " ∗" if image.picked == "middle" else ""
    return f"<b>{values}</b>{mark}<br>{wrap(gallery.class_name(image.label), CELL_COLUMNS, 2)}"


def _subtitle(gallery: Gallery, exhibit: Exhibit) -> str:
    said = [
        (f"{escape(name)}: " if len(exhibit.features) > 1 else "")
        + f"active on {digits(100 * profile.share_active)} % of tokens, in {profile.n_active_images:,} of "
        f"{gallery.n_images:,} images"
        for name, profile in zip(gallery.checkpoints, exhibit.features, strict=True)
    ]
    return "; ".join(said)
