"""What a gallery shows, gathered in one pass: each feature's images, and how it is used over all tokens."""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Float32, Float64, Int, UInt8
from torch import Tensor

from ..images import Batch
from .gallery_data import Exhibit, FeatureProfile, ShownImage
from .growing_histogram import GrowingHistogram

N_SPARE = 6
"""Images kept for each that is drawn from the middle half.

Where that half ends is known only at the end. Of 18 images drawn from all, fewer than 3 lie in it with a
chance of 0.0007, and only then are fewer shown.
"""

Z_95 = 1.959964
"""Two-sided 95 % of a normal distribution."""


@dataclass(frozen=True)
class Layout:
    """Which of an SAE's tokens stand where.

    Attributes:
        kinds: kind of token -> its places among the tokens that are read.
        patches: places of the patches; None where none are read.
        others: places of all others, in order.
        grid: rows and columns of patches.
    """

    kinds: Mapping[str, Sequence[int]]
    patches: Sequence[int] | None
    others: Sequence[int]
    grid: tuple[int, int]


@dataclass
class _First:
    """The images that come first by a key; of equal ones, those that came first."""

    n: int
    ranked: list[tuple[float, int]] = field(default_factory=list)

    def offer(self, key: float, position: int) -> bool:
        """Take the image if it is among the first; whether it was taken."""
        if len(self.ranked) == self.n and (self.n == 0 or (key, position) >= self.ranked[-1]):
            return False
        bisect.insort(self.ranked, (key, position))
        del self.ranked[self.n :]
        return True

    @property
    def positions(self) -> list[int]:
        return [position for _, position in self.ranked]


@dataclass(frozen=True)
class _Image:
    image_id: str
    label: int
    pixels: UInt8[np.ndarray, "row column channel"]


