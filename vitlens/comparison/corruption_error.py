"""Mean corruption error: errors under the corruptions of ImageNet-C, relative to AlexNet's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float64

from ..errors import ComparisonError
from ..names import nearest
from . import statistics

ALEXNET_ERROR: Mapping[str, float] = MappingProxyType(
    {
        "gaussian_noise": 0.886428,
        "shot_noise": 0.894468,
        "impulse_noise": 0.922640,
        "defocus_blur": 0.819880,
        "glass_blur": 0.826268,
        "motion_blur": 0.785948,
        "zoom_blur": 0.798360,
        "snow": 0.866816,
        "frost": 0.826572,
        "fog": 0.819324,
        "brightness": 0.564592,
        "contrast": 0.853204,
        "elastic": 0.646056,
        "pixelate": 0.717840,
        "jpeg": 0.606500,
    }
)
"""AlexNet's top-1 error under each corruption of ImageNet-C, the mean of its five severities, by name."""

ALEXNET_CLEAN_ERROR = 1 - 0.56522
"""AlexNet's top-1 error on clean images: what torchvision states of its weights IMAGENET1K_V1."""

SEVERITIES = (1, 2, 3, 4, 5)
_CONDITION = re.compile(r"(?P<name>\w+)@(?P<severity>[1-5])(?::jpeg_quality=(?P<quality>\d+))?")


