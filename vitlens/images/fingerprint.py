"""What tells two data sets apart without reading all of them: ids, labels, and a few images' pixels."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from .items import known, n_images

_N_LOOKED_AT = 8


def fingerprint(dataset: Any, *, pixels: bool = True) -> dict[str, Any]:
    """By what a data set is known again.

    Ids and labels are what the data set says beforehand. Of one that can be read anywhere eight images,
    spread evenly, are read besides: other pixels under the same ids are other images. Of one that can only
    be read through, nothing is known but what it says of itself.

    Args:
        dataset: as for `batches`.
        pixels: look at images, too. Not where each reading gives others, as random crops do.

    Returns:
        `n_images`, `image_ids_sha256` and `labels_sha256`, None where not known; `pixels_sha256`, a hash by
        position of the images that could be read. JSON can hold it; `as_far_as_known` compares two.

    Example:
        >>> item = {"pixels": torch.zeros(3, 8, 8), "label": 1, "image_id": "a"}
        >>> one, other = fingerprint([item]), fingerprint([item | {"label": 2}])
        >>> [name for name in one if one[name] != other[name]]
        ['labels_sha256']
    """
    return {
        "n_images": n_images(dataset),
        "image_ids_sha256": texts_sha256(known(dataset, "image_ids")),
        "labels_sha256": texts_sha256(int(label) for label in known(dataset, "labels")),
        "pixels_sha256": _pixels_sha256(dataset) if pixels else {},
    }


def as_far_as_known(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """`wanted`, with what one of both fingerprints does not know taken from `found`.

    It is `found` itself where nothing that both know speaks against their being the same.

    Args:
        wanted: the fingerprint of the data set at hand.
        found: the fingerprint that was kept.

    Returns:
        A fingerprint to compare with `found`.

    Example:
        >>> as_far_as_known({"n_images": None, "labels_sha256": "b"}, {"n_images": 3, "labels_sha256": "a"})
        {'n_images': 3, 'labels_sha256': 'b'}
    """
    made = dict(found)
    for name, value in wanted.items():
        there = found.get(name)
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            made[name] = as_far_as_known(value, there)
        elif value is not None and there is not None:
            made[name] = value
    return made


def texts_sha256(values: Iterable[Any]) -> str | None:
    """SHA-256 of values as lines of text, in hexadecimal; None of no value.

    Args:
        values: each is written as `str` writes it, in UTF-8, with a line feed between two.

    Returns:
        64 hexadecimal digits, or None.

    Example:
        >>> texts_sha256([]), texts_sha256(["a"])[:8]
        (None, 'ca978112')
    """
    lines = [str(value) for value in values]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else None


def _pixels_sha256(dataset: Any) -> dict[str, str]:
    n = n_images(dataset)
    if not n or not hasattr(dataset, "__getitem__"):
        return {}
    found = {}
    for place in sorted({round(at) for at in np.linspace(0, n - 1, _N_LOOKED_AT)}):
        # What is wrong with an item is said by who reads them all; mended, the data are still the same.
        with contextlib.suppress(Exception):
            pixels = torch.as_tensor(dataset[place]["pixels"]).detach().cpu().contiguous()
            found[str(place)] = hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
    return found
