"""A made world with known answers: class = shape (low frequency) × texture (high frequency)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch.utils.data import Dataset

from ..errors import DatasetError
from .drawing import SHAPES, TEXTURES, chroma, silhouette, texture
from .items import Item

IMAGE_SIZE = 32
"""Height and width in pixels."""

RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "center_row_pixels": (13.5, 17.5),
        "center_column_pixels": (13.5, 17.5),
        "size_pixels": (12.0, 15.0),
        "rotation_degrees": (-15.0, 15.0),
        "texture_period_pixels": (3.0, 4.0),
        "texture_orientation_degrees": (-10.0, 10.0),
        "texture_phase_degrees": (0.0, 360.0),
        "texture_phase_along_degrees": (0.0, 360.0),
        "texture_rms": (0.11, 0.125),
        "contrast": (0.18, 0.24),
        "hue_degrees": (0.0, 360.0),
        "ground_hue_degrees": (0.0, 360.0),
        "ground_luma": (0.25, 0.35),
        "shading": (0.03, 0.1),
        "shading_degrees": (0.0, 360.0),
    }
)
"""What each factor besides the class is drawn from: uniformly, independent of every other."""

CHROMA = 0.06
"""The most by which red and blue differ from luma, of the ground as of the shape."""

MEAN = (0.338, 0.338, 0.338)
"""Mean of red, green and blue, for a model's normalization."""

STD = (0.107, 0.102, 0.107)
"""Their standard deviation; over a larger one, such as ImageNet's, a small model finds the textures late."""

_LABELS = ("class", "shape", "texture")
_SIDE = len(SHAPES)
_DRAW_BYTES = 4


class TexturedItem(Item):
    """An item, with what its image was drawn from.

    Attributes:
        factors: each factor by its name, as in the columns of `TexturedShapes.factors`, and `mask`, a boolean
            tensor [32 32] that is True where the shape covers a pixel's center.
    """

    factors: dict[str, Any]


class TexturedShapes(Dataset[TexturedItem]):
    """Images of one textured shape each, drawn when asked for.

    Attributes:
        labels: the class, the shape or the texture of each image, whichever was asked for.
        image_ids: "textured_shapes/0/test/00042" is number 42 of the test part of seed 0.
        class_names: what each label means.
        classes: name of a class -> index.
    """

    def __init__(self, split: str, n: int, seed: int, label: str) -> None:
        draws = _draws(split, n, seed)
        shape, texture = _pairs(draws[:, :2])
        shape_names, texture_names = list(SHAPES), list(TEXTURES)
        self._columns: dict[str, list[Any]] = {
            "shape": [shape_names[index] for index in shape[:n]],
            "texture": [texture_names[index] for index in texture[:n]],
            "shape_index": shape[:n].tolist(),
            "texture_index": texture[:n].tolist(),
        }
        for place, (name, (low, high)) in enumerate(RANGES.items(), start=2):
            self._columns[name] = (low + (high - low) * draws[:n, place]).tolist()
        if label == "class":
            self.labels: list[int] = (_SIDE * shape + texture)[:n].tolist()
            self.class_names = [f"{shape}/{texture}" for shape in SHAPES for texture in TEXTURES]
        else:
            self.labels = list(self._columns[f"{label}_index"])
            self.class_names = {"shape": shape_names, "texture": texture_names}[label]
        self.classes = {name: index for index, name in enumerate(self.class_names)}
        self.image_ids = [f"textured_shapes/{seed}/{split}/{index:05d}" for index in range(n)]

    @cached_property
    def factors(self) -> pd.DataFrame:
        """Every factor of every image but its mask, by `image_id`; nothing is drawn for it."""
        return pd.DataFrame(self._columns, index=pd.Index(self.image_ids, name="image_id"))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> TexturedItem:
        factors = {name: column[index] for name, column in self._columns.items()}
        pixels, coverage = _drawn(factors)
        return TexturedItem(
            pixels=torch.from_numpy(pixels.astype(np.float32)),
            label=self.labels[index],
            image_id=self.image_ids[index],
            factors={**factors, "mask": torch.from_numpy(coverage >= 0.5)},
        )


