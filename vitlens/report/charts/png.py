"""Small pictures as data: URIs, so that a figure holds its images itself."""

from __future__ import annotations

import base64
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

LONGEST_PX = 256
"""Longest side of a picture; what is larger is averaged down."""


def data_uri(pixels: UInt8[np.ndarray, "row column channel"]) -> str:
    """A picture as a PNG in a data: URI.

    Args:
        pixels: one channel (gray) or three (red, green, blue).

    Returns:
        The URI, of a picture no longer than `LONGEST_PX` on either side.

    Example:
        >>> data_uri(np.zeros((2, 2, 3), dtype=np.uint8))[:30]
        'data:image/png;base64,iVBORw0K'
    """
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture = picture.reduce(-(-max(picture.size) // LONGEST_PX))
    content = io.BytesIO()
    picture.save(content, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
