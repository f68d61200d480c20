"""Pools of conditions: each image counts once."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from vitlens.comparison.intervals import mean_interval
from vitlens.comparison.statistics import resample_counts
from vitlens.comparison.summary import summarize
from vitlens.errors import ComparisonError

DIMS = ("checkpoint", "condition", "image")
CONDITIONS = ["clean", "fog@3", "snow@3", "jpeg@3"]


def made(n_images: int = 40, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    shape = (2, 4, n_images)
    return xr.Dataset(
        {
            "rank": (DIMS, rng.integers(3, size=shape)),
            "correct_probability": (DIMS, rng.random(shape)),
            "first_correct_layer": (DIMS, rng.choice([0.0, 1.0, 2.0, np.nan], size=shape)),
            "attention_distance": ((*DIMS, "layer", "head"), rng.random((*shape, 2, 3), dtype=np.float32)),
        },
        {"checkpoint": ["base", "tuned"], "condition": CONDITIONS, "layer": range(2)},
    )


def row(table: pd.DataFrame, metric: str, condition: str) -> pd.Series:
    return table[(table["metric"] == metric) & (table["condition"] == condition)].iloc[0]


def test_a_pools_row_is_that_of_the_images_means():
    data = made()
    table = summarize(data, pools={"weather": ["fog@3", "snow@3"]}, n_resamples=300)
    means = data["correct_probability"].sel(condition=["fog@3", "snow@3"]).mean("condition").values
    found = row(table, "correct_probability", "weather")
    assert found["value_reference"] == pytest.approx(means[0].mean())
    assert found["value"] == pytest.approx(means[1].mean())
    assert found["n"] == 40
    expected = mean_interval((means[1] - means[0])[:, None], resample_counts(40, 300))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx([bound[0] for bound in expected])


def test_accuracy_over_several_conditions_is_a_mean_and_under_one_a_proportion():
    data = made()
    table = summarize(data, pools={"weather": ["fog@3", "snow@3"], "jpeg": ["jpeg@3"]}, n_resamples=300)
    correct = (data["rank"] < 1).sel(condition=["fog@3", "snow@3"]).mean("condition").values
    found = row(table, "top1_accuracy", "weather")
    assert found["difference"] == pytest.approx((correct[1] - correct[0]).mean())
    expected = mean_interval((correct[1] - correct[0])[:, None], resample_counts(40, 300))
    assert (found["ci_low"], found["ci_high"]) == pytest.approx([bound[0] for bound in expected])
    assert found["effect_size_kind"] == "d_z"
    of_one, alone = row(table, "top1_accuracy", "jpeg"), row(table, "top1_accuracy", "jpeg@3")
    pd.testing.assert_series_equal(of_one.drop("condition"), alone.drop("condition"), check_names=False)
    assert of_one["effect_size_kind"] == "cohens_g"


def test_repeating_a_corruption_does_not_narrow_the_interval():
    data = made()
    twice = xr.concat([data, data.assign_coords(condition=[f"{c}b" for c in CONDITIONS])], dim="condition")
    once = summarize(data, pools={"p": ["fog@3", "snow@3"]}, primary=[])
    doubled = summarize(twice, pools={"p": ["fog@3", "snow@3", "fog@3b", "snow@3b"]}, primary=[])
    for metric in ("correct_probability", "first_correct_layer", "top1_accuracy"):
        pd.testing.assert_series_equal(
            row(once, metric, "p"), row(doubled, metric, "p"), check_names=False, rtol=1e-6
        )


def test_never_correct_counts_in_a_pool_as_elsewhere():
    data = made()
    table = summarize(data, pools={"weather": ["fog@3", "snow@3"]}, n_resamples=200)
    part = data["first_correct_layer"].sel(checkpoint="tuned", condition=["fog@3", "snow@3"])
    assert row(table, "first_correct_layer", "weather")["value"] == pytest.approx(
        float(part.fillna(3).mean())
    )
    assert row(table, "never_correct_share", "weather")["value"] == pytest.approx(float(part.isnull().mean()))


def test_maps_are_pooled_cell_by_cell_and_adjusted_by_themselves():
    data = made()
    table = summarize(data, pools={"weather": ["fog@3", "snow@3"]}, n_resamples=200)
    rows = table[(table["metric"] == "attention_distance") & (table["condition"] == "weather")]
    means = (
        data["attention_distance"]
        .sel(condition=["fog@3", "snow@3"])
        .astype(float)
        .mean(["condition", "image"])
    )
    np.testing.assert_allclose(rows["value"], means.sel(checkpoint="tuned").values.ravel())
    assert len(rows) == 6
    without = summarize(data, n_resamples=200)
    rest = table[(table["metric"] == "attention_distance") & (table["condition"] != "weather")]
    pd.testing.assert_frame_equal(
        rest.reset_index(drop=True),
        without[without["metric"] == "attention_distance"].reset_index(drop=True),
        rtol=1e-5,
    )


def test_an_image_missing_under_one_condition_is_left_out_of_the_pool_alone():
    data = made()
    data["correct_probability"][1, 1, :3] = np.nan
    table = summarize(data, pools={"p": ["fog@3", "snow@3"], "q": ["snow@3", "jpeg@3"]}, n_resamples=200)
    kept = data["correct_probability"].isel(image=slice(3, None)).sel(condition=["fog@3", "snow@3"])
    found = row(table, "correct_probability", "p")
    assert found["n"] == 37
    assert found["value_reference"] == pytest.approx(float(kept.sel(checkpoint="base").mean()))
    assert row(table, "correct_probability", "q")["n"] == 40
    assert row(table, "correct_probability", "snow@3")["n"] == 40


def test_pools_stand_after_the_conditions_of_each_metric_and_are_tested_with_them():
    data = made()
    pools = {"seen": ["fog@3"], "unseen": ["snow@3", "jpeg@3"]}
    table = summarize(data, pools=pools, n_resamples=200)
    assert table.loc[table["metric"] == "top1_accuracy", "condition"].tolist() == [
        *CONDITIONS,
        "seen",
        "unseen",
    ]
    assert table.attrs["pools"] == pools
    assert row(table, "top1_accuracy", "unseen")["p_adjusted"] > 0
    assert np.isnan(row(table, "never_correct_share", "unseen")["p_adjusted"])


def test_pooled_accuracy_is_not_called_equivalent_because_few_images_change():
    # 150 trials: a pool of two conditions under which the same 2 % of the answers are lost.
    lost = np.repeat(np.random.default_rng(1).random((150, 100)) < 0.02, 2, axis=0)
    conditions = [f"{side}{trial}" for trial in range(150) for side in "ab"]
    data = xr.Dataset(
        {"rank": (DIMS, np.stack([np.zeros_like(lost, dtype=int), lost.astype(int)]))},
        {"checkpoint": ["base", "tuned"], "condition": conditions},
    )
    pools = {f"pool_{trial}": [f"a{trial}", f"b{trial}"] for trial in range(150)}
    table = summarize(
        data, n_classes=2, pools=pools, margins={"top1_accuracy": 0.02}, primary=[], n_resamples=200
    )
    rows = table[table["condition"].isin(list(pools))]
    assert len(rows) == 150
    assert (rows["verdict"] == "equivalent").mean() <= 0.05


def test_pools_alone_leave_the_single_conditions_out_of_the_rows_and_of_the_family():
    data = made()
    pools = {"clean": ["clean"], "weather": ["fog@3", "snow@3"]}
    table = summarize(data, pools=pools, pools_only=True, n_resamples=200)
    assert table["condition"].unique().tolist() == ["clean", "weather"]
    twice = xr.concat([data, data.assign_coords(condition=[f"{c}b" for c in CONDITIONS])], dim="condition")
    pd.testing.assert_frame_equal(
        table, summarize(twice, pools=pools, pools_only=True, n_resamples=200), rtol=1e-6
    )
    with pytest.raises(ComparisonError, match=r"pools_only is given, and no pools.*Pass pools="):
        summarize(data, pools_only=True)


@pytest.mark.parametrize(
    ("pools", "message"),
    [
        ({"p": "fog@3"}, r"pool 'p' is 'fog@3'.*list of conditions"),
        ({"p": ["fog@2"]}, r"pool 'p' names 'fog@2', which is no condition.*clean, fog@3.*Nearest: 'fog@3'"),
        ({"clean": ["fog@3"]}, r"pool 'clean' is called like a condition.*Choose another"),
        ({"p": []}, r"pool 'p' is \[\].*one or more"),
        ({"p": ["fog@3", "fog@3"]}, r"pool 'p' names a condition twice: fog@3, fog@3\."),
    ],
)
def test_pools_that_say_nothing_are_refused(pools, message):
    with pytest.raises(ComparisonError, match=message):
        summarize(made(), pools=pools)