class Collector:
    """Takes batches of codes and keeps, of the pixels, only those of images that may be shown.

    Which images are kept, in the end, depends on the data set's order and the seed alone. What grows with the
    data set are two numbers an image and feature.

    Args:
        features: for each checkpoint, the feature of every exhibit.
        layout: of the tokens.
        n_top: images with the largest codes.
        n_middle: images drawn from the middle half.
        seed: of the draw.
    """

    def __init__(
        self, features: Sequence[Sequence[int]], layout: Layout, *, n_top: int, n_middle: int, seed: int
    ) -> None:
        self._features, self._layout, self._n_middle, self._seed = features, layout, n_middle, seed
        lanes = [[None] * len(each) for each in features]
        self._tops = [[_First(n_top) for _ in lane] for lane in lanes]
        self._drawn = [[_First(N_SPARE * n_middle) for _ in lane] for lane in lanes]
        self._histograms = [[GrowingHistogram() for _ in lane] for lane in lanes]
        self._n_active = [dict.fromkeys(layout.kinds, np.zeros(len(each), np.int64)) for each in features]
        self._kept: list[dict[int, Float32[np.ndarray, "checkpoint token"]]] = [{} for _ in features[0]]
        self._images: dict[int, _Image] = {}
        self._largest: list[Float32[np.ndarray, "checkpoint image exhibit"]] = []
        self._mean: list[Float64[np.ndarray, "checkpoint image exhibit"]] = []
        self._labels: list[int] = []

    @property
    def n_images(self) -> int:
        """Images that were looked at so far."""
        return len(self._labels)

    def add(
        self, batch: Batch, pixels: Tensor, codes: Float32[np.ndarray, "checkpoint image token exhibit"]
    ) -> None:
        """Look at one batch: the pixels that were seen, and the codes of the exhibits' features on them."""
        first = self.n_images
        largest = codes.max(axis=2)
        for checkpoint, exhibit in np.ndindex(codes.shape[0], codes.shape[3]):
            values = codes[checkpoint, ..., exhibit]
            self._histograms[checkpoint][exhibit].add(values[values > 0])
            for row in np.flatnonzero(largest[checkpoint, :, exhibit] > 0):
                position = first + int(row)
                is_top = self._tops[checkpoint][exhibit].offer(
                    -float(largest[checkpoint, row, exhibit]), position
                )
                # By the exhibit, so that not all show the same images; both sides of a pair draw alike.
                priority = _priority(self._seed, self._features[0][exhibit], batch.image_ids[row])
                is_drawn = self._drawn[checkpoint][exhibit].offer(priority, position)
                if is_top or is_drawn:
                    self._kept[exhibit][position] = codes[:, row, :, exhibit].copy()
        for checkpoint, counts in enumerate(self._n_active):
            for kind, places in self._layout.kinds.items():
                counts[kind] = counts[kind] + (codes[checkpoint][:, list(places)] > 0).sum(axis=(0, 1))
        self._largest.append(largest)
        self._mean.append(codes.mean(axis=2, dtype=np.float64))
        self._labels.extend(batch.labels.tolist())
        self._keep_pixels(batch, pixels, first)

    def _keep_pixels(self, batch: Batch, pixels: Tensor, first: int) -> None:
        wanted: set[int] = set()
        for exhibit, kept in enumerate(self._kept):
            still = {
                position for lanes in (*self._tops, *self._drawn) for position in lanes[exhibit].positions
            }
            self._kept[exhibit] = {position: kept[position] for position in kept if position in still}
            wanted |= still
        self._images = {position: image for position, image in self._images.items() if position in wanted}
        for position in wanted - self._images.keys():
            row = position - first
            seen = (pixels[row].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
            self._images[position] = _Image(batch.image_ids[row], int(batch.labels[row]), seen)

    def finish(self, similarities: Sequence[Mapping[str, float]]) -> tuple[Exhibit, ...]:
        """The exhibits, once all images were looked at."""
        largest, mean = np.concatenate(self._largest, axis=1), np.concatenate(self._mean, axis=1)
        return tuple(
            Exhibit(
                features=tuple(
                    self._profile(checkpoint, exhibit, largest[checkpoint, :, exhibit], mean)
                    for checkpoint in range(len(self._features))
                ),
                images=self._shown(exhibit, largest[..., exhibit]),
                similarity=similarity,
            )
            for exhibit, similarity in enumerate(similarities)
        )

    def _profile(
        self,
        checkpoint: int,
        exhibit: int,
        largest: Float32[np.ndarray, " image"],
        mean: Float64[np.ndarray, "checkpoint image exhibit"],
    ) -> FeatureProfile:
        counts, edges = self._histograms[checkpoint][exhibit].finish()
        return FeatureProfile(
            feature=self._features[checkpoint][exhibit],
            n_tokens={kind: len(places) * self.n_images for kind, places in self._layout.kinds.items()},
            n_active_tokens={kind: int(n[exhibit]) for kind, n in self._n_active[checkpoint].items()},
            n_active_images=int((largest > 0).sum()),
            largest=max(0.0, float(largest.max())),
            counts=counts,
            edges=edges,
            classes=class_table(np.array(self._labels), largest > 0, mean[checkpoint, :, exhibit]),
        )

    def _shown(
        self, exhibit: int, largest: Float32[np.ndarray, "checkpoint image"]
    ) -> tuple[ShownImage, ...]:
        """The union of what each checkpoint picked."""
        tops = {position for lane in self._tops for position in lane[exhibit].positions}
        middle: set[int] = set()
        for lane, of_checkpoint in zip(self._drawn, largest, strict=True):
            inside = set(middle_half(of_checkpoint)) - tops
            middle.update([each for each in lane[exhibit].positions if each in inside][: self._n_middle])
        scale = largest.max(axis=1, keepdims=True)
        strength = (largest / np.where(scale > 0, scale, 1)).max(axis=0)
        return tuple(
            self._shown_image(exhibit, position, picked)
            for picked, positions in (("top", tops), ("middle", middle - tops))
            for position in sorted(positions, key=lambda position: (-strength[position], position))
        )

    def _shown_image(self, exhibit: int, position: int, picked: str) -> ShownImage:
        image, codes = self._images[position], self._kept[exhibit][position]
        patches, grid = self._layout.patches, self._layout.grid
        return ShownImage(
            image_id=image.image_id,
            label=image.label,
            picked=picked,
            pixels=image.pixels,
            activation=codes.max(axis=1),
            heat=None if patches is None else codes[:, list(patches)].reshape(len(codes), *grid),
            prefix=codes[:, list(self._layout.others)],
        )


def middle_half(largest: Float[np.ndarray, " image"]) -> list[int]:
    """Positions of the active images between the quartiles of all active images, by their largest code.

    Example:
        >>> middle_half(np.array([0.0, 5.0, 1.0, 3.0, 2.0]))
        [4, 3]
    """
    active = np.flatnonzero(largest > 0)
    ranked = active[np.argsort(largest[active], kind="stable")]
    quarter = len(ranked) // 4
    positions: list[int] = ranked[quarter : len(ranked) - quarter].tolist()
    return positions


def class_table(
    labels: Int[np.ndarray, " image"], active: Bool[np.ndarray, " image"], mean: Float[np.ndarray, " image"]
) -> pd.DataFrame:
    """For which classes a feature speaks: see `FeatureProfile.classes`."""
    images = pd.DataFrame({"label": labels, "active": active, "mean": mean})
    table = images.groupby("label", as_index=False).agg(
        n_images=("active", "size"), n_active_images=("active", "sum"), mean_activation=("mean", "mean")
    )
    table = table[table["n_active_images"] > 0]
    share = table["n_active_images"] / table["n_images"]
    low = wilson_low(table["n_active_images"].to_numpy(), table["n_images"].to_numpy())
    table = table.assign(share_active=share, lift=share / active.mean() if active.any() else share)
    order = ["label", "n_images", "n_active_images", "share_active", "lift", "mean_activation"]
    return table.iloc[np.argsort(-low, kind="stable")][order].reset_index(drop=True)


def wilson_low(successes: Int[np.ndarray, "*n"], trials: Int[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """The lower end of a share's 95 % interval: how large it is at least, few trials or many.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".

    Example:
        >>> wilson_low(np.array([1, 10]), np.array([1, 10])).round(3).tolist()
        [0.207, 0.722]
    """
    share, z2 = successes / trials, Z_95**2
    spread = Z_95 * np.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2))
    low: np.ndarray = (share + z2 / (2 * trials) - spread) / (1 + z2 / trials)
    return low


def _priority(seed: int, feature: int, image_id: str) -> float:
    """A number in [0, 1) that hangs on the seed, the feature and the image alone, as if drawn for them."""
    digest = hashlib.blake2b(
        json.dumps([seed, feature, image_id]).encode(), digest_size=6, person=b"vitlens.gallery"
    ).digest()
    return int.from_bytes(digest, "little") / 2**48