def mean_corruption_error(
    data: xr.Dataset,
    *,
    corruptions: Iterable[str] | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The corruption errors of each checkpoint, and their means: mCE and relative mCE.

    The corruption error is the checkpoint's error, summed over the five severities, over AlexNet's: 1 is as
    bad as AlexNet. The relative one takes off from both what they err on clean images: it tells what the
    corruption adds. mCE is the mean over the fifteen corruptions of ImageNet-C. AlexNet's errors are those on
    ImageNet's validation images of 224 × 224 pixels, stored as JPEG with quality 85: on other images, or
    without that, the weights still stand for how hard the corruptions are, but the result is not to be set
    beside published ones.

    Intervals resample images, each with all of its corruptions and severities; AlexNet's errors stay as they
    are. They do not tell two checkpoints apart: see `summarize` for paired differences.

    Args:
        data: of `run` or `compare` with `Prediction`, under "gaussian_noise@1" to "jpeg@5", all with one
            ":jpeg_quality=..." or all without. Without "clean" there are no relative errors.
        corruptions: those to take, of the fifteen; None wants all of them.
        n_resamples: bootstrap resamples.
        level: confidence level of the intervals.
        seed: states all of the randomness.

    Returns:
        One row for each checkpoint, where the data have that axis, metric (`corruption_error`,
        `relative_corruption_error`) and corruption, the mean last: it is called `mCE` where all fifteen are
        there, otherwise `mean of 3`, say. Columns `value`, `ci_low`, `ci_high` and `n`, the images. An image
        without a rank under any condition is left out. `attrs` say `is_mce`; `is_imagenet_c`, whether the
        conditions are ImageNet-C's: all fifteen, stored with JPEG quality 85 (whether the images are, only
        you know); `jpeg_quality`; `not_taken`, other corruptions in the data, which have no AlexNet error or
        were not asked for; and `level`.

    Raises:
        ComparisonError: the data hold no ranks, a corruption or a severity is missing, one is asked for that
            AlexNet's errors are not known of, they come with several qualities of JPEG, or a number is out
            of range.

    Source: Hendrycks and Dietterich (2019), Benchmarking neural network robustness to common corruptions and
    perturbations, section 4.

    Example:
        >>> rank = xr.DataArray(
        ...     [[0, 0, 0, 1]] + [[0, 1, 1, 1]] * 5,
        ...     dims=["condition", "image"],
        ...     coords={"condition": ["clean", *(f"fog@{severity}" for severity in range(1, 6))]},
        ... )
        >>> table = mean_corruption_error(xr.Dataset({"rank": rank}), corruptions=["fog"])
        >>> table[["metric", "corruption", "value", "n"]].round(3)
                              metric corruption  value  n
        0           corruption_error        fog  0.915  4
        1           corruption_error  mean of 1  0.915  4
        2  relative_corruption_error        fog  1.300  4
        3  relative_corruption_error  mean of 1  1.300  4
    """
    statistics.check_numbers(level, n_resamples, seed)
    rank = _rank(data)
    wanted = _wanted(corruptions)
    found, quality = _conditions(rank["condition"].values.tolist(), wanted, is_subset=corruptions is not None)
    has_clean = "clean" in rank["condition"].values
    conditions = [condition for name in wanted for condition in found[name]] + ["clean"] * has_clean
    ranks = rank.sel(condition=conditions).transpose("checkpoint", "image", "condition").values
    is_known = np.isfinite(ranks).all(axis=(0, 2))
    errors = (ranks[:, is_known] > 0).astype(np.float64)
    if not errors.shape[1]:
        raise ComparisonError(
            "No image has a rank under every condition.",
            expected="one image at least",
            remedy="Run all conditions on the same images.",
        )
    counts = statistics.resample_counts(errors.shape[1], n_resamples, seed)
    corrupted = errors[:, :, : len(wanted) * len(SEVERITIES)]
    corrupted = corrupted.reshape(*errors.shape[:2], len(wanted), len(SEVERITIES)).mean(axis=-1)
    alexnet = np.array([ALEXNET_ERROR[name] for name in wanted])
    # Each is a mean over images of something that an image has by itself, and so is the mean of them.
    per_error = {"corruption_error": 1 / alexnet}
    shares = {"corruption_error": corrupted * per_error["corruption_error"]}
    if has_clean:
        added = corrupted - errors[:, :, -1:]
        per_error["relative_corruption_error"] = 1 / (alexnet - ALEXNET_CLEAN_ERROR)
        shares["relative_corruption_error"] = added * per_error["relative_corruption_error"]
    is_mce = set(wanted) == set(ALEXNET_ERROR)
    labels = [*wanted, "mCE" if is_mce else f"mean of {len(wanted)}"]
    table = pd.concat(
        [
            _rows(share[place], labels, counts, level, per_error[metric]).assign(
                checkpoint=str(checkpoint), metric=metric
            )
            for place, checkpoint in enumerate(rank["checkpoint"].values)
            for metric, share in shares.items()
        ],
        ignore_index=True,
    )
    columns = ["checkpoint"] * ("checkpoint" in data["rank"].dims)
    table = table[[*columns, "metric", "corruption", "value", "ci_low", "ci_high", "n"]]
    table.attrs = {
        "is_mce": is_mce,
        "is_imagenet_c": is_mce and quality == 85,
        "jpeg_quality": quality,
        "not_taken": tuple(name for name in found if name not in wanted),
        "level": level,
    }
    return table


def complete_corruptions(conditions: Iterable[str]) -> list[str]:
    """Of the fifteen corruptions, those that `mean_corruption_error` can take of these conditions.

    Args:
        conditions: names of conditions.

    Returns:
        The corruptions that are there at all five severities, if all of those were stored with one quality of
        JPEG, or none was; in the order of `ALEXNET_ERROR`.

    Example:
        >>> complete_corruptions(["clean", "snow@5", *(f"fog@{severity}" for severity in range(1, 6))])
        ['fog']
    """
    found: dict[str, set[tuple[str, str | None]]] = {}
    for match in filter(None, map(_CONDITION.fullmatch, map(str, conditions))):
        found.setdefault(match["name"], set()).add((match["severity"], match["quality"]))
    complete = [
        name
        for name in ALEXNET_ERROR
        if {severity for severity, _ in found.get(name, ())} == set(map(str, SEVERITIES))
    ]
    qualities = {quality for name in complete for _, quality in found[name]}
    return complete if len(qualities) == 1 else []


def _rows(
    shares: Float64[np.ndarray, "image corruption"],
    labels: Sequence[str],
    counts: Any,
    level: float,
    reach: Float64[np.ndarray, " corruption"],
) -> pd.DataFrame:
    columns = np.column_stack([shares, shares.mean(axis=1)])
    # One image can add an error under every corruption.
    low, high = statistics.mean_interval(columns, counts, level, reach=np.append(reach, reach.mean()))
    return pd.DataFrame(
        {
            "corruption": labels,
            "value": columns.mean(axis=0),
            "ci_low": low,
            "ci_high": high,
            "n": len(columns),
        }
    )


def _rank(data: xr.Dataset) -> xr.DataArray:
    """Ranks with dims checkpoint, condition and image, whether there are several checkpoints or not."""
    rank = data.get("rank") if isinstance(data, xr.Dataset) else None
    dims = set() if rank is None else set(map(str, rank.dims))
    if rank is None or dims - {"checkpoint"} != {"condition", "image"}:
        raise ComparisonError(
            "The data have no rank." if rank is None else f"The rank has the dims {', '.join(sorted(dims))}.",
            expected="the variable rank with dims condition and image, and perhaps checkpoint",
            remedy="Give the result of vl.run(..., [vl.Prediction()], conditions=...).",
        )
    return rank if "checkpoint" in dims else rank.expand_dims(checkpoint=["model"])


def _wanted(corruptions: Iterable[str] | None) -> list[str]:
    """The corruptions to take, in the table's order."""
    if corruptions is None:
        return list(ALEXNET_ERROR)
    asked = [corruptions] if isinstance(corruptions, str) else list(corruptions)
    unknown = next((name for name in asked if name not in ALEXNET_ERROR), None)
    if unknown is not None or not asked:
        raise ComparisonError(
            f"AlexNet's error under '{unknown}' is not known." if asked else "corruptions names none.",
            expected=f"some of {', '.join(ALEXNET_ERROR)}",
            remedy="Leave it out; its own error stands in the data."
            + (f" Nearest: {nearest(unknown, ALEXNET_ERROR)}." if unknown is not None else ""),
        )
    return [name for name in ALEXNET_ERROR if name in asked]


