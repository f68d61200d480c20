"""The study's table: conditions split by what training has seen; values and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import binomtest

import vitlens as vl
from vitlens.comparison import statistics, summarize

TRAINED_ON = {
    "base": (),
    "control": (),
    "removes": ("removes",),
    "adds": ("adds",),
    "both": ("removes", "adds"),
}


def split(conditions: Sequence[str], recipes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The conditions to measure under, by what training has seen of them.

    Args:
        conditions: to be split; "clean" is added.
        recipes: name of a recipe -> the conditions trained on.

    Returns:
        "clean"; for each recipe NAME the corruptions trained on, at any severity, and as "NAME_family" others
        of their families; "unseen": the families that no recipe has. Groups without members are left out.

    Raises:
        ConditionError: a condition names nothing, or both recipes have a family.
    """
    trained = {name: vl.images.parse_conditions(entries) for name, entries in recipes.items()}
    families = {name: {family_of(each) for each in members} for name, members in trained.items()}
    if both := families["removes"] & families["adds"]:
        raise vl.errors.ConditionError(
            f"--removes and --adds both have the family '{sorted(both)[0]}'.",
            expected="families apart, so that what one has seen the other has not",
            remedy="Move its corruptions to one side.",
        )
    groups: dict[str, list[str]] = {"clean": ["clean"]}
    groups |= {f"{name}{end}": [] for name in recipes for end in ("", "_family")} | {"unseen": []}
    for condition in vl.images.parse_conditions(conditions):
        group = "unseen"
        for name, members in trained.items():
            if condition.corruption in {each.corruption for each in members}:
                group = name
            elif family_of(condition) in families[name]:
                group = f"{name}_family"
        if condition.name != "clean":
            groups[group].append(condition.name)
    return {name: members for name, members in groups.items() if members}


def family_of(condition: vl.images.Condition) -> str:
    """Of a corruption its family; anything else is a family of its own."""
    if isinstance(condition.corruption, str):
        return vl.CORRUPTIONS[condition.corruption].family
    return condition.name


def table(
    data: xr.Dataset, groups: Mapping[str, Sequence[str]], *, margin: float | None = None, seed: int = 0
) -> pd.DataFrame:
    """Accuracy and probability of the correct class by group of conditions, each against the control.

    An image's value is its mean over the group's conditions: the image is what was sampled, and one image
    under many corruptions is one draw.

    Args:
        data: of a comparison, with `Prediction`'s variables.
        groups: from `split`.
        margin: the largest difference that counts as none; without it nothing is called equivalent.
        seed: of the resampling.

    Returns:
        A row for each metric, group and checkpoint: the value with its 95 % interval over images (Wilson's
        for accuracy under one condition, else the bootstrap's), the paired difference from the control with
        its own, a p-value adjusted over the whole table, and a verdict.
    """
    differences = against_control(data, groups, margin=margin, seed=seed)
    counts = statistics.resample_counts(data.sizes["image"], seed=seed)
    rows = []
    measured = {"accuracy": data["rank"] == 0, "correct_probability": data["correct_probability"]}
    for metric, measurements in measured.items():
        for group, members in groups.items():
            means = measurements.sel(condition=list(members)).mean("condition")
            is_proportion = metric == "accuracy" and len(members) == 1
            for checkpoint in TRAINED_ON:
                values = means.sel(checkpoint=checkpoint).values
                low, high = interval(values, counts, is_proportion=is_proportion)
                row = {
                    "metric": metric,
                    "condition": group,
                    "n_conditions": len(members),
                    "checkpoint": checkpoint,
                    "seen": seen(checkpoint, group),
                    "value": values.mean(),
                    "ci_low": low,
                    "ci_high": high,
                }
                if checkpoint != "control":
                    row |= differences.loc[(metric, group, checkpoint)].to_dict()
                rows.append(row | {"n_images": len(values)})
    return pd.DataFrame(rows)


def against_control(
    data: xr.Dataset, groups: Mapping[str, Sequence[str]], *, margin: float | None, seed: int
) -> pd.DataFrame:
    """The paired differences, by metric, group and checkpoint, all of one primary family."""
    primary = ["top1_accuracy", "correct_probability"]
    summary = summarize(
        data[["rank", "correct_probability"]],
        reference="control",
        n_classes=2,  # top-1 is all that the table has of the ranks
        primary=primary,
        margins=None if margin is None else dict.fromkeys(primary, margin),
        pools=groups,
        pools_only=True,
        seed=seed,
    )
    named = {
        "difference": "difference_from_control",
        "ci_low": "difference_ci_low",
        "ci_high": "difference_ci_high",
    }
    summary = summary.replace({"metric": {"top1_accuracy": "accuracy"}}).rename(columns=named)
    indexed = summary.set_index(["metric", "condition", "checkpoint"])
    return indexed[[*named.values(), "effect_size", "p_adjusted", "margin", "verdict"]]


def interval(values: np.ndarray, counts: np.ndarray, *, is_proportion: bool) -> tuple[float, float]:
    """The 95 % interval over images of a mean that lies in [0, 1]."""
    if is_proportion:
        found = binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
        return found.low, found.high
    low, high = statistics.mean_interval(values[:, None], counts, reach=1.0)
    return float(low[0].clip(0, 1)), float(high[0].clip(0, 1))


def seen(checkpoint: str, group: str) -> str:
    """What the checkpoint's training has seen of a group: "clean", "seen", "family" or "unseen"."""
    recipe, _, kin = group.partition("_")
    if group == "clean" or recipe not in TRAINED_ON[checkpoint]:
        return "clean" if group == "clean" else "unseen"
    return "family" if kin else "seen"


def show(rows: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> None:
    """The table, values first, then the differences."""
    print()
    for group, members in groups.items():
        print(f"{group}: {', '.join(members)}")
    for metric, part in rows.groupby("metric"):
        values = [f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" for row in part.itertuples()]
        print(f"\n{metric} of {part['n_images'].iloc[0]} held-out images, 95 % interval")
        print(wide(part, values))
        compared = part[part["checkpoint"] != "control"]
        mark = compared["verdict"].map({"changed": "*", "equivalent": "="}).fillna(" ")
        cells = [
            f"{'seen ' if row.seen == 'seen' else ''}{row.difference_from_control:+.3f} "
            f"[{row.difference_ci_low:+.3f}, {row.difference_ci_high:+.3f}] {sign}"
            for row, sign in zip(compared.itertuples(), mark, strict=True)
        ]
        print(f"\n{metric}, difference from the control; * changed, = equivalent")
        print(wide(compared, cells))


def wide(part: pd.DataFrame, cells: Sequence[str]) -> str:
    """Conditions down, checkpoints across."""
    spread_out = part.assign(cell=cells).pivot(index="condition", columns="checkpoint", values="cell")
    ordered = spread_out.loc[part["condition"].unique(), part["checkpoint"].unique()]
    return str(ordered.rename_axis(index=None, columns=None).to_string())
