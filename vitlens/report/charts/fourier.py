"""The figure of a Fourier heat map: error by frequency, one panel for each checkpoint."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from ...errors import ComparisonError
from .heatmaps import rounded
from .panels import Grid
from .reading import n_images, names
from .style import SEQUENTIAL, escape

_PANEL_PX = 250.0


def fourier_heat_map_figure(data: xr.Dataset) -> go.Figure:
    """A model's error under a single wave, by the wave's frequency; frequency 0 in the middle.

    Args:
        data: of `vitlens.fourier_heat_map`.

    Returns:
        The figure: a panel for each checkpoint, all with one scale of colors; intervals at the pointer.

    Raises:
        ComparisonError: the table is none of such errors.

    Example:
        >>> cells = (("frequency_y", "frequency_x"), np.array([[0.5, 0.2], [0.1, 0.2]]))
        >>> data = xr.Dataset(
        ...     {"error": cells, "ci_low": cells, "ci_high": cells, "clean_error": 0.1},
        ...     coords={"frequency_y": [-0.5, 0.0], "frequency_x": [-0.5, 0.0], "image": ["a", "b"]},
        ...     attrs={"l2_norm_pixel": 4.0, "level": 0.95},
        ... )
        >>> fourier_heat_map_figure(data).data[0].z.round(1).tolist()
        [[50.0, 20.0], [10.0, 20.0]]
    """
    wanted = ("error", "ci_low", "ci_high", "clean_error", "frequency_y", "frequency_x")
    if not isinstance(data, xr.Dataset) or not set(wanted) <= set(data.variables):
        raise ComparisonError(
            "The data are no Fourier heat map.",
            expected=f"a data set with {', '.join(wanted)}",
            remedy="Give what vitlens.fourier_heat_map gives.",
        )
    if "checkpoint" not in data.dims:
        data = data.expand_dims(checkpoint=["model"])
    ends = xr.concat([data["ci_low"], data["ci_high"]], dim="end")
    percent, ends, clean = 100 * data["error"], 100 * ends, 100 * data["clean_error"]
    checkpoints = names(data, "checkpoint")
    titles = [
        f"{name}, clean {error:.1f} %" for name, error in zip(checkpoints, clean.values.ravel(), strict=True)
    ]
    grid = Grid(titles, n_columns=min(3, len(titles)), panel_px=(_PANEL_PX, _PANEL_PX))
    figure = grid.figure()
    axes = ("frequency_y", "frequency_x")
    for panel, name in enumerate(checkpoints):
        figure.add_heatmap(
            z=percent.sel(checkpoint=name).transpose(*axes).values,
            x=data["frequency_x"].values,
            y=data["frequency_y"].values,
            name=escape(name),
            customdata=rounded(ends.sel(checkpoint=name).transpose(*axes, "end").values),
            hovertemplate="%{y:.3f} downward, %{x:.3f} across<br>%{z:.3g} "
            "[%{customdata[0]}, %{customdata[1]}] % wrong",
            coloraxis="coloraxis",
            **grid.place(panel),
        )
        # Cells are square, so that a ring of one frequency is a circle.
        at = "" if panel == 0 else panel + 1
        figure.update_layout(
            {
                f"yaxis{at}": {"scaleanchor": f"x{at}", "autorange": "reversed", "constrain": "domain"},
                f"xaxis{at}": {"constrain": "domain"},
            }
        )
    figure.update_layout(
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": float(np.nanmin(percent.values)),
            "cmax": float(np.nanmax(percent.values)),
            "colorbar": {
                "title": {"text": "error (%)", "side": "right"},
                "thickness": 12,
                "outlinewidth": 0,
                "x": 1.02,
                "xpad": 0,
            },
        }
    )
    figure.update_xaxes(showgrid=False, zeroline=False, nticks=5)
    figure.update_yaxes(showgrid=False, zeroline=False, nticks=5)
    grid.label(figure, x="across (cycles per pixel)", y="downward (cycles per pixel)")
    figure = grid.finish(
        figure,
        title="Error under a single wave, by its frequency",
        subtitle=f"{n_images(data)}; {100 * data.attrs['level']:g} % Wilson intervals at the pointer",
        caption="Share of images whose class is wrong when a wave is added to every channel with a random "
        f"sign, its norm {data.attrs['l2_norm_pixel']:g} on pixels from 0 to 1. In the middle stand low "
        "frequencies, at the corners high ones; opposite frequencies are the same wave. Cells share their "
        "images, and so chance moves them together.",
        right_px=84,
    )
    figure.layout.meta = {**figure.layout.meta, "section": "Accuracy"}
    return figure