def _conditions(
    names: Sequence[str], wanted: Sequence[str], *, is_subset: bool
) -> tuple[dict[str, list[str]], int | None]:
    """Each corruption's conditions by severity, and the quality of JPEG that all were stored with."""
    matched = [match for match in map(_CONDITION.fullmatch, map(str, names)) if match]
    qualities = {match["quality"] for match in matched if match["name"] in wanted}
    if len(qualities) > 1:
        told = " and ".join(sorted("none" if each is None else each for each in qualities))
        raise ComparisonError(
            f"The corrupted images were stored with several qualities of JPEG: {told}.",
            expected="one",
            remedy="Select the conditions of one: data.sel(condition=[...]).",
        )
    found: dict[str, dict[str, str]] = {}
    for match in matched:
        found.setdefault(match["name"], {})[match["severity"]] = match[0]
    missing = {
        name: absent
        for name in wanted
        if (absent := [str(each) for each in SEVERITIES if str(each) not in found.get(name, {})])
    }
    if missing:
        told = ", ".join(
            name if len(each) == 5 else f"{name}@{'/'.join(each)}" for name, each in missing.items()
        )
        what = (
            f"the {len(wanted)} corruptions that were asked for" if is_subset else "the fifteen corruptions"
        )
        raise ComparisonError(
            f"The data lack {told}.",
            expected=f"severities 1 to 5 of {what}",
            remedy="Run these conditions too, or name a subset, corruptions=[...]: its mean is no mCE.",
        )
    (quality,) = qualities
    by_severity = {name: [by[each] for each in sorted(by)] for name, by in found.items()}
    return by_severity, None if quality is None else int(quality)
