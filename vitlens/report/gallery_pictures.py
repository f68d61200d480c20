"""The photographs of galleries on one page: each held once, by a rule of the style sheet."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..saes.gallery_data import Gallery, ShownImage
from .charts.pictures import LONGEST_PX, picture_uri

LEAST_PX = 80
"""Longest side of a picture that can still be made out."""


class Pictures:
    """Every photograph that some galleries show, under a class name that an `<img>` can have.

    Args:
        galleries: what is shown; one photograph in several is held once.
        most_px: pixels of all of them together. The more there are, the smaller they become, down to a
            longest side of `LEAST_PX`; None for as large as they are seen.
    """

    def __init__(self, galleries: Iterable[Gallery], most_px: float | None = None) -> None:
        self._pixels: dict[Any, np.ndarray] = {}
        for gallery in galleries:
            for exhibit in gallery.exhibits:
                for image in exhibit.images:
                    self._pixels.setdefault(_key(image), image.pixels)
        self._names = {key: f"p{place}" for place, key in enumerate(self._pixels)}
        side = LONGEST_PX if most_px is None else math.isqrt(int(most_px / max(1, len(self._pixels))))
        self._longest_px = min(LONGEST_PX, max(LEAST_PX, side))

    def name(self, image: ShownImage) -> str:
        """The class name of an image's photograph."""
        return self._names[_key(image)]

    def rules(self) -> str:
        """The photographs as rules of the style sheet."""
        uris = {
            self._names[key]: picture_uri(pixels, longest_px=self._longest_px)
            for key, pixels in self._pixels.items()
        }
        return "".join(f".{name}{{background-image:url({uri})}}\n" for name, uri in uris.items())


def _key(image: ShownImage) -> tuple[Any, ...]:
    return image.pixels.shape, hashlib.blake2b(image.pixels.tobytes()).digest()
