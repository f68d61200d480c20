"""Galleries as values that a kept comparison can hold, and back; each picture is held once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..errors import ComparisonError


def plain(galleries: Mapping[str, Any]) -> dict[str, Any]:
    """Galleries as mappings, lists, arrays and tables.

    Args:
        galleries: heading -> `vitlens.saes.Gallery`.

    Returns:
        `pictures`, each once, and `galleries`, whose images say the number of theirs.

    Raises:
        ComparisonError: there is anything else among them.
    """
    from ..saes.gallery_data import Gallery  # who has a gallery has imported sae-lens already

    if not isinstance(galleries, Mapping):
        raise _no_gallery("galleries", galleries)
    for heading, gallery in galleries.items():
        if not isinstance(gallery, Gallery):
            raise _no_gallery(f"galleries[{heading!r}]", gallery)
    pictures: dict[tuple[Any, ...], tuple[int, Any]] = {}

    def number(pixels: Any) -> int:
        key = (pixels.dtype.str, pixels.shape, hashlib.sha256(pixels.tobytes()).digest())
        return pictures.setdefault(key, (len(pictures), pixels))[0]

    kept = {
        heading: {
            **_fields(gallery),
            "exhibits": [
                {
                    **_fields(exhibit),
                    "features": [_fields(profile) for profile in exhibit.features],
                    "images": [
                        {**_fields(image), "pixels": number(image.pixels)} for image in exhibit.images
                    ],
                }
                for exhibit in gallery.exhibits
            ],
        }
        for heading, gallery in galleries.items()
    }
    return {"pictures": [pixels for _, pixels in pictures.values()], "galleries": kept}


def made(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The galleries of which `plain` made `kept`; raises whatever another content leads to.

    Args:
        kept: from `plain`.
    """
    from ..saes.gallery_data import Exhibit, FeatureProfile, Gallery, ShownImage  # with sae-lens, only here

    pictures = kept["pictures"]
    return {
        heading: Gallery(
            **{
                **gallery,
                "exhibits": tuple(
                    Exhibit(
                        features=tuple(FeatureProfile(**profile) for profile in exhibit["features"]),
                        images=tuple(
                            ShownImage(**{**image, "pixels": pictures[image["pixels"]]})
                            for image in exhibit["images"]
                        ),
                        similarity=exhibit["similarity"],
                    )
                    for exhibit in gallery["exhibits"]
                ),
            }
        )
        for heading, gallery in kept["galleries"].items()
    }


def _no_gallery(where: str, value: Any) -> ComparisonError:
    return ComparisonError(
        f"The comparison cannot be kept: {where} is {type(value).__name__}.",
        expected="heading -> what vitlens.saes.gallery or pair_gallery gave",
        remedy="Take it out.",
    )


def _fields(of: Any) -> dict[str, Any]:
    return {each.name: getattr(of, each.name) for each in fields(of)}
