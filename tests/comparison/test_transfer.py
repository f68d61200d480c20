"""Transfer: gains on seen against unseen conditions, and shares of gaps, written out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from vitlens.comparison.intervals import mean_interval
from vitlens.comparison.proportions import tango_interval
from vitlens.comparison.statistics import holm, resample_counts, sign_flip_p, sign_flips
from vitlens.comparison.summary import summarize
from vitlens.comparison.transfer import transfer
from vitlens.errors import ComparisonError

DIMS = ("checkpoint", "condition", "image")
CONDITIONS = ["clean", "blur@3", "blur@5", "noise@3", "jpeg@3"]
GROUPS = {"seen": ["blur@3", "blur@5"], "unseen": ["noise@3", "jpeg@3"]}


def made(n_images: int = 120, seed: int = 0, seen_gain: float = 0.2, unseen_gain: float = 0.05) -> xr.Dataset:
    """Corruptions take 0.3, training gives some of it back, more under the seen ones."""
    rng = np.random.default_rng(seed)
    easy = rng.uniform(0.4, 0.9, n_images)
    loss = np.array([0, 0.3, 0.4, 0.3, 0.2])[:, None]
    gain = np.array([0, seen_gain, seen_gain, unseen_gain, unseen_gain])[:, None]
    noise = 0.1 * rng.normal(size=(3, 5, n_images))
    base = easy - loss + noise[0]
    values = np.stack([base, base + gain + noise[1], base + noise[2]])
    return xr.Dataset(
        {
            "correct_probability": (DIMS, values),
            "rank": (DIMS, (values < 0.35).astype(int)),
            "entropy_nats": (DIMS, -values),
            "map": ((*DIMS, "layer"), values[..., None]),
        },
        {"checkpoint": ["base", "tuned", "control"], "condition": CONDITIONS},
    )


def one(table: pd.DataFrame, **where) -> pd.Series:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1
    return table.iloc[0]


@pytest.fixture(scope="module")
def data():
    return made()


@pytest.fixture(scope="module")
def table(data):
    return transfer(data, **GROUPS, n_classes=10, n_resamples=600)


def means(data, metric, checkpoint, conditions):
    return data[metric].sel(checkpoint=checkpoint, condition=conditions).mean("condition").values


def test_rows_are_each_condition_either_group_and_their_difference(table):
    part = table[(table["metric"] == "correct_probability") & (table["checkpoint"] == "tuned")]
    assert part["condition"].tolist() == [*CONDITIONS[1:], "seen", "unseen", "seen - unseen"]
    assert part["exposure"].tolist() == [
        "seen", "seen", "unseen", "unseen", "seen", "unseen", "seen - unseen"
    ]  # fmt: skip
    assert set(table["metric"]) == {"top1_accuracy", "correct_probability"}
    assert set(table["checkpoint"]) == {"tuned", "control"}
    assert set(table["reference"]) == {"base"}
    assert (table["n"] == 120).all()
    assert table.attrs["level"] == 0.95


def test_the_difference_of_differences_is_paired_over_images(data, table):
    contrasts = []
    for checkpoint in ("tuned", "control"):
        gains = {
            group: means(data, "correct_probability", checkpoint, names)
            - means(data, "correct_probability", "base", names)
            for group, names in GROUPS.items()
        }
        contrast = gains["seen"] - gains["unseen"]
        contrasts.append(contrast)
        row = one(table, metric="correct_probability", checkpoint=checkpoint, condition="seen - unseen")
        assert row["gain"] == pytest.approx(contrast.mean())
        low, high = mean_interval(contrast[:, None], resample_counts(120, 600))
        assert (row["ci_low"], row["ci_high"]) == pytest.approx((low[0], high[0]))
        for group in GROUPS:
            row = one(table, metric="correct_probability", checkpoint=checkpoint, condition=group)
            assert row["gain"] == pytest.approx(gains[group].mean())
    assert contrasts[0].mean() > 0.1


def test_only_the_differences_are_tested_and_adjusted_together(data, table):
    rows = table[table["exposure"] == "seen - unseen"]
    assert table.loc[table["exposure"] != "seen - unseen", "p_adjusted"].isna().all()
    p = []
    for metric, values in (
        ("top1_accuracy", (data["rank"] < 1).astype(float)),
        ("correct_probability", data["correct_probability"]),
    ):
        assert metric in set(rows["metric"])
        for checkpoint in ("tuned", "control"):
            gain = values.sel(checkpoint=checkpoint) - values.sel(checkpoint="base")
            contrast = (
                gain.sel(condition=GROUPS["seen"]).mean("condition")
                - gain.sel(condition=GROUPS["unseen"]).mean("condition")
            ).values
            p.append(sign_flip_p(contrast[:, None], sign_flips(120, 600))[0])
    np.testing.assert_allclose(rows["p_adjusted"], holm(np.array(p)), rtol=1e-5)
    t = stats.ttest_1samp(contrast, 0).pvalue
    assert p[-1] == pytest.approx(t, abs=0.05)


def test_the_share_closed_is_the_ratio_of_the_gain_to_the_gap(data, table):
    values = data["correct_probability"].mean("image")
    for condition in CONDITIONS[1:]:
        row = one(table, metric="correct_probability", checkpoint="tuned", condition=condition)
        at = values.sel(condition=condition)
        gap = float(values.sel(checkpoint="base", condition="clean") - at.sel(checkpoint="base"))
        assert row["gap"] == pytest.approx(gap)
        assert row["gap_closed"] == pytest.approx(
            float(at.sel(checkpoint="tuned") - at.sel(checkpoint="base")) / gap
        )
        assert row["gap_closed_ci_low"] < row["gap_closed"] < row["gap_closed_ci_high"]
    shares = {
        group: one(table, metric="correct_probability", checkpoint="tuned", condition=group)
        for group in GROUPS
    }
    assert shares["seen"]["gap_closed"] == pytest.approx(shares["seen"]["gain"] / shares["seen"]["gap"])
    contrast = one(table, metric="correct_probability", checkpoint="tuned", condition="seen - unseen")
    assert contrast["gap_closed"] == pytest.approx(
        shares["seen"]["gap_closed"] - shares["unseen"]["gap_closed"]
    )
    assert contrast["gap_closed_ci_low"] < contrast["gap_closed"] < contrast["gap_closed_ci_high"]
    assert np.isnan(contrast["gap"])


def test_accuracy_under_one_condition_has_tangos_interval(data, table):
    right = data["rank"].sel(condition="noise@3") < 1
    before, after = right.sel(checkpoint="base").values, right.sel(checkpoint="tuned").values
    row = one(table, metric="top1_accuracy", checkpoint="tuned", condition="noise@3")
    expected = tango_interval(
        np.array((after & ~before).sum()), np.array((before & ~after).sum()), np.array(120)
    )
    assert (row["ci_low"], row["ci_high"]) == pytest.approx([float(bound) for bound in expected])
    clean = data["rank"].sel(condition="clean", checkpoint="base").values < 1
    expected = tango_interval(
        np.array((clean & ~before).sum()), np.array((before & ~clean).sum()), np.array(120)
    )
    assert (row["gap_ci_low"], row["gap_ci_high"]) == pytest.approx([float(bound) for bound in expected])


def test_a_ceiling_hides_in_the_gain_what_the_share_shows():
    """Both groups are won back whole; the unseen corruption took little."""
    rng = np.random.default_rng(1)
    clean = 0.9 + 0.02 * rng.normal(size=200)
    base = np.stack([clean, clean - 0.5, clean - 0.1]) + 0.02 * rng.normal(size=(3, 200))
    tuned = np.stack([clean] * 3) + 0.02 * rng.normal(size=(3, 200))
    data = xr.Dataset(
        {"correct_probability": (DIMS, np.stack([base, tuned]))},
        {"checkpoint": ["base", "tuned"], "condition": ["clean", "blur", "jpeg"]},
    )
    row = one(transfer(data, seen=["blur"], unseen=["jpeg"]), condition="seen - unseen")
    assert row["ci_low"] > 0.35
    assert row["gap_closed_ci_low"] < 0 < row["gap_closed_ci_high"]
    assert abs(row["gap_closed"]) < 0.1


def test_there_is_no_share_of_a_gap_that_is_not_shown_to_be_open():
    data = made()
    data["correct_probability"][0, 4] = data["correct_probability"][0, 0].values[::-1]
    found = transfer(data, seen=["blur@3"], unseen=["jpeg@3"], metrics=["correct_probability"])
    row = one(found, checkpoint="tuned", condition="jpeg@3")
    assert row["gap_ci_low"] < 0 < row["gap_ci_high"]
    assert np.isnan([row["gap_closed_ci_low"], row["gap_closed_ci_high"]]).all()
    assert np.isnan(one(found, checkpoint="tuned", condition="seen - unseen")["gap_closed_ci_low"])
    assert one(found, checkpoint="tuned", condition="blur@3")["gap_closed_ci_low"] > 0


def test_intervals_cover_the_true_difference_and_share():
    n_trials, held = 200, np.zeros(2)
    for seed in range(n_trials):
        found = transfer(
            made(60, seed),
            seen=["blur@3"],
            unseen=["noise@3"],
            metrics=["correct_probability"],
            n_resamples=200,
        )
        contrast = one(found, checkpoint="tuned", condition="seen - unseen")
        share = one(found, checkpoint="tuned", condition="blur@3")
        held += (
            contrast["ci_low"] < 0.15 < contrast["ci_high"],
            (share["gap_closed_ci_low"] < 2 / 3 < share["gap_closed_ci_high"]),
        )
    assert (held / n_trials > 0.92).all()
    assert (held / n_trials < 0.98).all()


def test_without_the_clean_images_there_are_gains_alone(data):
    found = transfer(
        data.isel(condition=slice(1, None)), **GROUPS, clean=None, metrics=["correct_probability"]
    )
    assert found["gain"].notna().all()
    assert found.filter(like="gap").isna().all(axis=None)


def test_an_image_missing_anywhere_is_left_out_everywhere():
    data = made()
    data["correct_probability"][0, 0, :2] = np.nan
    data["correct_probability"][1, 3, 5] = np.nan
    data["correct_probability"][2] = np.nan
    found = transfer(data, **GROUPS, metrics=["correct_probability"])
    assert set(found.loc[found["checkpoint"] == "tuned", "n"]) == {117}
    kept = data["correct_probability"].isel(image=[2, 3, 4, *range(6, 120)]).sel(condition="blur@3")
    row = one(found, checkpoint="tuned", condition="blur@3")
    assert row["gain"] == pytest.approx(float(kept[1].mean() - kept[0].mean()))
    empty = found[found["checkpoint"] == "control"]
    assert (empty["n"] == 0).all()
    assert (
        empty[["gain", "ci_low", "p_adjusted", "gap", "gap_closed", "gap_closed_ci_low"]]
        .isna()
        .all(axis=None)
    )


def test_the_numbers_depend_on_the_seed_alone(data):
    first, again, other = (transfer(data, **GROUPS, n_resamples=100, seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert not first.equals(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seen": []}, r"pool 'seen' is \[\].*list of conditions"),
        ({"unseen": ["nose@3"]}, r"'unseen' names 'nose@3', which is no condition.*Nearest: 'noise@3'"),
        ({"unseen": ["blur@3"]}, r"seen has 'blur@3', which is unseen too.*Leave it in one"),
        ({"seen": ["clean"]}, r"seen has 'clean', which is clean too"),
        ({"clean": "klean"}, r"clean is 'klean', which is no condition.*clean=None"),
        ({"reference": "bose"}, r"reference names 'bose'.*Nearest: 'base'"),
        ({"metrics": ["map"]}, r"metrics names 'map', which is no scalar metric"),
        ({"level": 95}, r"level is 95"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(data, options, message):
    with pytest.raises(ComparisonError, match=message):
        transfer(data, **GROUPS | options)


def test_one_checkpoint_has_nothing_to_transfer(data):
    with pytest.raises(ComparisonError, match=r"one checkpoint, 'base'.*before training and one after"):
        transfer(data.isel(checkpoint=[0]), **GROUPS)


def test_a_group_has_the_interval_of_the_same_pool_in_a_summary_with_missing_images_too(data):
    holed = data.copy(deep=True)
    holed["correct_probability"][1, :, :9] = np.nan
    options = {"n_classes": 10, "n_resamples": 300}
    row = one(
        transfer(holed, **GROUPS, metrics=["correct_probability"], **options),
        checkpoint="tuned",
        condition="seen",
    )
    same = one(
        summarize(holed, pools=GROUPS, **options),
        metric="correct_probability",
        checkpoint="tuned",
        condition="seen",
    )
    assert row["n"] == same["n"] == 111
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((same["ci_low"], same["ci_high"]), rel=1e-5)
