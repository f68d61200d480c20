"""Frost: crops of photographs of frosted glass, from a folder that the user names, laid over images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ...errors import ConditionError, DatasetError
from ...files import sha256
from ..decoding import SUFFIXES, read_rgb
from .spec import Corruption


def frost(folder: str | os.PathLike[str]) -> Corruption:
    """The frost corruption, with the photographs of a folder.

    All photographs are read now and kept, as bytes. Which one an image gets depends on how many there are
    and on the order of their names. The authors' public code comes with six and draws from five of them.

    Args:
        folder: whose image files to take, in the order of their names; hidden files and what is no image by
            its name are left out, and so are folders below it.

    Returns:
        A spec; after `register_corruption(frost(folder))`, "frost@3" is a condition like any other. Its
        `assets` is the SHA-256 over the SHA-256 of each file.

    Raises:
        DatasetError: the folder is missing or has no images, or one cannot be read.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (300, 300), "white").save(folder / "frost.png")
        >>> corruption = frost(folder)
        >>> corruption.name, corruption.is_ready
        ('frost', True)
    """
    from .catalogue import IMAGENET_C  # which imports this file, for what stands there without photographs

    paths = _image_files(Path(folder))
    photographs = [torch.from_numpy(np.array(read_rgb(path))).permute(2, 0, 1).contiguous() for path in paths]
    assets = hashlib.sha256("".join(map(sha256, paths)).encode()).hexdigest()
    unbound = next(corruption for corruption in IMAGENET_C if corruption.name == "frost")
    return replace(unbound, apply=_Frost(photographs), assets=assets)


@dataclass(frozen=True, eq=False)
class _Frost:
    """The operation with its photographs; a class, so that it can be sent to another process."""

    photographs: Sequence[UInt8[Tensor, "3 _ _"]] = field(repr=False)

    def __call__(
        self,
        pixels: Float[Tensor, "batch 3 height width"],
        generators: Sequence[torch.Generator],
        image_share: float,
        frost_share: float,
    ) -> Float[Tensor, "batch 3 height width"]:
        return frosted(pixels, generators, self.photographs, image_share, frost_share)


def needs_photographs(
    pixels: Float[Tensor, "batch 3 height width"],
    generators: Sequence[torch.Generator],
    image_share: float,
    frost_share: float,
) -> Float[Tensor, "batch 3 height width"]:
    """Refuse: vitlens ships no photographs of frost.

    Raises:
        ConditionError: always.
    """
    raise ConditionError(
        "Frost was to be applied without photographs of it.",
        expected="the corruption that vitlens.images.frost(FOLDER) returns",
        remedy="Write vitlens.register_corruption(vitlens.images.frost(FOLDER)) first.",
    )


def frosted(
    pixels: Float[Tensor, "batch 3 height width"],
    generators: Sequence[torch.Generator],
    photographs: Sequence[UInt8[Tensor, "3 _ _"]],
    image_share: float,
    frost_share: float,
) -> Float[Tensor, "batch 3 height width"]:
    """Add to each image a crop of a photograph, taken at a random place.

    Photographs are taken at their own size, as in the definition. One that is smaller than the image is
    enlarged (bicubic) by the smallest factor with which it covers it.

    Args:
        pixels: images.
        generators: one random stream for each image.
        photographs: of frost, [3 height width] with values from 0 to 255, each of its own size; every one is
            as likely as the others.
        image_share: factor of the image.
        frost_share: factor of the crop.

    Returns:
        Frosted images, not yet clipped.

    Source: Hendrycks & Dietterich (2019), the corruptions of ImageNet-C.

    Example:
        >>> white = torch.full((3, 80, 100), 255, dtype=torch.uint8)
        >>> grey = torch.full((1, 3, 64, 64), 0.5)
        >>> frosted(grey, [torch.Generator().manual_seed(0)], [white], 0.8, 0.4).unique()
        tensor([0.8000])
    """
    height, width = pixels.shape[-2:]
    crops = torch.empty(pixels.shape, dtype=torch.uint8)
    for crop, generator in zip(crops, generators, strict=True):
        photograph = _covering(photographs[_below(len(photographs), generator)], height, width)
        top = _below(photograph.shape[1] - height + 1, generator)
        left = _below(photograph.shape[2] - width + 1, generator)
        crop.copy_(photograph[:, top : top + height, left : left + width])
    return image_share * pixels + (frost_share / 255) * crops.to(pixels)


def _below(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))


def _covering(photograph: UInt8[Tensor, "3 _ _"], height: int, width: int) -> UInt8[Tensor, "3 _ _"]:
    factor = max(height / photograph.shape[1], width / photograph.shape[2])
    if factor <= 1:
        return photograph
    size = [
        max(wanted, round(factor * n))
        for wanted, n in zip((height, width), photograph.shape[1:], strict=True)
    ]
    enlarged = interpolate(photograph[None].float(), size, mode="bicubic", align_corners=False)[0]
    return enlarged.round().clamp(0, 255).byte()


def _image_files(folder: Path) -> list[Path]:
    entries = folder.iterdir() if folder.is_dir() else ()
    paths = sorted(
        entry for entry in entries if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
    )
    if paths:
        return paths
    raise DatasetError(
        f"The folder {folder} {'has no images in it' if folder.is_dir() else 'does not exist'}.",
        expected=f"a folder with photographs of frost, files that end with {', '.join(sorted(SUFFIXES))}",
        remedy="Check the path; the photographs lie in the folder itself, not in folders below it.",
    )
