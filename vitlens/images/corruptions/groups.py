"""Groups of corruptions: by where they come from, and by what they do to an image's frequencies."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

from .catalogue import IMAGENET_C, IMAGENET_C_EXTRA, OWN

FREQUENCY_GROUPS = ("low_frequency", "removes_high_frequency", "adds_high_frequency", "geometric")
"""The names of the groups that `frequency_group` sorts into."""

_GEOMETRIC_FAMILY = "geometry"
_MOSTLY_LOW = 0.15
_MOSTLY_HIGH = 0.5
_LOSS_DB = -3.0


def frequency_group(family: str, hf_energy: float, delta_hf_db: float) -> str | None:
    """Which group a corruption belongs to by its measured frequencies at severity 3.

    - `geometric`: it moves what the image shows, and the spectrum of a difference says little about that;
      told by its family.
    - `low_frequency`: at most 15 % of the change's energy lies above 1/8 cycle per pixel.
    - `removes_high_frequency`: the image's own share of high frequency falls by 3 dB or more.
    - `adds_high_frequency`: at least half of the change's energy lies above 1/8 cycle per pixel.

    Args:
        family: the corruption's.
        hf_energy: share of the change's energy above 1/8 cycle per pixel.
        delta_hf_db: change of the image's own share of such energy, in decibels.

    Returns:
        The group; None for what is none of these.

    Example:
        >>> frequency_group("blur", 0.55, -28.6), frequency_group("noise", 0.90, 7.7)
        ('removes_high_frequency', 'adds_high_frequency')
    """
    if family == _GEOMETRIC_FAMILY:
        return "geometric"
    if hf_energy <= _MOSTLY_LOW:
        return "low_frequency"
    if delta_hf_db <= _LOSS_DB:
        return "removes_high_frequency"
    return "adds_high_frequency" if hf_energy >= _MOSTLY_HIGH else None


@cache
def measured_frequency() -> Mapping[tuple[str, int], Mapping[str, float]]:
    """The frequencies of each corruption at each severity, as measured on photographs.

    Returns:
        (corruption, severity) -> the means of `hf_energy`, `delta_hf_db` and `rms` (see `Spectrum`).

    Example:
        >>> round(measured_frequency()["gaussian_blur", 3]["delta_hf_db"])
        -29
    """
    text = resources.files(__package__).joinpath("frequency.csv").read_text(encoding="utf-8")
    return MappingProxyType(
        {
            (row["corruption"], int(row["severity"])): {
                name: float(value) for name, value in row.items() if name not in ("corruption", "severity")
            }
            for row in csv.DictReader(text.splitlines())
        }
    )


@cache
def frequency_groups() -> Mapping[str, tuple[str, ...]]:
    """The corruptions of each group by their measured frequencies at severity 3.

    Frost is in none: it depends on the photographs that it is given.

    Returns:
        Group -> names.

    Example:
        >>> "gaussian_noise" in frequency_groups()["adds_high_frequency"]
        True
    """
    groups: dict[str, list[str]] = {group: [] for group in FREQUENCY_GROUPS}
    for spec in (*IMAGENET_C, *IMAGENET_C_EXTRA, *OWN):
        measured = measured_frequency().get((spec.name, 3))
        if measured is not None:
            group = frequency_group(spec.family, measured["hf_energy"], measured["delta_hf_db"])
            if group is not None:
                groups[group].append(spec.name)
    return MappingProxyType({group: tuple(names) for group, names in groups.items()})


SETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "imagenet_c": tuple(spec.name for spec in IMAGENET_C),
        "imagenet_c_extra": tuple(spec.name for spec in IMAGENET_C_EXTRA),
    }
)
"""The corruptions of each published set."""

GROUP_NAMES = frozenset({*SETS, *FREQUENCY_GROUPS})
"""Every name of a group."""


def group(name: str) -> tuple[str, ...]:
    """The corruptions that a group's name stands for; none for another name.

    Example:
        >>> group("imagenet_c_extra")
        ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate')
    """
    return SETS[name] if name in SETS else frequency_groups().get(name, ())
