"""Photographs and heat as data: URIs, the heat translucent, to be laid over the photograph."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

LONGEST_PX = 320
"""Longest side of a picture: 160 CSS pixels on a screen of two to one."""

SMALL_PX = 64
"""Up to this size a picture is kept without loss: it is enlarged, and every pixel seen."""

HEAT_PX = 160
"""Longest side of heat, about: the CSS pixels that it has on a screen. Its squares are few and plain."""

HEAT_RGB = (235, 0, 170)
"""Magenta, which photographs of things and animals seldom have."""

MOST_OPAQUE = 0.8
N_STEPS = 32


def picture_uri(
    pixels: UInt8[np.ndarray, "row column 3"], quality: int = 78, *, longest_px: int = LONGEST_PX
) -> str:
    """A photograph as a WebP in a data: URI.

    Args:
        pixels: the photograph.
        quality: of the WebP, 0 to 100; small pictures are kept without loss.
        longest_px: of either side of what is kept.

    Example:
        >>> picture_uri(np.zeros((8, 8, 3), dtype=np.uint8))[:23]
        'data:image/webp;base64,'
    """
    picture = Image.fromarray(pixels)
    is_small = max(picture.size) <= SMALL_PX
    picture.thumbnail((longest_px, longest_px))
    return _uri(picture, "WEBP", lossless=is_small, quality=quality, method=4)


def heat_uri(heat: Float[np.ndarray, "patch_row patch_column"], largest: float) -> str:
    """Heat as a PNG in a data: URI, one color whose opacity grows evenly with the value.

    Args:
        heat: values; 0 and below are transparent.
        largest: the value that is most opaque.

    Returns:
        The URI, of a picture of whole squares about `HEAT_PX` long, so that a browser hardly blurs them.

    Example:
        >>> heat_uri(np.eye(2), 1.0)[:22]
        'data:image/png;base64,'
    """
    share = np.clip(heat / largest, 0, 1) if largest > 0 else np.zeros(heat.shape)
    steps = np.ceil(share * N_STEPS).astype(np.uint8)  # upward: what is above 0 is seen
    side = -(-HEAT_PX // max(heat.shape))
    picture = Image.fromarray(steps.repeat(side, axis=0).repeat(side, axis=1))
    picture = picture.convert("P")
    picture.putpalette(HEAT_RGB * (N_STEPS + 1))
    return _uri(picture, "PNG", optimize=True, transparency=opacities())


def opacities() -> bytes:
    """The opacity of each step, 0 to 255."""
    return bytes(round(255 * MOST_OPAQUE * step / N_STEPS) for step in range(N_STEPS + 1))


def _uri(picture: Image.Image, kind: str, **settings: object) -> str:
    content = io.BytesIO()
    picture.save(content, format=kind, **settings)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(content.getvalue()).decode("ascii")
