"""JPEG: what storing an image with loss does to it."""

from __future__ import annotations

import io
import operator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from ...errors import ConditionError
from ..values import is_whole
from .digital import without_slope
from .draws import in_threads

_QUALITIES = range(1, 96)


def jpeg(
    pixels: Float[Tensor, "batch 3 height width"], quality: int
) -> Float[Tensor, "batch 3 height width"]:
    """Store as JPEG and read again.

    Values are rounded to 256 levels and stored with the quantization tables of that quality, color at half
    the resolution (4:2:0), by Pillow and so on the CPU.

    Args:
        pixels: images.
        quality: 1 (worst) to 95.

    Returns:
        The images as they are read, on 256 levels.

    Raises:
        ConditionError: `quality` is none.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> grey = torch.full((1, 3, 16, 16), 0.5)
        >>> (jpeg(grey, quality=25) * 255).unique()
        tensor([128.])
    """
    quality = check_quality(quality)

    result = torch.empty(pixels.shape, dtype=pixels.dtype)

    def store(place: int) -> None:
        # One image from end to end, which stays in the processor's cache.
        levels, content = _levels(before[place]), io.BytesIO()
        size = levels.shape[1], levels.shape[0]
        image = Image.frombuffer("RGB", size, levels.numpy(), "raw", "RGB", 0, 1)
        image.save(content, "JPEG", quality=quality)
        with Image.open(content, formats=["JPEG"]) as stored:
            read = torch.from_numpy(np.array(stored))
        # Plane by plane: several times faster than one copy out of interleaved channels.
        torch.div(torch.stack(read.unbind(-1)), 255, out=result[place])

    before = pixels.detach().cpu()
    in_threads(store, range(len(before)))
    return without_slope(result.to(pixels.device), pixels)


def check_quality(quality: Any) -> int:
    """The quality of JPEG, if it is one.

    Raises:
        ConditionError: it is no whole number from 1 to 95.

    Example:
        >>> check_quality(85)
        85
    """
    if is_whole(quality) and quality in _QUALITIES:
        return operator.index(quality)
    raise ConditionError(
        f"The quality of JPEG is {quality!r}.",
        expected="a whole number from 1 (worst) to 95",
        remedy="Give 85 for what the files of ImageNet-C are stored with.",
    )


def _levels(image: Float[Tensor, "3 height width"]) -> UInt8[Tensor, "height width 3"]:
    """The image in bytes, its channels side by side in memory."""
    # By way of int32, and stacked: each is several times faster than the direct way.
    levels = (image * 255).round_().int().byte()
    return torch.stack(levels.unbind(), -1)
