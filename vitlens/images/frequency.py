"""Where in frequency corruptions lie, measured on images, and the groups that follow from it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from scipy import stats
from tqdm.auto import tqdm

from ..errors import ConditionError
from .batches import batches
from .condition_strings import ConditionSpec, parse_conditions
from .items import ImageDataset, n_images
from .spectrum import spectrum

MEASURES = ("hf_energy", "delta_hf_db", "rms")
"""What is measured of each image, as in `Spectrum`."""


def measure_frequency(
    dataset: ImageDataset,
    conditions: Iterable[ConditionSpec],
    *,
    batch_size: int = 32,
    seed: int = 0,
    level: float = 0.95,
    progress: bool = True,
) -> pd.DataFrame:
    """Where each condition lies in frequency, on average over images.

    Images are rounded to 8 bits after the corruption, as they are stored: after a strong blur, rounding is
    all that is left above 1/8 cycle per pixel.

    Args:
        dataset: images, as in `vitlens.run`; photographs, at the size at which they will be used.
        conditions: such as `["gaussian_blur@1-5", "imagenet_c@3"]`.
        batch_size: images at a time.
        seed: of the corruptions.
        level: of the intervals.
        progress: show a bar.

    Returns:
        A row for each condition: `condition`; `hf_energy`, `delta_hf_db` and `rms` as in `spectrum`, each a
        mean over the images where it is defined, with `_low` and `_high`, its t interval; and `n_images`.

    Raises:
        ConditionError: a condition is unknown, or looks at a model.
        DatasetError, PixelError: the images cannot be read.

    Example:
        >>> import vitlens as vl
        >>> images = [vl.images.digits("test")[i] for i in range(8)]
        >>> table = measure_frequency(images, ["contrast@3", "sharpen@3"], progress=False)
        >>> bool(table.hf_energy[0] < table.hf_energy[1])
        True
    """
    asked = parse_conditions(conditions)
    apart = next((condition for condition in asked if condition.needs_model), None)
    if apart is not None:
        raise ConditionError(
            f"The condition '{apart.name}' looks inside a model, and there is none here.",
            expected="conditions that change pixels alone",
            remedy="Leave it out, or measure the attacked pixels with vitlens.spectrum.",
        )
    measured: dict[str, list[np.ndarray]] = {condition.name: [] for condition in asked}
    count = n_images(dataset)
    total = None if count is None else count * len(asked)
    with tqdm(total=total, desc="Frequency", unit="image", disable=not progress) as bar:
        for batch in batches(dataset, batch_size):
            for condition in asked:
                corrupted = condition.apply(batch.pixels, batch.image_ids, seed=seed)
                found = spectrum(batch.pixels, (corrupted * 255).round() / 255)
                measured[condition.name].append(
                    torch.stack([getattr(found, name) for name in MEASURES]).numpy()
                )
                bar.update(len(batch))
    return pd.DataFrame(
        [_row(name, np.concatenate(parts, axis=1), level) for name, parts in measured.items()]
    )


def _row(name: str, values: np.ndarray, level: float) -> dict[str, object]:
    row: dict[str, object] = {"condition": name}
    for measure, of_images in zip(MEASURES, values, strict=True):
        defined = of_images[np.isfinite(of_images)]
        mean = defined.mean() if len(defined) else np.nan
        spread = stats.sem(defined) if len(defined) > 1 else np.nan
        reach = stats.t.ppf((1 + level) / 2, max(len(defined) - 1, 1)) * spread
        row |= {measure: mean, f"{measure}_low": mean - reach, f"{measure}_high": mean + reach}
    return row | {"n_images": values.shape[1]}
