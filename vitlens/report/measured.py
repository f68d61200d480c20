"""What the kept example images say of a comparison's conditions: their pictures, and their frequencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import UInt8

from ..images import CORRUPTIONS, frequency_groups, measured_frequency, spectrum
from .charts.reading import names

CLEAN = "clean"
MEASURES = ("hf_energy", "delta_hf_db", "rms")


@dataclass(frozen=True)
class Known:
    """What is known of a condition beforehand, by its name.

    Attributes:
        family: of the corruption; empty where the name is no corruption's.
        group: what it does to an image's frequencies, in words; empty where that is unknown.
        parameters: of the operation, name -> value.
        beforehand: measures from the library's own table of photographs; empty where there are none.
    """

    family: str
    group: str
    parameters: Mapping[str, float]
    beforehand: Mapping[str, float]


def known(condition: str) -> Known:
    """Look a condition up among the corruptions.

    Args:
        condition: such as "gaussian_blur@3".

    Returns:
        What its name says; empty for clean images, attacks and operations of one's own.

    Example:
        >>> known("gaussian_blur@3").family, known("gaussian_blur@3").group, known("pgd:eps=4/255").family
        ('blur', 'removes high frequency', '')
    """
    name, _, rest = condition.partition("@")
    level = rest.partition(":")[0]
    if name not in CORRUPTIONS or level not in ("1", "2", "3", "4", "5"):
        return Known("", "", {}, {})
    spec = CORRUPTIONS[name]
    group = next((group for group, members in frequency_groups().items() if name in members), "")
    parameters = dict(zip(spec.parameter_names, spec.parameters[int(level) - 1], strict=True))
    beforehand = measured_frequency().get((name, int(level)), {})
    return Known(spec.family, group.replace("_", " "), parameters, beforehand)


def pictures(examples: xr.Dataset | None) -> dict[str, UInt8[np.ndarray, "image row column channel"]]:
    """The kept pixels of the example images, by condition, as every checkpoint saw them.

    They are read from `condition_pixels` (shown_condition, image, row, column, channel), which may hold more
    conditions than the attention maps do, else from `pixels` (condition, image, ...). A condition under which
    each checkpoint sees pixels of its own, as under an attack, is kept as the clean pixels, and left out.

    Args:
        examples: a comparison's.

    Returns:
        Condition -> pixels; empty where none were kept.
    """
    if examples is None:
        return {}
    name = next((name for name in ("condition_pixels", "pixels") if name in examples), None)
    if name is None:
        return {}
    kept = examples[name].transpose(..., "image", "row", "column", "channel")
    (dim,) = (str(dim) for dim in kept.dims[:1])
    found = dict(zip(names(examples, dim), kept.values, strict=True))
    clean = found.get(CLEAN)
    return {
        condition: pixels
        for condition, pixels in found.items()
        if condition == CLEAN or clean is None or not np.array_equal(pixels, clean)
    }


def measured(examples: xr.Dataset | None) -> xr.Dataset | None:
    """Where in frequency the kept conditions lie, measured on the example images.

    Args:
        examples: a comparison's.

    Returns:
        `hf_energy`, `delta_hf_db`, `rms` (condition, image), `radial_power` (condition, image, frequency) and
        `image_power` (image, frequency), that of the clean images themselves; as `vitlens.spectrum` defines
        them, frequencies in cycles per pixel. None unless clean pixels and others, in color, were kept.
    """
    kept = pictures(examples)
    clean = kept.pop(CLEAN, None)
    if examples is None or clean is None or not kept or clean.shape[-1] != 3:
        return None
    before = _pixels(clean)
    found = {condition: spectrum(before, _pixels(pixels)) for condition, pixels in kept.items()}
    own = spectrum(torch.zeros_like(before), before)
    sample = ("condition", "image")
    return xr.Dataset(
        {
            **{
                name: (sample, np.stack([getattr(each, name).numpy() for each in found.values()]))
                for name in MEASURES
            },
            "radial_power": (
                (*sample, "frequency"),
                np.stack([each.radial_power.numpy() for each in found.values()]),
            ),
            "image_power": (("image", "frequency"), own.radial_power.numpy()),
        },
        coords={
            "condition": list(found),
            "image": names(examples, "image"),
            "frequency": own.radial_frequency.numpy(),
        },
    )


def _pixels(levels: UInt8[np.ndarray, "image row column channel"]) -> torch.Tensor:
    """[image channel row column] in [0, 1]."""
    return torch.from_numpy(levels.transpose(0, 3, 1, 2).astype(np.float32)) / 255
