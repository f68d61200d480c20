"""The study's table: conditions by what training has seen; values, and differences from two references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import binomtest

import vitlens as vl
from vitlens.comparison import statistics, summarize
from vitlens.comparison.metrics import Metric, per_image_metrics
from vitlens.comparison.pools import pooled

TRAINED_ON = {
    "base": (),
    "control": (),
    "removes": ("removes",),
    "adds": ("adds",),
    "both": ("removes", "adds"),
}
REFERENCES = ("control", "base")


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


def scalars(data: xr.Dataset) -> xr.Dataset:
    """What the study measures of each image, one number each: of the comparison's variables those it needs.

    Attention entropy is averaged over layers and heads; queries are the class token, or else the patches.
    """
    entropy = data["attention_entropy_nats"]
    kinds = [str(kind) for kind in entropy["query_kind"].values]
    chosen = entropy.sel(query_kind="cls" if "cls" in kinds else "patch", drop=True)
    mean = chosen.mean(["layer", "head"]).assign_attrs(units="nats", long_name="Mean attention entropy.")
    kept = data[["rank", "correct_probability", "first_correct_layer", "lens_rank"]]
    return kept.assign(mean_attention_entropy_nats=mean)


def table(
    data: xr.Dataset,
    groups: Mapping[str, Sequence[str]],
    *,
    n_classes: int | None = None,
    margins: Mapping[str, float] | None = None,
    primary: Sequence[str] = ("top1_accuracy", "correct_probability"),
    seed: int = 0,
) -> pd.DataFrame:
    """Every metric by group of conditions, each checkpoint against the control and against the base.

    An image's value is its mean over the group's conditions: the image is what was sampled, and one image
    under many corruptions is one draw.

    Args:
        data: per-image variables, from `scalars`.
        groups: from `split`.
        n_classes: classes that the model tells apart; top-k accuracy needs more than k.
        margins: metric -> the largest difference that counts as none; without one nothing is equivalent.
        primary: the metrics that are tested; against each reference they are one family.
        seed: of the resampling.

    Returns:
        A row for each metric, group and checkpoint: what the checkpoint was trained on of the group (`seen`),
        the value with its 95 % interval over images (Wilson's for shares under one condition, else the
        bootstrap's), and for each reference the paired difference with its own, a p-value adjusted over the
        table, and a verdict.
    """
    against = {
        reference: differences(
            data, groups, reference, n_classes=n_classes, margins=margins, primary=primary, seed=seed
        )
        for reference in REFERENCES
    }
    counts = statistics.resample_counts(data.sizes["image"], seed=seed)
    rows = []
    for metric in per_image_metrics(data, n_classes=n_classes):
        for group, members in groups.items():
            under = pooled(metric, group, members)
            for checkpoint in TRAINED_ON:
                values = under.values.sel(checkpoint=checkpoint, condition=group).values
                if not np.isfinite(values).any():
                    continue
                low, high = interval(values, counts, under)
                row = {
                    "metric": metric.name,
                    "condition": group,
                    "n_conditions": len(members),
                    "checkpoint": checkpoint,
                    "seen": seen(checkpoint, group),
                    "value": np.nanmean(values),
                    "ci_low": low,
                    "ci_high": high,
                }
                for rows_of in against.values():
                    if (key := (metric.name, group, checkpoint)) in rows_of.index:
                        row |= rows_of.loc[key].to_dict()
                rows.append(row | {"n_images": int(np.isfinite(values).sum())})
    found = pd.DataFrame(rows)
    return found[[*found.columns.drop("n_images"), "n_images"]].assign(
        margin=found["metric"].map(dict(margins or {}))
    )


def differences(
    data: xr.Dataset,
    groups: Mapping[str, Sequence[str]],
    reference: str,
    *,
    n_classes: int | None,
    margins: Mapping[str, float] | None,
    primary: Sequence[str],
    seed: int,
) -> pd.DataFrame:
    """The paired differences from a reference, by metric, group and checkpoint."""
    # The base is no fine-tune: its difference from the control is the control's from the base.
    compared = [name for name in TRAINED_ON if name != "base" or name == reference]
    there = {metric.name for metric in per_image_metrics(data, n_classes=n_classes)}
    summary = summarize(
        data.sel(checkpoint=compared),
        reference=reference,
        n_classes=n_classes,
        primary=[name for name in primary if name in there],
        margins={name: margin for name, margin in (margins or {}).items() if name in there},
        pools=groups,
        pools_only=True,
        seed=seed,
    )
    named = {
        "difference": f"difference_from_{reference}",
        "ci_low": f"from_{reference}_low",
        "ci_high": f"from_{reference}_high",
        "p_adjusted": f"from_{reference}_p",
        "verdict": f"from_{reference}_verdict",
    }
    indexed = summary.rename(columns=named).set_index(["metric", "condition", "checkpoint"])
    return indexed[[*named.values()]]


def interval(values: np.ndarray, counts: np.ndarray, metric: Metric) -> tuple[float, float]:
    """The 95 % interval over images of a metric's mean."""
    if metric.is_proportion:
        known = values[np.isfinite(values)]
        found = binomtest(int(known.sum()), len(known)).proportion_ci(method="wilson")
        return found.low, found.high
    low, high = statistics.mean_interval(values[:, None], counts, reach=metric.reach)
    ends = np.array([low[0], high[0]])
    if metric.unit in ("share", "probability"):
        ends = ends.clip(0, 1)
    return float(ends[0]), float(ends[1])


def seen(checkpoint: str, group: str) -> str:
    """What the checkpoint's training has seen of a group: "clean", "seen", "family" or "unseen"."""
    recipe, _, kin = group.partition("_")
    if group == "clean" or recipe not in TRAINED_ON[checkpoint]:
        return "clean" if group == "clean" else "unseen"
    return "family" if kin else "seen"


def show(rows: pd.DataFrame, groups: Mapping[str, Sequence[str]]) -> None:
    """Accuracy and probability on the terminal: values, then differences from the control."""
    print()
    for group, members in groups.items():
        print(f"{group}: {', '.join(members)}")
    for metric in ("top1_accuracy", "correct_probability"):
        part = rows[rows["metric"] == metric]
        values = [f"{row.value:.3f} [{row.ci_low:.3f}, {row.ci_high:.3f}]" for row in part.itertuples()]
        print(f"\n{metric} of {part['n_images'].iloc[0]} held-out images, 95 % interval")
        print(wide(part, values))
        compared = part[~part["checkpoint"].isin(REFERENCES)]
        mark = compared["from_control_verdict"].map({"changed": "*", "equivalent": "="}).fillna(" ")
        cells = [
            f"{'seen ' if row.seen == 'seen' else ''}{row.difference_from_control:+.3f} "
            f"[{row.from_control_low:+.3f}, {row.from_control_high:+.3f}] {sign}"
            for row, sign in zip(compared.itertuples(), mark, strict=True)
        ]
        print(f"\n{metric}, difference from the control; * changed, = equivalent")
        print(wide(compared, cells))


def wide(part: pd.DataFrame, cells: Sequence[str]) -> str:
    """Conditions down, checkpoints across."""
    spread_out = part.assign(cell=cells).pivot(index="condition", columns="checkpoint", values="cell")
    ordered = spread_out.loc[part["condition"].unique(), part["checkpoint"].unique()]
    return str(ordered.rename_axis(index=None, columns=None).to_string())
