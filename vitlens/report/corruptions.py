"""The section on corruptions: what each condition is, where in frequency it lies, and how it looks."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import UInt8

from .charts.pictures import SMALL_PX, picture_uri
from .charts.reading import names
from .measured import CLEAN, MEASURES, known, measured, pictures
from .tables import frame_table

_HEADS = {
    "hf_energy": "high energy (%)",
    "delta_hf_db": "high frequency (dB)",
    "rms": "rms",
}
_SCALE = {"hf_energy": 100.0, "delta_hf_db": 1.0, "rms": 255.0}


def corruptions_html(data: xr.Dataset, examples: xr.Dataset | None) -> str:
    """A table of the conditions with what they are and measure, and one image under each.

    Args:
        data: a comparison's; its conditions are shown.
        examples: a comparison's; without kept pixels the measures are those of the library's own table.

    Returns:
        HTML; empty where the comparison has no corruption and no picture.
    """
    conditions = names(data, "condition")
    found = measured(examples)
    shown = pictures(examples)
    corrupted = [
        name
        for name in conditions
        if known(name).family or (found is not None and name in names(found, "condition"))
    ]
    if not corrupted:
        return ""
    table = frame_table(pd.DataFrame([_row(name, found) for name in corrupted]).dropna(axis=1, how="all"))
    return (
        f"<p>{_how_measured(found)}</p>\n"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Corruptions">{table}</div>\n'
        + _strip({name: shown[name] for name in (CLEAN, *conditions) if name in shown}, examples)
    )


def _row(condition: str, found: xr.Dataset | None) -> dict[str, object]:
    said = known(condition)
    here = found.sel(condition=condition) if found is not None and condition in found["condition"] else None
    row: dict[str, object] = {
        "condition": condition,
        "family": said.family or None,
        "what it does": said.group or None,
        "parameters": ", ".join(f"{name} {value:g}" for name, value in said.parameters.items()) or None,
    }
    for name in MEASURES:
        value = said.beforehand.get(name, np.nan) if here is None else _mean(here[name])
        row[_HEADS[name]] = float(f"{_SCALE[name] * value:.3g}")
    return row


def _mean(values: xr.DataArray) -> float:
    finite = values.values[np.isfinite(values.values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _how_measured(found: xr.Dataset | None) -> str:
    meaning = (
        "High energy is the share of the change's energy that lies above 1/8 cycle per pixel; high "
        "frequency, by how many decibels the image's own share of such energy rose or fell; rms, the root "
        "mean square of the change in levels of 255. "
    )
    if found is None:
        return meaning + "The values are the library's own, measured on photographs, not on these images."
    n = found.sizes["image"]
    return meaning + f"Means over {n} example image{'s' * (n > 1)} of this comparison."


def _strip(
    shown: dict[str, UInt8[np.ndarray, "image row column channel"]], examples: xr.Dataset | None
) -> str:
    """The first example image under every condition whose pixels were kept."""
    if examples is None or set(shown) <= {CLEAN}:
        return ""
    image = names(examples, "image")[0]
    cells = "".join(_picture(name, pixels[0], image) for name, pixels in shown.items())
    return (
        f'<h3>One image under each condition</h3>\n<p class="soft">{html.escape(image)}</p>\n'
        f'<div class="strip" role="group" aria-label="One image under each condition">{cells}</div>\n'
    )


def _picture(condition: str, levels: UInt8[np.ndarray, "row column channel"], image: str) -> str:
    if levels.shape[-1] == 1:
        levels = levels.repeat(3, axis=-1)
    height, width = levels.shape[:2]
    small = ' class="small"' if max(height, width) <= SMALL_PX else ""
    name, said = html.escape(condition), html.escape(f"{image} under {condition}")
    return (
        f'<figure class="cell"><img{small} src="{picture_uri(levels, 85)}" width="{width}" height="{height}" '
        f'alt="{said}" loading="lazy"><figcaption>{name}</figcaption></figure>'
    )
