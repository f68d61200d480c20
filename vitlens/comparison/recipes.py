"""Several seeds of one recipe: how far its checkpoints lie apart, beside the interval of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import special

from .. import names
from ..errors import ComparisonError
from ..images.values import is_real

_PLACE = ["metric", "condition", "layer", "head", "reference"]
_COLUMNS = [
    "recipe",
    *_PLACE,
    "value_reference",
    "value",
    "difference",
    "seed_sd",
    "ci_low",
    "ci_high",
    "new_seed_low",
    "new_seed_high",
    "within_ci_low",
    "within_ci_high",
    "n_seeds",
    "n",
]


def across_seeds(
    summary: pd.DataFrame, recipes: Mapping[str, Sequence[str]], *, level: float | None = None
) -> pd.DataFrame:
    """What a recipe does, over the seeds it was trained with: the spread that one checkpoint cannot show.

    An interval over images says how surely *these weights* differ from the reference. Whether training again
    would differ in the same way is another question, and its sampling units are the runs. Two intervals
    answer it, both by Student's t over the seeds' differences on these images: one for the recipe's mean, and
    a wider one in which the difference of one more run should lie.

    Args:
        summary: of `summarize`, with a checkpoint for each seed.
        recipes: name -> its checkpoints, which differ in their seed and in nothing else; two or more each.
        level: of the intervals; None takes that of the summary.

    Returns:
        For each recipe a row for each metric, condition, layer and head: recipe, metric, condition, layer,
        head, reference, value_reference, value, difference (means over seeds), seed_sd (standard deviation of
        the seeds' differences), ci_low, ci_high (of the recipe's mean), new_seed_low, new_seed_high (for one
        more seed), within_ci_low, within_ci_high (mean bounds of the seeds' own intervals over images),
        n_seeds (whose difference is known) and n (the fewest images behind one of them). With one known seed
        the spread and its intervals are NaN.

    Raises:
        ComparisonError: a recipe has fewer than two checkpoints, names one that the summary does not compare,
            or one that another recipe has; or the level is none.

    Source: for the interval of one more seed, Hahn and Meeker (1991), "Statistical intervals".

    Example:
        >>> summary = pd.DataFrame(
        ...     {
        ...         "metric": "top1_accuracy",
        ...         "condition": "clean",
        ...         "layer": pd.NA,
        ...         "head": pd.NA,
        ...         "reference": "base",
        ...         "checkpoint": ["blur_0", "blur_1", "blur_2"],
        ...         "value_reference": 0.7,
        ...         "value": [0.72, 0.74, 0.76],
        ...         "difference": [0.02, 0.04, 0.06],
        ...         "ci_low": [0.0, 0.02, 0.04],
        ...         "ci_high": [0.04, 0.06, 0.08],
        ...         "n": 900,
        ...     }
        ... )
        >>> table = across_seeds(summary, {"blur": ["blur_0", "blur_1", "blur_2"]}, level=0.95)
        >>> table[["difference", "seed_sd", "ci_low", "ci_high", "new_seed_low", "new_seed_high"]].round(3)
           difference  seed_sd  ci_low  ci_high  new_seed_low  new_seed_high
        0        0.04     0.02   -0.01     0.09        -0.059          0.139
    """
    level = summary.attrs.get("level", 0.95) if level is None else level
    _check(summary, recipes, level)
    tables = [
        _of_recipe(summary[summary["checkpoint"].isin(list(members))], level).assign(recipe=recipe)
        for recipe, members in recipes.items()
    ]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=_COLUMNS)
    table = table[_COLUMNS]
    table.attrs["level"] = level
    return table


def _of_recipe(rows: pd.DataFrame, level: float) -> pd.DataFrame:
    grouped = rows.groupby(_PLACE, sort=False, dropna=False)
    means = {
        "value_reference": "value_reference",
        "value": "value",
        "difference": "difference",
        "within_ci_low": "ci_low",
        "within_ci_high": "ci_high",
    }
    table = grouped.agg(
        **{name: (column, "mean") for name, column in means.items()},
        seed_sd=("difference", "std"),
        n_seeds=("difference", "count"),
        n=("n", "min"),
    )
    n_seeds = table["n_seeds"].to_numpy()
    known = np.maximum(n_seeds, 2)
    half = special.stdtrit(known - 1, (1 + level) / 2) * table["seed_sd"].to_numpy()
    for low, high, width in (
        ("ci_low", "ci_high", np.sqrt(1 / known)),
        ("new_seed_low", "new_seed_high", np.sqrt(1 + 1 / known)),
    ):
        table[low], table[high] = table["difference"] - half * width, table["difference"] + half * width
    return table.reset_index()


def _check(summary: pd.DataFrame, recipes: Mapping[str, Sequence[str]], level: float) -> None:
    if not is_real(level) or not 0 < level < 1:
        raise ComparisonError(
            f"level is {level!r}.",
            expected="a value between 0 and 1",
            remedy="Leave it out for the summary's.",
        )
    if not isinstance(recipes, Mapping):
        raise ComparisonError(
            f"recipes is {recipes!r}.",
            expected="a mapping from names of recipes to their checkpoints",
            remedy='Write {"blur": ["blur_0", "blur_1"]}.',
        )
    known = list(dict.fromkeys(summary["checkpoint"]))
    taken: dict[str, str] = {}
    for recipe, members in recipes.items():
        if isinstance(members, str) or not isinstance(members, Sequence) or len(set(members)) < 2:
            raise ComparisonError(
                f"The recipe {recipe!r} has the checkpoints {members!r}.",
                expected="two different checkpoints or more, of runs that differ in their seed",
                remedy="Train it again with another seed: one run cannot show how runs differ.",
            )
        for member in members:
            if member not in known:
                raise ComparisonError(
                    f"The recipe {recipe!r} names {member!r}, which this summary does not compare.",
                    expected=f"one of: {', '.join(known) or 'none, for there is none'}",
                    remedy=f"Nearest: {names.nearest(str(member), known)}." if known else "Compare it first.",
                )
            if member in taken:
                raise ComparisonError(
                    f"{member!r} is named twice, by {taken[member]!r} and by {recipe!r}.",
                    expected="each checkpoint once",
                    remedy="Leave it in the recipe that it was trained with.",
                )
            taken[member] = recipe