def textured_shapes(split: str, n: int = 2_000, seed: int = 0, label: str = "class") -> TexturedShapes:
    """Made images of 32 × 32 pixels of which every factor is known: a textured shape on shaded ground.

    A shape is a low frequency: it has the same area whatever it is, and a luma above the ground's by
    `contrast`. A texture is a high one: a wave of 3 to 4 pixels, without color, and without a mean, over the
    whole shape and (nearly) around each of its pixels. A blur by a gaussian of 3 pixels, `gaussian_blur@3`,
    leaves the shape, and of the texture at most half a level of 255 in the mean over images, two in any. What
    tells shapes apart therefore sees low frequencies, and what tells textures apart high ones.

    All 16 pairs of a shape (disc, bar, triangle, cross) and a texture (stripes, checks, rings, zigzag) are
    equally frequent, to within one image, and so are shapes and textures by themselves; all other factors are
    independent of them and of each other. Lengths and places are in pixels (the upper left pixel's center is
    at 0, 0), angles in degrees, clockwise as seen. Luma is Rec. 601's.

    | factor | meaning |
    | --- | --- |
    | `shape`, `texture`, `shape_index`, `texture_index` | names, and their places in `class_names` |
    | `center_row_pixels`, `center_column_pixels` | place of the shape's center of mass |
    | `size_pixels` | square root of the shape's area |
    | `rotation_degrees` | of the shape; at 0 a bar lies and a triangle points up |
    | `texture_period_pixels` | period of the wave, across its stripes |
    | `texture_orientation_degrees` | direction across the stripes, from the right; without effect on rings |
    | `texture_phase_degrees` | of the wave at the shape's center |
    | `texture_phase_along_degrees` | the same along the stripes; without effect on stripes and rings |
    | `texture_rms` | root mean square of the wave over the shape, in luma |
    | `contrast` | luma of the shape above the ground |
    | `hue_degrees`, `ground_hue_degrees` | hues; 0 adds red, 90 blue |
    | `ground_luma` | luma of the ground in the image's middle |
    | `shading` | by how much luma rises across the image, ground and shape alike |
    | `shading_degrees` | direction in which it rises, from the right |
    | `mask` | boolean [32 32]: pixels whose center the shape covers; in items alone |

    Image number i depends on the seed, the split and i alone, whatever `n` and the library's random
    generators. No value is clipped: all stay inside [0, 1] by themselves.

    Args:
        split: "train" or "test"; the two share no image.
        n: number of images; with more, the first stay what they were.
        seed: of a world of its own.
        label: what an item's label says: "class" (16), "shape" (4) or "texture" (4). The images and their ids
            are the same.

    Returns:
        A torch data set of items with `factors`, and with `labels`, `image_ids`, `class_names`, `classes`
        and the table `factors`.

    Raises:
        DatasetError: a part, a number of images or a label that there is not.

    Example:
        >>> world = textured_shapes("test", n=32)
        >>> item = world[3]
        >>> item["pixels"].shape, item["image_id"], world.class_names[item["label"]]
        (torch.Size([3, 32, 32]), 'textured_shapes/0/test/00003', 'bar/rings')
        >>> round(item["factors"]["size_pixels"] ** 2), int(item["factors"]["mask"].sum())
        (158, 158)
        >>> world.factors["shape"].value_counts().tolist()
        [8, 8, 8, 8]
    """
    if split not in ("train", "test"):
        raise DatasetError(
            f"The split is {split!r}.",
            expected="'train' or 'test'",
            remedy="Where a third part is needed, take another seed.",
        )
    if n < 1:
        raise DatasetError(
            f"n is {n}.",
            expected="1 or more",
            remedy="Give the number of images, a multiple of 16 for classes of one size.",
        )
    if label not in _LABELS:
        raise DatasetError(
            f"The label is {label!r}.",
            expected="'class', 'shape' or 'texture'",
            remedy="Other factors stand in the data set's table `factors`.",
        )
    return TexturedShapes(split, n, seed, label)


def _draws(split: str, n: int, seed: int) -> Float[ndarray, "image draw"]:
    """Numbers in [0, 1) for at least n images, up to a whole number of rounds through the classes."""
    # The key is a format: another one would make another world.
    n_draws = 2 + len(RANGES)
    n_whole = math.ceil(n / _SIDE**2) * _SIDE**2
    keys = (json.dumps(["vitlens.textured_shapes.1", seed, split, index]) for index in range(n_whole))
    bits = b"".join(hashlib.shake_128(key.encode()).digest(_DRAW_BYTES * n_draws) for key in keys)
    return np.frombuffer(bits, dtype="<u4").reshape(n_whole, n_draws) / 2.0 ** (8 * _DRAW_BYTES)


def _pairs(draws: Float[ndarray, "image 2"]) -> tuple[Int[ndarray, " image"], Int[ndarray, " image"]]:
    """Shape and texture of each image, in an order that is drawn.

    Four images have each shape and each texture once, and four such fours each pair once: wherever the images
    end, all are as frequent as the others to within one.
    """
    rounds = draws.reshape(-1, _SIDE, _SIDE, 2)
    shape = rounds[..., 0].argsort(-1)
    turn = rounds[:, :, :1, 1].argsort(1)
    return shape.reshape(-1), ((shape + turn) % _SIDE).reshape(-1)


def _drawn(
    factors: Mapping[str, Any],
) -> tuple[Float[ndarray, "3 row column"], Float[ndarray, "row column"]]:
    """The image, and how much of each pixel its shape covers."""
    place = np.arange(IMAGE_SIZE, dtype=np.float64)
    rows, columns = np.meshgrid(
        place - factors["center_row_pixels"], place - factors["center_column_pixels"], indexing="ij"
    )
    coverage = silhouette(
        factors["shape"], columns, rows, factors["size_pixels"], factors["rotation_degrees"]
    )
    wave = texture(
        factors["texture"],
        coverage,
        columns,
        rows,
        factors["texture_period_pixels"],
        factors["texture_orientation_degrees"],
        (factors["texture_phase_degrees"], factors["texture_phase_along_degrees"]),
        factors["texture_rms"],
    )
    toward = math.radians(factors["shading_degrees"])
    across = factors["shading"] * (place / (IMAGE_SIZE - 1) - 0.5)
    ground = factors["ground_luma"] + math.sin(toward) * across[:, None] + math.cos(toward) * across
    luma = ground + factors["contrast"] * coverage + wave
    ground_color = chroma(factors["ground_hue_degrees"], CHROMA)
    shape_color = chroma(factors["hue_degrees"], CHROMA)
    color = ground_color[:, None, None] * (1 - coverage) + shape_color[:, None, None] * coverage
    return luma + color, coverage
