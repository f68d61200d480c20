"""`vitlens corrupt`: a photograph under every corruption, as an HTML sheet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from ..errors import PixelError
from ..images import frost, register_corruption
from ..images.decoding import read_rgb
from .options import Several, number
from .places import check_page

_SIZE_HELP = "side of the square shown (default 224); 0 keeps the photograph's own size"
_RESIZED = 256 / 224
"""The shorter side before the crop, over the crop's side, as ImageNet-C's images were made."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    add = parser.add_argument
    add("photo", type=Path, help="an image file")
    add("--output", type=Path, required=True, metavar="FILE", help="the page, such as sheet.html")
    add("--only", action=Several, metavar="NAME", help="some corruptions instead of all")
    add("--frost", type=Path, metavar="DIR", help="a folder of photographs of frost")
    add("--size", type=int, default=224, metavar="PIXELS", help=_SIZE_HELP)
    add("--seed", type=number, default=0, help="of the random draws (default 0)")
    add("--jpeg-quality", type=int, metavar="Q", help="store each picture as JPEG; ImageNet-C has 85")


def run(chosen: argparse.Namespace) -> None:
    """Write the sheet."""
    from ..report import corruption_sheet  # with plotly, which takes long to import

    if chosen.size and chosen.size < 8:
        raise PixelError(
            f"--size is {chosen.size}.", expected="8 pixels or more, or 0", remedy="Leave it out for 224."
        )
    check_page(chosen.output, "sheet.html")
    image = read_rgb(chosen.photo)
    if chosen.frost is not None:
        register_corruption(frost(chosen.frost))
    path = corruption_sheet.write(
        pil_to_tensor(_cropped(image, chosen.size)) / 255,
        chosen.output,
        names=chosen.only,
        image_id=chosen.photo.name,
        seed=chosen.seed,
        jpeg_quality=chosen.jpeg_quality,
        title=f"{chosen.photo.name} under every corruption" if not chosen.only else None,
    )
    sys.stdout.write(f"{path}\n")


def _cropped(image: Image.Image, size: int) -> Image.Image:
    """The middle of the photograph, as a square; 0 keeps it whole."""
    if size == 0:
        return image
    scaled: Image.Image = resize(image, [round(size * _RESIZED)], Image.Resampling.BILINEAR)
    cropped: Image.Image = center_crop(scaled, [size, size])
    return cropped
