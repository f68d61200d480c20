"""The Fourier heat map: a model's error under a single wave, at every frequency of a grid."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float64, Int
from scipy import stats

from ..errors import AnalysisError
from ..images import Condition, ImageDataset
from ..images.fourier import FourierWave
from ..images.values import is_whole
from ..models import HookedViT
from ..running import run
from .prediction import Prediction

_SOURCE = "Yin et al. (2019), A Fourier perspective on model robustness in computer vision"


def fourier_heat_map(
    model: HookedViT | Mapping[str, HookedViT],
    dataset: ImageDataset,
    *,
    l2_norm_pixel: float,
    max_frequency_cycles_per_pixel: float = 0.5,
    n_side: int | None = 15,
    image_size: tuple[int, int] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    level: float = 0.95,
    precision: str | None = None,
    output: str | os.PathLike[str] | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Measure at which frequencies a model is sensitive: its error when one wave is added to every image.

    A frequency and its negative are the same wave, so that half of the grid is measured and the other half
    mirrors it. The grid is centered on frequency 0, where the wave is a shift of color. Every image keeps its
    signs, one for each channel, at all frequencies. Each frequency costs a pass over the images.

    Args:
        model: the model, or checkpoint name -> model, as in `vitlens.run`.
        dataset: labelled images, as in `vitlens.run`.
        l2_norm_pixel: root of the sum of squares of what is added to one channel, before it is clipped to
            [0, 1]: the rms times the root of the number of pixels. The paper takes 4 for 32 × 32 pixels and
            15.7 for 224 × 224.
        max_frequency_cycles_per_pixel: how far the grid goes, downward and across; 0.5 is as far as there is.
        n_side: frequencies along each side, an odd number, evenly spread and rounded to whole cycles per
            image; None takes every one.
        image_size: (height, width) of the images, where the model takes any; None takes the model's own.
        batch_size: images in a forward pass.
        seed: of the signs.
        level: confidence level of the intervals.
        precision: as in `vitlens.run`.
        output: a folder to keep rows in as they come: a map that was interrupted goes on there.
        num_workers: processes that load images.
        progress: show a bar.

    Returns:
        `error`, `ci_low`, `ci_high` (frequency_y, frequency_x): share of the images whose class is wrong, and
        Wilson's interval for each cell by itself; `correct` (frequency_y, frequency_x, image), from which
        they come; `clean_error` and `clean_correct` (image) without a wave; `checkpoint` before these dims
        where several models were given. The coordinates `frequency_y` (downward) and `frequency_x` (across)
        are in cycles per pixel. Attributes: `n` (images), `l2_norm_pixel`, `seed`, `level`, `source`.

    Raises:
        AnalysisError: the grid is none, or the size of the images is not known.
        ConditionError: the norm is negative.
        ArchitectureError, DatasetError, LabelError, PixelError: as in `vitlens.run`.

    Source: Yin et al. (2019), "A Fourier perspective on model robustness in computer vision": the Fourier
    heat map.

    Example:
        >>> import timm, vitlens as vl
        >>> model = vl.HookedViT(timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=10))
        >>> images = [vl.images.digits("test")[i] for i in range(4)]
        >>> data = fourier_heat_map(model, images, l2_norm_pixel=4.0, n_side=3, progress=False)
        >>> dict(data["correct"].sizes), data["frequency_x"].values
        ({'frequency_y': 3, 'frequency_x': 3, 'image': 4}, array([-0.5,  0. ,  0.5]))
        >>> bool(data["error"][0, 2] == data["error"][2, 0])
        True
    """
    if not 0.5 < level < 1:
        raise AnalysisError(
            f"level is {level}.", expected="a value between 0.5 and 1", remedy="0.95 is usual."
        )
    if (n_side is not None and not is_whole(n_side)) or not (
        image_size is None or (isinstance(image_size, tuple | list) and len(image_size) == 2)
    ):
        raise AnalysisError(
            f"n_side is {n_side!r} and image_size is {image_size!r}.",
            expected="an odd whole number or None, and (height, width) or None",
            remedy="Leave them out for 15 frequencies a side at the model's own size.",
        )
    size = _image_size(model, image_size)
    axes = [_cycles(n, max_frequency_cycles_per_pixel, n_side) for n in size]
    grid = [[_condition(int(y), int(x), size, l2_norm_pixel) for x in axes[1]] for y in axes[0]]
    conditions = {condition.name: condition for row in grid for condition in row}
    data = run(
        model,
        dataset,
        [Prediction()],
        conditions=["clean", *conditions.values()],
        batch_size=batch_size,
        seed=seed,
        precision=precision,
        output=output,
        num_workers=num_workers,
        progress=progress,
    )
    correct = data["rank"] == 0
    names = xr.DataArray(
        [[condition.name for condition in row] for row in grid], dims=["frequency_y", "frequency_x"]
    )
    cells = correct.sel(condition=names).drop_vars("condition")
    cells = cells.transpose(..., "frequency_y", "frequency_x", "image")
    clean = correct.sel(condition="clean", drop=True)
    low, high = _wilson((~cells).sum("image").values, cells.sizes["image"], level)
    dims = [dim for dim in cells.dims if dim != "image"]
    cycles_per_pixel = {"units": "cycles per pixel"}
    share = {"units": "share"}
    return xr.Dataset(
        {
            "error": (1 - cells.mean("image")).assign_attrs(share, long_name="Error under a wave"),
            "ci_low": (dims, low, share),
            "ci_high": (dims, high, share),
            "correct": cells,
            "clean_error": (1 - clean.mean("image")).assign_attrs(share, long_name="Error without a wave"),
            "clean_correct": clean,
        },
        coords={
            "frequency_y": ("frequency_y", axes[0] / size[0], cycles_per_pixel),
            "frequency_x": ("frequency_x", axes[1] / size[1], cycles_per_pixel),
        },
        attrs={
            "n": cells.sizes["image"],
            "l2_norm_pixel": l2_norm_pixel,
            "seed": seed,
            "level": level,
            "source": _SOURCE,
        },
    )


