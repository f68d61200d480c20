"""Maps over patches: a picture, and beside it what each checkpoint has there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

from .heatmaps import rounded
from .reading import has, names
from .sheet import COLORBAR_PX, SIDE_PX, Sheet
from .style import DIVERGING, SEQUENTIAL, escape, finish, lines
from .variables import IMAGE_DIMS, MAP_DIMS, PLACE_DIMS, quantity

N_IMAGES = 6
"""Images of a figure; of more the first are shown."""

_DIMS = ("condition", "image", "checkpoint", *MAP_DIMS)


def attention_maps(examples: xr.Dataset | None, class_names: Sequence[str] | None) -> go.Figure | None:
    """Each example's picture, and the attention of every checkpoint's layer to its patches.

    Args:
        examples: holds `attention_map` (checkpoint, condition, image, layer, head, patch_row, patch_column),
            and if they are there `pixels` (condition, image, row, column, channel), `label` (image),
            `predicted` and `correct_probability` (checkpoint, condition, image).
        class_names: name of each class, by index.

    Returns:
        The figure, with a menu for the layer (the last one first) and one for the condition; None without
        examples.
    """
    if examples is None or not has(examples, "attention_map"):
        return None
    n, n_heads = examples.sizes["image"], examples.sizes["head"]
    return _maps(
        Sheet(examples, class_names),
        100 * examples["attention_map"].mean("head"),
        unit="% of attention",
        title="Attention maps",
        subtitle=f"{n} example image{'' if n == 1 else 's'}; mean over {n_heads} "
        f"head{'' if n_heads == 1 else 's'}",
        caption="Attention from the class token to each patch (without a class token: the mean over all "
        "patches' queries), averaged over heads, in percent of the query's attention. Colors mean the same "
        "for every picture of a layer and saturate at the 99th percentile. Under each map: the checkpoint's "
        "prediction and the probability it gives the correct class.",
    )


def maps(
    data: xr.Dataset, name: str, examples: xr.Dataset | None, class_names: Sequence[str] | None
) -> go.Figure:
    """A variable over patches, for some images under every checkpoint.

    Args:
        data: holds the variable (checkpoint, condition, named_image or image, patch_row, patch_column),
            perhaps by layer or resid_layer, and perhaps by head, of which the mean is shown. If they are
            there for these images, `label`, `predicted` and `correct_probability` are written beside the
            maps.
        name: of the variable.
        examples: may hold the `pixels` of these images.
        class_names: name of each class, by index.

    Returns:
        The figure, with a menu for the layer (the last one first) and one for the condition.
    """
    shown = quantity(data, name)
    dim = next(dim for dim in IMAGE_DIMS[::-1] if dim in shown.values.dims)
    n_all = data.sizes[dim]
    values = shown.values.rename({dim: "image"}) if dim != "image" else shown.values
    values = values.sel(image=_chosen(names(data, dim), dim, examples))
    n_heads = values.sizes.get("head", 1)
    if "head" in values.dims:
        values = values.mean("head")
    sheet = Sheet(_described(values, data, examples), class_names)
    n = len(sheet.images)
    place = next((dim for dim in PLACE_DIMS if dim in values.dims), None)
    signed = bool((values.values < 0).any())
    written = [text for key, text in _WRITTEN.items() if key in sheet.examples]
    return _maps(
        sheet,
        shown.factor * values.astype(np.float64),
        unit=shown.unit,
        title=shown.title,
        subtitle=(f"{n} of {n_all:,} images" if n < n_all else f"{n} image{'' if n == 1 else 's'}")
        + ", each by itself"
        + (f"; mean over {n_heads} heads" if n_heads > 1 else ""),
        caption=("Red adds, blue takes away; colors" if signed else "Colors")
        + f" mean the same for every picture{f' of a {place}' if place else ''} and saturate at the 99th "
        "percentile. These are single images: nothing is averaged over images, and there is no interval."
        + (f" Under each map: {' and '.join(written)}." if written else ""),
    )


_WRITTEN = {
    "predicted": "the checkpoint's prediction",
    "correct_probability": "the probability it gives the correct class",
}


def _maps(
    sheet: Sheet, values: xr.DataArray, *, unit: str, title: str, subtitle: str, caption: str
) -> go.Figure:
    """The sheet with its maps, menus and scale of colors.

    Args:
        sheet: where everything stands.
        values: (checkpoint, condition, image, patch_row, patch_column), perhaps by layer or resid_layer.
        unit: of the values.
        title: of the figure, escaped.
        subtitle: what is shown.
        caption: one or two sentences.
    """
    place = next((dim for dim in PLACE_DIMS if dim in values.dims), "layer")
    if place not in values.dims:
        values = values.expand_dims({place: [0]})
    places = values[place].values
    z = values.sel(condition=sheet.conditions).transpose(place, *_DIMS).values
    z = z.reshape(len(places), -1, *z.shape[-2:])
    signed = bool((z < 0).any())
    ceilings = [_ceiling(of_place) for of_place in z]

    figure = go.Figure()
    for condition in range(len(sheet.conditions)):
        sheet.draw(figure, condition, unit)
    sheet.set_axes(figure)
    drawn = [i for i, trace in enumerate(figure.data) if trace.type == "heatmap"]
    for i, of_map in zip(drawn, z[-1], strict=True):
        figure.data[i].z = of_map
    menus: list[dict[str, object]] = []
    if len(places) > 1:
        buttons = [
            {
                "label": f"{place} {escape(label)}",
                "method": "update",
                "args": [
                    {"z": [rounded(of_map) for of_map in z[at]]},
                    {"coloraxis.cmax": ceilings[at], "coloraxis.cmin": -ceilings[at] if signed else 0},
                    drawn,
                ],
            }
            for at, label in enumerate(places)
        ]
        menus.append({"name": place.capitalize(), "active": len(places) - 1, "buttons": buttons})
    if len(sheet.conditions) > 1:
        per_condition = len(figure.data) // len(sheet.conditions)
        buttons = [
            {
                "label": escape(lines(name, 40, 1)[0]),
                "method": "update",
                "args": [
                    {"visible": [i // per_condition == at for i in range(len(figure.data))]},
                    {"annotations": sheet.annotations(at)},
                ],
            }
            for at, name in enumerate(sheet.conditions)
        ]
        menus.append({"name": "Condition", "buttons": buttons})
    figure.update_layout(
        annotations=sheet.annotations(0),
        coloraxis={
            "colorscale": [list(stop) for stop in DIVERGING] if signed else SEQUENTIAL,
            "cmin": -ceilings[-1] if signed else 0,
            "cmax": ceilings[-1],
            "colorbar": {
                "title": {"text": escape(lines(unit, 18, 1)[0]), "side": "right"},
                "thickness": 12,
                "outlinewidth": 0,
                "len": min(420.0, sheet.plot_px),
                "lenmode": "pixels",
                "y": 1,
                "yanchor": "top",
                "x": 1.02,
                "xpad": 0,
            },
        },
    )
    finish(
        figure,
        title=title,
        subtitle=subtitle,
        caption=caption,
        plot_px=sheet.plot_px,
        left_px=SIDE_PX,
        right_px=COLORBAR_PX,
        bottom_px=8,
        panel_title_lines=sheet.title_lines,
        menus=menus,
        min_width_px=sheet.width_px,
    )
    return figure.update_layout(width=round(sheet.width_px))


def _chosen(images: Sequence[str], dim: str, examples: xr.Dataset | None) -> list[str]:
    """Which images to show: those that were named, else those whose pixels were kept, else the first."""
    kept = names(examples, "image") if examples is not None else []
    among = [image for image in images if image in kept] if dim == "image" else []
    return (among or list(images))[:N_IMAGES]


def _described(values: xr.DataArray, data: xr.Dataset, examples: xr.Dataset | None) -> xr.Dataset:
    """The maps' images as a sheet reads them: with pixels, labels and predictions where they are known."""
    made = values.to_dataset(name="map")
    images, conditions = names(made, "image"), names(made, "condition")
    if "image" in data.coords and set(images) <= set(names(data, "image")):
        for name in ("label", *_WRITTEN):
            if name in data and "image" in data[name].dims:
                made[name] = data[name].sel(image=images)
        if "label" in made:
            made["label"] = made["label"].isel(checkpoint=0, condition=0, drop=True)
    if examples is None or "pixels" not in examples:
        return made
    kept = examples["pixels"]
    known = np.array(
        [
            [one in names(examples, "image") and of in names(examples, "condition") for one in images]
            for of in conditions
        ]
    )
    if known.any():
        pixels = np.zeros(
            (*known.shape, *(kept.sizes[dim] for dim in ("row", "column", "channel"))), np.uint8
        )
        for at in np.argwhere(known):
            here = kept.sel(condition=conditions[at[0]], image=images[at[1]])
            pixels[tuple(at)] = here.transpose("row", "column", "channel").values
        made["pixels"] = (("condition", "image", "row", "column", "channel"), pixels)
        made["pixels_known"] = (("condition", "image"), known)
    return made


def _ceiling(values: Float[np.ndarray, "*axes"]) -> float:
    """The size at which colors saturate: one bright patch must not darken all others."""
    finite = np.abs(values[np.isfinite(values)])
    return float(np.quantile(finite, 0.99)) or 1.0 if len(finite) else 1.0
