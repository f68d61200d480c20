"""The spectra of a comparison's conditions: how much each changes an image, by frequency."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from .behind import array_rows, keep
from .panels import Grid
from .reading import n_images, names
from .style import NEUTRAL, PALETTE, escape

HIGH_FREQUENCY = 1 / 8
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_LEAST = 1e-9
"""Power that is drawn as the bottom of a panel: far below a change of one level of 255."""


def corruption_spectra(measured: xr.Dataset | None) -> go.Figure | None:
    """Power of each condition's change by frequency, beside that of the images themselves.

    Args:
        measured: `radial_power` (condition, image, frequency), `image_power` (image, frequency) and
            `hf_energy` (condition, image), frequencies in cycles per pixel; None where nothing was measured.

    Returns:
        The figure, a panel for each condition; None without measures.
    """
    if measured is None:
        return None
    conditions = names(measured, "condition")
    # The ring around frequency 0 has no place on a logarithmic axis; rings beyond 1/2 are corners.
    inside = (measured["frequency"] > 0) & (measured["frequency"] <= 0.5)
    here = measured.isel(frequency=np.flatnonzero(inside.values))
    frequency = here["frequency"].values
    power, own = here["radial_power"].mean("image"), here["image_power"].mean("image")
    share = measured["hf_energy"].mean("image")
    titles = [
        f"{name}: {100 * value:.0f} % high" for name, value in zip(conditions, share.values, strict=True)
    ]
    grid = Grid(titles, n_columns=min(3, len(titles)), panel_px=(200, 170))
    figure = grid.figure()
    legend = ("the change", "the clean images")
    for i, condition in enumerate(conditions):
        curves = (
            (legend[0], power.sel(condition=condition).values, PALETTE[0], "solid"),
            (legend[1], own.values, NEUTRAL, "dot"),
        )
        for name, values, color, dash in curves:
            figure.add_scatter(
                x=frequency,
                y=np.where(values > _LEAST, values, np.nan),
                mode="lines",
                name=name,
                legendgroup=name,
                showlegend=i == 0,
                line={"color": color, "dash": dash, "width": 2},
                hovertemplate=f"<b>{escape(name)}</b> · {escape(condition)}<br>"
                "%{x:.3f} cycles per pixel: %{y:.3g}<extra></extra>",
                **grid.place(i),
            )
        figure.add_vline(x=HIGH_FREQUENCY, line={"color": NEUTRAL, "width": 1}, **grid.place(i))
    figure.update_xaxes(
        type="log", tickvals=[0.01, 0.03, 1 / 8, 0.5], ticktext=["0.01", "0.03", "1/8", "1/2"]
    )
    powers = {
        f"10{str(power).translate(_RAISED)}" if power else "1": 10.0**power for power in range(-8, 7, 2)
    }
    figure.update_yaxes(type="log", matches="y", tickvals=list(powers.values()), ticktext=list(powers))
    figure.layout.yaxis.matches = None  # the first axis is the one that the others match
    grid.label(figure, x="frequency (cycles per pixel)", y="power")
    own = own.expand_dims(condition=conditions)
    keep(figure, array_rows({"power_of_change": power, "power_of_image": own}))
    return grid.finish(
        figure,
        title="Spectra of the corruptions",
        subtitle=f"mean over {n_images(measured).replace('image', 'example image')}; the line stands at 1/8 "
        "cycle per pixel",
        caption="Power of the change in brightness that a corruption makes, by frequency, beside the clean "
        "images' own. Right of the line is what counts as high frequency; above each panel stands the share "
        "of the change's energy that lies there.",
        legend=list(legend),
    )
