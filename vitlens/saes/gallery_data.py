"""What a gallery holds: features, how they are used, and the images on which they are active."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float32, Int, UInt8

from ..errors import SAEError


@dataclass(frozen=True, eq=False)
class ShownImage:
    """One image of a feature's gallery, with the feature's codes on it in every checkpoint.

    Attributes:
        image_id: its name in the data set.
        label: the index of its class.
        picked: `top`, one of those with the largest codes in a checkpoint; or `middle`, drawn from the middle
            half of a checkpoint's images on which the feature is active, ranked by their largest code.
        pixels: what the model saw, 0 to 255.
        activation: the largest code over the tokens that the SAE reads.
        heat: the code at each patch, rows from the top; None where the SAE reads no patches.
        prefix: the code at each other token that the SAE reads, in the order of the gallery's `prefix_kinds`.
    """

    image_id: str
    label: int
    picked: str
    pixels: UInt8[np.ndarray, "row column channel"]
    activation: Float32[np.ndarray, " checkpoint"]
    heat: Float32[np.ndarray, "checkpoint patch_row patch_column"] | None
    prefix: Float32[np.ndarray, "checkpoint prefix"]


@dataclass(frozen=True, eq=False)
class FeatureProfile:
    """How one feature is used over all tokens of a data set, and for which classes.

    Attributes:
        feature: its index in the SAE.
        n_tokens: kind of token -> how many the SAE read.
        n_active_tokens: kind of token -> on how many the feature was active.
        n_active_images: images with at least one such token.
        largest: the largest code, 0 if the feature was never active.
        counts: positive codes in each bin, over tokens of all kinds.
        edges: of the bins, in the unit of activations, from 0.
        classes: a row for each class with an image on which the feature is active: `label`, `n_images`,
            `n_active_images`, `share_active`, `lift` (that share over the share of all images) and
            `mean_activation` (the mean code over all tokens of the class's images). First the classes whose
            lift is surely large: sorted by the lower end of the share's 95 % Wilson interval.
    """

    feature: int
    n_tokens: Mapping[str, int]
    n_active_tokens: Mapping[str, int]
    n_active_images: int
    largest: float
    counts: Int[np.ndarray, " bin"]
    edges: Float[np.ndarray, " edge"]
    classes: pd.DataFrame

    @property
    def share_active(self) -> float:
        """Share of all tokens that were read on which the feature is active."""
        return sum(self.n_active_tokens.values()) / sum(self.n_tokens.values())


@dataclass(frozen=True, eq=False)
class Exhibit:
    """One feature, or a matched pair: one feature of each checkpoint, on the same images.

    Attributes:
        features: one for each checkpoint.
        images: those picked as `top` before those of the `middle`; within each by falling activation, of a
            pair by the larger of both as a share of that feature's largest.
        similarity: of a pair, what the match said of it: `decoder_cosine`, `activation_correlation`, ...
            Of a lost or new feature of a comparison, `nearest_decoder_cosine`; else empty.
    """

    features: tuple[FeatureProfile, ...]
    images: tuple[ShownImage, ...]
    similarity: Mapping[str, float]

    @property
    def name(self) -> str:
        """The feature's index, or both of a pair, as one says it."""
        numbers = [str(profile.feature) for profile in self.features]
        return f"Feature{'s' * (len(numbers) > 1)} {' ↔ '.join(numbers)}"

    def largest_heat(self, checkpoint: int) -> float:
        """The largest code on a patch of the images shown: where the checkpoint's color scale ends."""
        heats = [image.heat[checkpoint] for image in self.images if image.heat is not None]
        return max((float(heat.max()) for heat in heats), default=0.0)


@dataclass(frozen=True, eq=False, repr=False)
class Gallery:
    """Features of sparse autoencoders on the images that show them best, and on some that do not.

    Attributes:
        exhibits: one for each feature or matched pair.
        checkpoints: names of the checkpoints, one or two.
        prefix_kinds: the kind of each token outside the grid of patches that the SAEs read.
        n_images: all images that were looked at.
        n_top_images: how many each checkpoint could pick as `top`.
        n_middle_images: how many it could draw from the `middle`.
        class_names: names of the classes, by index.
        provenance: models, SAEs, condition, seed: what is needed to repeat it.

    Example:
        See `gallery`, which makes one.
    """

    exhibits: tuple[Exhibit, ...]
    checkpoints: tuple[str, ...]
    prefix_kinds: tuple[str, ...]
    n_images: int
    n_top_images: int
    n_middle_images: int
    class_names: Sequence[str] | None
    provenance: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.exhibits)

    def class_name(self, label: int) -> str:
        """The name of the class `label`, or its number where it has none."""
        if self.class_names is not None and 0 <= label < len(self.class_names):
            return str(self.class_names[label])
        return f"class {label}"

    def table(self) -> pd.DataFrame:
        """The images shown.

        Returns:
            A row for each exhibit, image and checkpoint: `exhibit`, `checkpoint`, `feature`, `picked`,
            `place` (from 0, within the exhibit), `image_id`, `label`, `activation`, and where the largest
            code on a patch stands, `patch_row` and `patch_column` (-1 where there is none).
        """
        rows = []
        for number, exhibit in enumerate(self.exhibits):
            for place, image in enumerate(exhibit.images):
                for at, checkpoint in enumerate(self.checkpoints):
                    row, column = strongest_patch(image, at) or (-1, -1)
                    rows.append(
                        {
                            "exhibit": number,
                            "checkpoint": checkpoint,
                            "feature": exhibit.features[at].feature,
                            "picked": image.picked,
                            "place": place,
                            "image_id": image.image_id,
                            "label": image.label,
                            "activation": float(image.activation[at]),
                            "patch_row": row,
                            "patch_column": column,
                        }
                    )
        return pd.DataFrame(rows, columns=_COLUMNS)

    def figures(self) -> dict[str, Any]:
        """A plotly figure for each exhibit, by name, for a report: `report.write(..., figures={...})`."""
        from ..report.charts.gallery import gallery_figures  # upstairs, and plotly is slow

        return gallery_figures(self)

    def report(self, path: str | os.PathLike[str], *, title: str | None = None) -> Path:
        """Write the gallery as one HTML file that opens with no network.

        Args:
            path: where to write; made whole or not at all.
            title: of the page; by default, what is shown.

        Returns:
            The path.

        Raises:
            SAEError: `path` is a folder.
        """
        from ..report import gallery_page

        if Path(path).is_dir():
            raise SAEError(
                f"{os.fspath(path)} is a folder.",
                expected="the name of a file",
                remedy="Add one, such as gallery.html.",
            )
        return gallery_page.write(self, path, title=title)

    def __repr__(self) -> str:
        what = "pairs of features" if len(self.checkpoints) == 2 else "features"
        return f"Gallery({len(self)} {what}, {' and '.join(self.checkpoints)}, {self.n_images} images)"


_COLUMNS = [
    "exhibit",
    "checkpoint",
    "feature",
    "picked",
    "place",
    "image_id",
    "label",
    "activation",
    "patch_row",
    "patch_column",
]


def strongest_patch(image: ShownImage, checkpoint: int) -> tuple[int, int] | None:
    """Row and column of the patch with the largest code; None where no patch is active."""
    if image.heat is None or not image.heat[checkpoint].any():
        return None
    row, column = np.unravel_index(int(image.heat[checkpoint].argmax()), image.heat.shape[1:])
    return int(row), int(column)