def _image_size(
    model: HookedViT | Mapping[str, HookedViT], image_size: tuple[int, int] | None
) -> tuple[int, int]:
    models = [model] if isinstance(model, HookedViT) else list(model.values())
    size = image_size or (models[0].cfg.image_size if models else None)
    if size is None:
        raise AnalysisError(
            "The model does not say which size of image it was built for."
            if models
            else "There is no checkpoint.",
            expected="a model and the size of its images",
            remedy="Give image_size=(height, width).",
        )
    return size


def _cycles(n: int, max_frequency: float, n_side: int | None) -> Int[np.ndarray, " side"]:
    """Whole cycles per image along one side, from -k to k, 0 among them."""
    if not 0 < max_frequency <= 0.5:
        raise AnalysisError(
            f"max_frequency_cycles_per_pixel is {max_frequency}.",
            expected="a value above 0, up to 0.5",
            remedy="0.5 is the whole plane of frequencies.",
        )
    most = int(max_frequency * n + 1e-6)
    n_all = 2 * most + 1
    n_side = n_all if n_side is None else n_side
    if n_side % 2 == 0 or not 3 <= n_side <= n_all:
        raise AnalysisError(
            f"n_side is {n_side}; up to {max_frequency:g} cycles per pixel, {n} pixels have {n_all} "
            "frequencies.",
            expected=f"an odd number from 3 to {n_all}" if most else "more than frequency 0 alone",
            remedy="Raise max_frequency_cycles_per_pixel, or lower n_side; None takes every frequency.",
        )
    return np.rint(np.linspace(-most, most, n_side)).astype(int)


def _condition(y: int, x: int, size: tuple[int, int], l2_norm_pixel: float) -> Condition:
    """The wave of so many cycles per image; one and the same for all that give the same image."""
    height, width = size
    # Frequencies a whole cycle per pixel apart are one on the grid of pixels, and so are two opposite ones.
    down, across = min((y % height, x % width), (-y % height, -x % width))
    y, x = (cycles - n if 2 * cycles > n else cycles for cycles, n in ((down, height), (across, width)))
    name = f"fourier_wave:cycles_y={y}/{height},cycles_x={x}/{width},l2_norm_pixel={float(l2_norm_pixel)!r}"
    return Condition(name, FourierWave((y / height, x / width), float(l2_norm_pixel)))


def _wilson(
    hits: Int[np.ndarray, "*cell"], n: int, level: float
) -> tuple[Float64[np.ndarray, "*cell"], Float64[np.ndarray, "*cell"]]:
    """Wilson's score interval of each proportion."""
    counts, place = np.unique(hits, return_inverse=True)
    ends = [stats.binomtest(int(count), n).proportion_ci(level, method="wilson") for count in counts]
    low, high = np.array(ends)[place.reshape(hits.shape)].transpose(-1, *range(hits.ndim))
    return low, high
