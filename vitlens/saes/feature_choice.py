"""Which features of an SAE a gallery shows where none are named."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from torch import Tensor

from ..errors import SAEError
from ..images import ImageDataset
from ..names import nearest
from .gallery_pass import GalleryPass
from .top_images import wilson_low

CHOICES = {
    "random": "drawn from those that are active",
    "most_active": "those active on the most tokens",
    "class_lift": "those that best tell a class",
}
"""What `choose` may be, and how it is said."""

N_LEAST_ACTIVE_IMAGES = 5
"""Of fewer images, a feature's classes say little."""


def check_choice(choose: str, n_features: int) -> None:
    """Refuse a choice that is none.

    Raises:
        SAEError: `choose` is none of `CHOICES`, or `n_features` is below 1.
    """
    if choose not in CHOICES:
        raise SAEError(
            f"choose is {choose!r}.",
            expected=f"one of {', '.join(map(repr, CHOICES))}",
            remedy=f"The nearest is {nearest(choose, CHOICES, n=1)}.",
        )
    if n_features < 1:
        raise SAEError(f"n_features is {n_features}.", expected="1 or more", remedy="Pass n_features=24.")


def choose_features(
    a_pass: GalleryPass, dataset: ImageDataset, choose: str, n_features: int, *, progress: bool
) -> list[int]:
    """Some features of the first checkpoint's SAE, by a pass over the data set.

    Returns:
        At most `n_features`: of `random`, in the order of their indices; else the best first, and of equal
        ones the one with the lowest index.

    Raises:
        SAEError: no feature can be chosen.
    """
    d_sae = a_pass.sides[0].sae.cfg.d_sae
    n_active_tokens = np.zeros(d_sae, dtype=np.int64)
    n_active_images = np.zeros(d_sae, dtype=np.int64)
    by_class: dict[int, Int[np.ndarray, " d_sae"]] = {}
    n_by_class: dict[int, int] = {}
    for batch, _, (counts,) in a_pass.read(dataset, _count, "Choosing features", progress=progress):
        n_active_tokens += counts.sum(axis=0, dtype=np.int64)
        is_active = counts > 0
        n_active_images += is_active.sum(axis=0)
        if choose == "class_lift":
            for label, of_image in zip(batch.labels.tolist(), is_active, strict=True):
                so_far = by_class.setdefault(label, np.zeros(d_sae, dtype=np.int64))
                so_far += of_image
                n_by_class[label] = n_by_class.get(label, 0) + 1

    live = np.flatnonzero(n_active_tokens)
    if choose == "random":
        drawn = np.random.default_rng(a_pass.seed).permutation(live)[:n_features]
        return _some(np.sort(drawn), "active on any token")
    if choose == "most_active":
        return _some(
            live[np.argsort(-n_active_tokens[live], kind="stable")][:n_features], "active on any token"
        )
    enough = np.flatnonzero(n_active_images >= N_LEAST_ACTIVE_IMAGES)
    best = np.zeros(d_sae)
    for label, counts in by_class.items():
        np.maximum(best, wilson_low(counts, np.full_like(counts, n_by_class[label])), out=best)
    lift = best[enough] / n_active_images[enough]  # the number of all images is the same for all
    return _some(
        enough[np.argsort(-lift, kind="stable")][:n_features], f"active on {N_LEAST_ACTIVE_IMAGES} images"
    )


def _count(place: int, codes: Tensor) -> Tensor:
    """On how many tokens of each image each feature is active."""
    return (codes > 0).sum(dim=1)


def _some(features: Int[np.ndarray, " feature"], what: str) -> list[int]:
    if not len(features):
        raise SAEError(
            f"No feature of the SAE is {what} of this data set.",
            expected="an SAE that is active here",
            remedy="Check that the SAE belongs to the model and the hook, or take more images.",
        )
    chosen: list[int] = features.tolist()
    return chosen
