"""Image files of every kind, read as 8-bit RGB."""

from __future__ import annotations

import os
import warnings

import numpy as np
from PIL import Image, ImageOps

from ..errors import DatasetError

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
"""What a file's name must end with, in lower or upper case, to be taken for an image."""

_MAX_16_BIT = 65535


def read_rgb(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image file, upright, as 8-bit RGB.

    The camera's orientation (EXIF) is applied; 16 bits are scaled to 8; palettes, grey, CMYK and bilevel
    are converted; transparency is dropped, showing the colors beneath it, as timm does; of an animation the
    first frame is taken. Pillow warns of more than `PIL.Image.MAX_IMAGE_PIXELS` pixels (89 million), which
    are read, and refuses twice as many.

    Args:
        path: the file.

    Returns:
        A Pillow image of mode RGB.

    Raises:
        DatasetError: the file cannot be read as an image, is cut short, has more pixels than Pillow opens, or
            holds 32-bit values, which have no agreed range.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.new("I;16", (2, 1), 65535 // 2).save(path)
        >>> read_rgb(path).getpixel((0, 0))
        (127, 127, 127)
    """
    try:
        try:
            return _opened(path)
        except Image.DecompressionBombWarning:
            # Where warnings are errors, a large image is still no broken one.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return _opened(path)
    except Image.DecompressionBombError as error:
        raise DatasetError(
            f"{os.fspath(path)} has more pixels than Pillow opens ({error}).",
            expected=f"at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: more may be an attack on memory",
            remedy="Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS for files that you trust.",
        ) from error
    # Pillow raises whatever its many decoders raise: OSError, SyntaxError, struct.error, ...
    except Exception as error:
        raise DatasetError(
            f"{os.fspath(path)} cannot be read as an image ({type(error).__name__}: {error}).",
            expected="an image file that is whole, of 8 or 16 bits a channel",
            remedy="Repair, convert or remove the file.",
        ) from error


def _opened(path: str | os.PathLike[str]) -> Image.Image:
    with Image.open(path) as image:
        return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return _from_levels(np.asarray(image)).convert("RGB")
    if image.mode in ("P", "PA"):
        # By way of RGBA: straight to RGB, Pillow warns of a palette with transparency.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _from_levels(levels: np.ndarray) -> Image.Image:
    if levels.dtype.kind == "f" or levels.min() < 0 or levels.max() > _MAX_16_BIT:
        raise ValueError(f"grey levels are {levels.dtype} from {levels.min()} to {levels.max()}")
    # Pillow would clip at 255, which makes almost every such image white.
    return Image.fromarray(np.rint(levels / (_MAX_16_BIT / 255)).astype(np.uint8))
