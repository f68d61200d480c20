"""What a made image is drawn of: silhouettes, textures of one period, and colors without a luma."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from .pixels import LUMA

Plane: TypeAlias = Float[ndarray, "row column"]
"""A value for each pixel."""

_LOCAL_SIGMA_PIXELS = 2.0
"""Width of the gaussian over which a texture's local mean is taken."""

_LOCAL_ROUNDS = 4
"""How often the local mean is taken off: near the outline a round leaves some of it."""

_ZIGZAG_PERIODS = 2.5
"""Length of one zig and one zag, in periods of the stripes that they bend."""


def _disc(x: Plane, y: Plane) -> Plane:
    distance: Plane = np.hypot(x, y) - 1 / math.sqrt(math.pi)
    return distance


def _bar(x: Plane, y: Plane) -> Plane:
    distance: Plane = np.maximum(np.abs(x) - math.sqrt(1 / 2), np.abs(y) - math.sqrt(1 / 8))
    return distance


def _triangle(x: Plane, y: Plane) -> Plane:
    distance: Plane = np.maximum(np.abs(x) * math.sqrt(3 / 4) - y / 2, y) - 27**-0.25
    return distance


def _cross(x: Plane, y: Plane) -> Plane:
    half_arm = 1 / math.sqrt(20)
    near, far = np.minimum(np.abs(x), np.abs(y)), np.maximum(np.abs(x), np.abs(y))
    distance: Plane = np.maximum(near - half_arm, far - 3 * half_arm)
    return distance


SHAPES: Mapping[str, Callable[[Plane, Plane], Plane]] = MappingProxyType(
    {"disc": _disc, "bar": _bar, "triangle": _triangle, "cross": _cross}
)
"""Distance from the outline of a shape of area 1 about (0, 0), below 0 inside; x to the right, y down.

Exact beside the sides, short of the distance beyond the corners.
"""


def _stripes(x: Plane, y: Plane, phase: float, _: float) -> Plane:
    wave: Plane = np.cos(x + phase)
    return wave


def _checks(x: Plane, y: Plane, phase: float, phase_along: float) -> Plane:
    wave: Plane = np.cos(x + phase) + np.cos(y + phase_along)
    return wave


def _rings(x: Plane, y: Plane, phase: float, _: float) -> Plane:
    wave: Plane = np.cos(np.hypot(x, y) + phase)
    return wave


def _zigzag(x: Plane, y: Plane, phase: float, phase_along: float) -> Plane:
    length = 2 * math.pi * _ZIGZAG_PERIODS
    turn = y / length + phase_along / (2 * math.pi)
    bend = np.abs(turn - np.floor(turn) - 0.5) * length
    wave: Plane = np.cos((x + bend) / math.sqrt(2) + phase)
    return wave


TEXTURES: Mapping[str, Callable[[Plane, Plane, float, float], Plane]] = MappingProxyType(
    {"stripes": _stripes, "checks": _checks, "rings": _rings, "zigzag": _zigzag}
)
"""Waves on the plane by (x, y, phase, phase_along), all in radians: x runs across the stripes.

Up to where a zigzag turns, every wave has a period of 2π. Rings have no orientation.
"""


def silhouette(
    shape: str,
    columns: Plane,
    rows: Plane,
    size_pixels: float,
    rotation_degrees: float,
) -> Plane:
    """How much of each pixel a shape covers.

    Args:
        shape: its name in `SHAPES`.
        columns: distance of each pixel's center from the shape's to the right, in pixels.
        rows: the same downward.
        size_pixels: square root of the shape's area.
        rotation_degrees: clockwise, as seen.

    Returns:
        Values in [0, 1], 0.5 on the outline, whose sum is the area to within about a pixel.

    Raises:
        KeyError: there is no such shape.

    Example:
        >>> rows, columns = np.mgrid[-7.5:8, -7.5:8]
        >>> f"{silhouette('bar', columns, rows, 10.0, 30.0).sum():.0f}"
        '101'
    """
    x, y = _turned(columns, rows, rotation_degrees)
    coverage: Plane = np.clip(0.5 - SHAPES[shape](x / size_pixels, y / size_pixels) * size_pixels, 0, 1)
    return coverage


def texture(
    name: str,
    coverage: Plane,
    columns: Plane,
    rows: Plane,
    period_pixels: float,
    orientation_degrees: float,
    phases_degrees: tuple[float, float],
    rms: float,
) -> Plane:
    """A wave cut out by a silhouette, with no mean and next to no local mean.

    A wave that is cut off at an outline has low frequencies of its own there. Its local mean, over those
    pixels that are covered, is therefore taken off.

    Args:
        name: its name in `TEXTURES`.
        coverage: the silhouette, in [0, 1].
        columns: distance of each pixel's center from the shape's to the right, in pixels.
        rows: the same downward.
        period_pixels: of the wave.
        orientation_degrees: the direction across the stripes, clockwise from the right.
        phases_degrees: of the wave, and along its stripes where they vary.
        rms: root mean square over what is covered.

    Returns:
        Values to be added to an image; 0 where nothing is covered.

    Raises:
        KeyError: there is no such texture.

    Example:
        >>> rows, columns = np.mgrid[-7.5:8, -7.5:8]
        >>> disc = silhouette("disc", columns, rows, 10.0, 0.0)
        >>> stripes = texture("stripes", disc, columns, rows, 3.5, 30.0, (0.0, 0.0), 0.1)
        >>> f"{abs(stripes.sum()):.2f}, {np.sqrt(np.square(stripes).sum() / disc.sum()):.2f}"
        '0.00, 0.10'
    """
    x, y = _turned(columns, rows, orientation_degrees)
    wave_number = 2 * math.pi / period_pixels
    phase, phase_along = (math.radians(degrees) for degrees in phases_degrees)
    waves: Plane = coverage * TEXTURES[name](wave_number * x, wave_number * y, phase, phase_along)
    down, across = (_gaussian(n) for n in coverage.shape)
    # Far from the shape both the sum and the weight are 0; there is nothing to take off there.
    weight = np.maximum(down @ coverage @ across, np.finfo(np.float64).tiny)
    for _ in range(_LOCAL_ROUNDS):
        waves -= coverage * (down @ waves @ across) / weight
    area = coverage.sum()
    waves -= coverage * (waves.sum() / area)
    waves *= rms / math.sqrt(np.square(waves).sum() / area)
    return waves


def chroma(hue_degrees: float, strength: float) -> Float[ndarray, " 3"]:
    """What a hue adds to red, green and blue without a change of luma (Rec. 601).

    Args:
        hue_degrees: 0 adds to red, 90 to blue, 180 and 270 take from them.
        strength: the most that is added to red and to blue over all hues.

    Returns:
        Differences of red, green and blue from luma.

    Example:
        >>> chroma(0.0, 0.1).round(3)
        array([ 0.1  , -0.051,  0.   ])
    """
    hue = math.radians(hue_degrees)
    red, blue = strength * math.cos(hue), strength * math.sin(hue)
    share_red, share_green, share_blue = LUMA
    return np.array([red, -(share_red * red + share_blue * blue) / share_green, blue])


def _turned(columns: Plane, rows: Plane, degrees: float) -> tuple[Plane, Plane]:
    """Coordinates along axes that are turned clockwise."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cosine * columns + sine * rows, cosine * rows - sine * columns


def _gaussian(n: int) -> Float[ndarray, "n n"]:
    distance = np.arange(n)[:, None] - np.arange(n)
    weights: Float[ndarray, "n n"] = np.exp(-np.square(distance) / (2 * _LOCAL_SIGMA_PIXELS**2))
    return weights
