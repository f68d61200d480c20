"""Several seeds of one recipe: spread and intervals over runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from vitlens.comparison.recipes import across_seeds
from vitlens.comparison.summary import summarize
from vitlens.errors import ComparisonError

DIMS = ("checkpoint", "condition", "image")
NAMES = ["base", "blur_0", "blur_1", "blur_2", "noise_0", "noise_1"]
RECIPES = {"blur": NAMES[1:4], "noise": NAMES[4:]}


@pytest.fixture(scope="module")
def summary():
    rng = np.random.default_rng(0)
    values = rng.random((1, 2, 50)) + rng.normal(0, 0.05, (6, 1, 1)) + 0.02 * rng.normal(size=(6, 2, 50))
    data = xr.Dataset(
        {
            "correct_probability": (DIMS, values),
            "attention_distance": ((*DIMS, "layer"), rng.random((6, 2, 50, 2))),
        },
        {"checkpoint": NAMES, "condition": ["clean", "fog@3"], "layer": range(2)},
    )
    return summarize(data, n_resamples=200, pools={"all": ["clean", "fog@3"]})


@pytest.fixture(scope="module")
def table(summary):
    return across_seeds(summary, RECIPES)


def test_a_row_is_the_mean_spread_and_t_interval_of_its_seeds(summary, table):
    for recipe, members in RECIPES.items():
        for condition in ("clean", "fog@3", "all"):
            where = (summary["metric"] == "correct_probability") & (summary["condition"] == condition)
            rows = summary[where & summary["checkpoint"].isin(members)]
            found = table[
                (table["recipe"] == recipe)
                & (table["metric"] == "correct_probability")
                & (table["condition"] == condition)
            ].iloc[0]
            d = rows["difference"].to_numpy()
            assert found["difference"] == pytest.approx(d.mean())
            assert found["seed_sd"] == pytest.approx(d.std(ddof=1))
            expected = stats.ttest_1samp(d, 0).confidence_interval(0.95)
            assert (found["ci_low"], found["ci_high"]) == pytest.approx(tuple(expected))
            half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) * np.sqrt(1 + 1 / len(d))
            assert found["new_seed_high"] - found["difference"] == pytest.approx(half)
            assert found["within_ci_low"] == pytest.approx(rows["ci_low"].mean())
            assert (found["n_seeds"], found["n"]) == (len(d), 50)


def test_every_metric_condition_pool_and_cell_has_a_row_for_each_recipe(table):
    assert table.groupby(["recipe", "metric"]).size().unique().tolist() == [6, 3]
    assert table["recipe"].drop_duplicates().tolist() == ["blur", "noise"]
    assert table["layer"].dtype == pd.Int64Dtype()
    assert table.attrs["level"] == 0.95
    narrower = across_seeds(summary_like(table), {"blur": ["a", "b"]}, level=0.8)
    assert narrower.attrs["level"] == 0.8


def summary_like(table):
    """Two checkpoints' rows made of a table's."""
    rows = table[
        ["metric", "condition", "layer", "head", "reference", "value_reference", "value", "difference"]
    ]
    both = [rows.assign(checkpoint=name, ci_low=0.0, ci_high=0.0, n=5) for name in "ab"]
    return pd.concat(both, ignore_index=True)


def test_the_intervals_cover_the_recipes_mean_and_one_more_seed():
    rng = np.random.default_rng(1)
    n_trials = 4000
    d = rng.normal(0.3, 0.1, (4, n_trials))
    frames = [
        pd.DataFrame(
            {
                "metric": "m", "condition": [f"c{i}" for i in range(n_trials)], "layer": pd.NA, "head": pd.NA,
                "reference": "base", "checkpoint": f"s{seed}", "value_reference": 0.0, "value": d[seed],
                "difference": d[seed], "ci_low": d[seed], "ci_high": d[seed], "n": 9,
            }
        )
        for seed in range(3)
    ]  # fmt: skip
    table = across_seeds(pd.concat(frames), {"r": ["s0", "s1", "s2"]}, level=0.95)
    assert np.mean((table["ci_low"] < 0.3) & (table["ci_high"] > 0.3)) == pytest.approx(0.95, abs=0.012)
    fourth = d[3]
    assert np.mean((table["new_seed_low"] < fourth) & (fourth < table["new_seed_high"])) == pytest.approx(
        0.95, abs=0.012
    )


def test_a_seed_without_images_does_not_count(summary):
    holed = summary.copy()
    gone = (holed["checkpoint"] == "noise_1") & (holed["metric"] == "correct_probability")
    holed.loc[gone, ["difference", "value", "value_reference", "ci_low", "ci_high"]] = np.nan
    table = across_seeds(holed, RECIPES)
    rows = table[(table["recipe"] == "noise") & (table["metric"] == "correct_probability")]
    assert (rows["n_seeds"] == 1).all()
    assert rows["difference"].notna().all()
    assert rows[["seed_sd", "ci_low", "new_seed_high"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        (
            {"blur": ["blur_0"]},
            r"recipe 'blur' has the checkpoints \['blur_0'\].*two different.*another seed",
        ),
        ({"blur": ["blur_0", "blur_0"]}, r"two different checkpoints"),
        (
            {"blur": ["blur_0", "blur_9"]},
            r"names 'blur_9', which this summary does not compare.*Nearest: 'blur",
        ),
        ({"blur": ["base", "blur_0"]}, r"names 'base', which this summary does not compare"),
        (
            {"a": ["blur_0", "blur_1"], "b": ["blur_1", "blur_2"]},
            r"'blur_1' is named twice, by 'a' and by 'b'",
        ),
    ],
)
def test_recipes_that_are_none_are_refused(summary, recipes, message):
    with pytest.raises(ComparisonError, match=message):
        across_seeds(summary, recipes)


def test_a_level_that_is_none_is_refused(summary):
    with pytest.raises(ComparisonError, match=r"level is 95\."):
        across_seeds(summary, RECIPES, level=95.0)


def test_no_recipe_gives_no_row(summary):
    assert len(across_seeds(summary, {})) == 0
