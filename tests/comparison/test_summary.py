"""The summary table: its rows against plain numpy and scipy on the same images, and its verdicts."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from vitlens.comparison.statistics import (
    holm,
    max_t_p,
    mcnemar_p,
    mean_interval,
    resample_counts,
    sign_flip_p,
    sign_flips,
    tango_interval,
)
from vitlens.comparison.summary import summarize
from vitlens.errors import ComparisonError

DIMS = ("checkpoint", "condition", "image")
COLUMNS = [
    "metric",
    "condition",
    "layer",
    "head",
    "reference",
    "checkpoint",
    "value_reference",
    "value",
    "difference",
    "ci_low",
    "ci_high",
    "p_adjusted",
    "margin",
    "verdict",
    "n",
    "effect_size",
    "effect_size_kind",
]


def made(
    checkpoints: tuple[str, ...] = ("base", "blur", "noise"),
    conditions: tuple[str, ...] = ("clean", "gaussian_blur@3"),
    n_images: int = 60,
    seed: int = 0,
) -> xr.Dataset:
    """A comparison's data whose later checkpoints are better, and look about more in block 1."""
    rng = np.random.default_rng(seed)
    shape = (len(checkpoints), len(conditions), n_images)
    skill = np.arange(len(checkpoints))[:, None, None] + rng.normal(size=(len(conditions), n_images))
    rank = np.maximum(0, np.round(3 - 2 * skill + rng.normal(size=shape))).astype(int)
    first = np.where(rank > 4, np.nan, np.minimum(rank, 3).astype(float))
    entropy = rng.random((*shape, 3, 2, 2), dtype=np.float32)
    entropy[1:, :, :, 1] += 0.5
    return xr.Dataset(
        {
            "label": (DIMS, np.zeros(shape, dtype=int)),
            "predicted": (DIMS, rank),
            "rank": (DIMS, rank),
            "correct_probability": (
                DIMS,
                stats.norm.cdf(skill + 0.3 * rng.normal(size=shape)).astype(np.float32),
            ),
            "entropy_nats": (DIMS, rng.random(shape, dtype=np.float32)),
            "lens_rank": ((*DIMS, "resid_layer"), rng.integers(5, size=(*shape, 4))),
            "first_correct_layer": (DIMS, first),
            "attention_entropy_nats": ((*DIMS, "layer", "head", "query_kind"), entropy),
        },
        coords={
            "checkpoint": list(checkpoints),
            "condition": list(conditions),
            "image": [f"image_{i}" for i in range(n_images)],
            "layer": range(3),
            "resid_layer": range(4),
            "head": range(2),
            "query_kind": ["cls", "patch"],
        },
    )


@pytest.fixture(scope="module")
def data() -> xr.Dataset:
    return made()


@pytest.fixture(scope="module")
def table(data) -> pd.DataFrame:
    return summarize(data, n_resamples=500)


def pick(table: pd.DataFrame, **where) -> pd.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def one(table: pd.DataFrame, **where) -> pd.Series:
    rows = pick(table, **where)
    assert len(rows) == 1
    return rows.iloc[0]


def scalar_differences(data: xr.Dataset, name: str, checkpoint: str, condition: str) -> np.ndarray:
    values = data[name].astype(float).sel(condition=condition)
    return (values.sel(checkpoint=checkpoint) - values.sel(checkpoint="base")).values


# The frame


def test_columns_are_the_agreed_ones_with_layers_and_heads_as_nullable_integers(table):
    assert list(table.columns) == COLUMNS
    assert table["layer"].dtype == table["head"].dtype == pd.Int64Dtype()
    assert table["n"].dtype == np.int64
    assert table.loc[table["metric"] == "entropy_nats", ["layer", "head"]].isna().all(axis=None)
    assert table["margin"].isna().all()


def test_rows_are_sorted_by_metric_condition_layer_head_and_checkpoint(table):
    metrics = [
        "top1_accuracy",
        "top5_accuracy",
        "top10_accuracy",
        "correct_probability",
        "entropy_nats",
        "first_correct_layer",
        "never_correct_share",
    ]
    cells = [(layer, head) for layer in range(3) for head in range(2)]
    expected = [
        (metric, condition, layer, head, checkpoint)
        for metric, places in [
            *((metric, [(pd.NA, pd.NA)]) for metric in metrics),
            *((f"attention_entropy_nats[{kind}]", cells) for kind in ("cls", "patch")),
        ]
        for condition in ("clean", "gaussian_blur@3")
        for layer, head in places
        for checkpoint in ("blur", "noise")
    ]
    seen = list(
        table[["metric", "condition", "layer", "head", "checkpoint"]]
        .astype(object)
        .itertuples(index=False, name=None)
    )
    assert str(seen) == str(expected)


def test_the_same_data_and_seed_give_the_same_table(data, table):
    pd.testing.assert_frame_equal(table, summarize(data, n_resamples=500))
    other = summarize(data, n_resamples=500, seed=1)
    assert (other["ci_low"] != table["ci_low"]).any()
    pd.testing.assert_series_equal(other["difference"], table["difference"])


def test_the_table_says_at_which_level_its_intervals_stand(data, table):
    assert table.attrs["level"] == 0.95
    wider = summarize(data, n_resamples=500, level=0.99)
    assert wider.attrs["level"] == 0.99
    assert (wider["ci_high"] - wider["ci_low"] > table["ci_high"] - table["ci_low"]).all()


# The figures


@pytest.mark.parametrize("checkpoint", ["blur", "noise"])
@pytest.mark.parametrize("condition", ["clean", "gaussian_blur@3"])
def test_values_are_means_over_the_images(data, table, checkpoint, condition):
    row = one(table, metric="correct_probability", checkpoint=checkpoint, condition=condition)
    values = data["correct_probability"].astype(float).sel(condition=condition)
    assert row["value"] == pytest.approx(float(values.sel(checkpoint=checkpoint).mean()))
    assert row["value_reference"] == pytest.approx(float(values.sel(checkpoint="base").mean()))
    assert row["difference"] == pytest.approx(row["value"] - row["value_reference"])
    assert row["n"] == 60

    cell = one(
        table,
        metric="attention_entropy_nats[patch]",
        checkpoint=checkpoint,
        condition=condition,
        layer=1,
        head=0,
    )
    place = {"condition": condition, "layer": 1, "head": 0, "query_kind": "patch"}
    values = data["attention_entropy_nats"].astype(float).sel(place)
    assert cell["value"] == pytest.approx(float(values.sel(checkpoint=checkpoint).mean()))
    assert cell["difference"] == pytest.approx(
        float((values.sel(checkpoint=checkpoint) - values.sel(checkpoint="base")).mean())
    )


def test_proportions_have_tangos_interval_and_the_rest_that_of_means(data, table):
    right = data["rank"] < 1
    before, after = (right.sel(checkpoint=name, condition="clean").values for name in ("base", "noise"))
    gained, lost = (after & ~before).sum(), (before & ~after).sum()
    row = one(table, metric="top1_accuracy", condition="clean", checkpoint="noise")
    expected = tango_interval(np.array(gained), np.array(lost), np.array(60))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx([float(bound) for bound in expected])

    differences = scalar_differences(data, "entropy_nats", "blur", "clean")
    row = one(table, metric="entropy_nats", condition="clean", checkpoint="blur")
    expected = mean_interval(differences[:, None], resample_counts(60, 500))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx([bound[0] for bound in expected], rel=1e-5)


def test_primary_p_values_are_adjusted_together_over_conditions_and_checkpoints(data, table):
    flips = sign_flips(60, 500)
    places = [(condition, name) for condition in ("clean", "gaussian_blur@3") for name in ("blur", "noise")]
    p = []
    for condition, checkpoint in places:
        right = data["rank"].sel(condition=condition) < 1
        before, after = right.sel(checkpoint="base").values, right.sel(checkpoint=checkpoint).values
        p.append(mcnemar_p((after & ~before).sum(keepdims=True), (before & ~after).sum(keepdims=True))[0])
    for name, fill in (("correct_probability", 0), ("first_correct_layer", 4)):
        for condition, checkpoint in places:
            differences = scalar_differences(data.fillna(fill), name, checkpoint, condition)
            p.append(sign_flip_p(differences[:, None], flips)[0])
    rows = table[table["metric"].isin(["top1_accuracy", "correct_probability", "first_correct_layer"])]
    np.testing.assert_allclose(rows["p_adjusted"], holm(np.array(p)), rtol=1e-4)


def test_map_p_values_are_adjusted_within_metric_condition_and_checkpoint(data, table):
    values = data["attention_entropy_nats"].astype(float).sel(query_kind="cls", condition="gaussian_blur@3")
    for checkpoint in ("blur", "noise"):
        differences = (values.sel(checkpoint=checkpoint) - values.sel(checkpoint="base")).values
        expected = max_t_p(differences.reshape(60, 1, 6), sign_flips(60, 500))[0]
        rows = pick(
            table,
            metric="attention_entropy_nats[cls]",
            condition="gaussian_blur@3",
            checkpoint=checkpoint,
        )
        np.testing.assert_allclose(rows["p_adjusted"], expected)
        assert (pick(rows, layer=1)["verdict"] == "changed").all()
        assert (pick(rows, layer=1)["difference"] > 0.2).all()


def test_a_metric_outside_the_primary_family_is_shown_but_not_tested(data, table):
    rows = table[table["metric"].isin(["top5_accuracy", "entropy_nats", "never_correct_share"])]
    assert rows["p_adjusted"].isna().all()
    assert (rows["verdict"] == "undecided").all()
    assert rows["ci_low"].notna().all()
    declared = summarize(data, n_resamples=500, primary=["entropy_nats"])
    assert pick(declared, metric="entropy_nats")["p_adjusted"].notna().all()
    assert pick(declared, metric="top1_accuracy")["p_adjusted"].isna().all()


def test_a_map_does_not_depend_on_how_many_conditions_are_computed_at_once(data, table, monkeypatch):
    monkeypatch.setattr("vitlens.comparison.summary._COLUMNS_AT_ONCE", 1)
    pd.testing.assert_frame_equal(table, summarize(data, n_resamples=500), rtol=1e-5)


def test_another_reference_turns_the_differences_round(data, table):
    turned = summarize(data, n_resamples=500, reference="blur")
    assert set(turned["checkpoint"]) == {"base", "noise"}
    assert set(turned["reference"]) == {"blur"}
    np.testing.assert_allclose(
        pick(turned, checkpoint="base")["difference"], -pick(table, checkpoint="blur")["difference"]
    )
    there, back = pick(table, checkpoint="blur"), pick(turned, checkpoint="base")
    is_share = there["metric"].str.contains("accuracy|share").to_numpy()
    np.testing.assert_allclose(back["ci_low"][is_share], -there["ci_high"][is_share], atol=1e-12)


# Verdicts


def shifted(shift: float, n_images: int = 400, noise: float = 0.01) -> xr.Dataset:
    rng = np.random.default_rng(5)
    base = rng.random(n_images)
    both = np.stack([base, base + shift + noise * rng.normal(size=n_images)])[:, None]
    return xr.Dataset(
        {"correct_probability": (DIMS, both)}, {"checkpoint": ["base", "tuned"], "condition": ["clean"]}
    )


@pytest.mark.parametrize(
    ("shift", "margins", "verdict"),
    [
        (0.0, None, "undecided"),
        (0.0, {"correct_probability": 0.02}, "equivalent"),
        (0.1, None, "changed"),
        (0.1, {"correct_probability": 0.02}, "changed"),
        (0.02, {"correct_probability": 0.02}, "changed"),
    ],
)
def test_equivalence_needs_a_margin_and_a_difference_well_inside_it(shift, margins, verdict):
    row = summarize(shifted(shift), margins=margins).iloc[0]
    assert row["verdict"] == verdict
    if margins:
        assert row["margin"] == 0.02
    else:
        assert np.isnan(row["margin"])


def test_a_real_difference_smaller_than_the_margin_is_equivalent():
    row = summarize(shifted(0.01), margins={"correct_probability": 0.02}).iloc[0]
    assert row["p_adjusted"] < 0.05
    assert row["verdict"] == "equivalent"


def test_equivalence_is_decided_by_the_interval_that_the_row_shows():
    data = shifted(0.01, n_images=50, noise=0.05)
    end = summarize(data).iloc[0]["ci_high"]
    for margin, verdict in ((end - 1e-6, "undecided"), (end + 1e-6, "equivalent")):
        assert summarize(data, margins={"correct_probability": margin}).iloc[0]["verdict"] == verdict


def test_exploratory_metrics_and_cells_of_maps_can_be_equivalent(data):
    margins = {"entropy_nats": 0.9, "attention_entropy_nats[cls]": 0.3}
    table = summarize(data, n_resamples=500, margins=margins)
    assert (pick(table, metric="entropy_nats")["verdict"] == "equivalent").all()
    cells = pick(table, metric="attention_entropy_nats[cls]")
    assert (pick(cells, layer=0)["verdict"] == "equivalent").all()
    assert (pick(cells, layer=1)["verdict"] == "changed").all()
    assert pick(table, metric="attention_entropy_nats[patch]")["margin"].isna().all()


def test_a_checkpoint_against_itself_changes_nothing():
    data = made(checkpoints=("base", "same"), n_images=300)
    data = xr.concat([data.isel(checkpoint=[0])] * 2, dim="checkpoint").assign_coords(
        checkpoint=["base", "same"]
    )
    table = summarize(data, n_resamples=200)
    assert (table["difference"] == 0).all()
    assert (table["verdict"] == "undecided").all()
    assert (table["p_adjusted"].dropna() == 1).all()
    given = summarize(data, n_resamples=200, margins=dict.fromkeys(table["metric"].unique(), 0.05))
    assert (given["verdict"] == "equivalent").all()


def test_noise_far_below_the_margin_is_equivalent_and_a_perturbed_checkpoint_changed():
    data = made(checkpoints=("base", "same", "worse"), n_images=400, seed=3)
    rng = np.random.default_rng(3)
    names = ("correct_probability", "entropy_nats", "attention_entropy_nats")
    for name in names:
        before = data[name].values[0]
        data[name][1] = before + 1e-3 * rng.normal(size=before.shape)
        data[name][2] = before - 0.2 + 0.1 * rng.normal(size=before.shape)
    data["rank"][:] = 0
    data["rank"][2, :, ::10] = 9
    metrics = ["correct_probability", "entropy_nats", "top1_accuracy", "attention_entropy_nats[cls]"]
    margins = dict.fromkeys(metrics, 0.02)
    table = summarize(data, n_resamples=400, margins=margins, primary=metrics[:3])
    table = table[table["metric"].isin(metrics)]
    assert (pick(table, checkpoint="same")["verdict"] == "equivalent").all()
    assert (pick(table, checkpoint="worse")["verdict"] == "changed").all()


# Effect sizes


def test_effect_sizes_are_d_z_of_means_and_cohens_g_of_proportions(data, table):
    differences = scalar_differences(data, "correct_probability", "noise", "clean")
    row = one(table, metric="correct_probability", condition="clean", checkpoint="noise")
    assert row["effect_size_kind"] == "d_z"
    assert row["effect_size"] == pytest.approx(differences.mean() / differences.std(ddof=1))
    right = (data["rank"] < 1).sel(condition="clean")
    before, after = right.sel(checkpoint="base").values, right.sel(checkpoint="noise").values
    gained, lost = (after & ~before).sum(), (before & ~after).sum()
    row = one(table, metric="top1_accuracy", condition="clean", checkpoint="noise")
    assert row["effect_size_kind"] == "cohens_g"
    assert row["effect_size"] == pytest.approx(gained / (gained + lost) - 0.5)
    assert set(pick(table, metric="attention_entropy_nats[cls]")["effect_size_kind"]) == {"d_z"}


# Several checkpoints


def test_a_trajectorys_rows_are_those_of_each_checkpoint_against_the_base():
    names = ("base", "step_100", "step_200", "step_300")
    data = made(checkpoints=names)
    whole = summarize(data, n_resamples=300)
    assert list(dict.fromkeys(whole["checkpoint"])) == list(names[1:])
    for name in names[1:]:
        alone = summarize(data.sel(checkpoint=["base", name]), n_resamples=300)
        rows = pick(whole, checkpoint=name).reset_index(drop=True)
        same = [column for column in COLUMNS if column not in ("p_adjusted", "verdict")]
        pd.testing.assert_frame_equal(rows[same], alone[same], rtol=1e-5)
        # More tests in the family: no p-value of a scalar metric falls.
        is_scalar = rows["layer"].isna() & rows["p_adjusted"].notna()
        assert (rows["p_adjusted"] >= alone["p_adjusted"] - 1e-12)[is_scalar].all()


# Few, one, none


@pytest.mark.parametrize("n_images", [1, 2, 3, 4])
def test_a_handful_of_images_is_never_equivalent_and_never_sure(n_images):
    data = made(n_images=n_images)
    metrics = summarize(data, n_resamples=50)["metric"].unique()
    table = summarize(data, n_resamples=50, margins=dict.fromkeys(metrics, 100.0))
    assert (table["verdict"] == "undecided").all()
    known = table.dropna(subset=["ci_low"])
    assert (known["ci_low"] <= known["difference"] + 1e-9).all()
    assert (known["ci_high"] >= known["difference"] - 1e-9).all()


def test_every_image_changed_alike():
    rank = np.stack([np.ones((1, 50), dtype=int), np.zeros((1, 50), dtype=int)])
    probability = np.stack([np.full((1, 50), 0.25), np.full((1, 50), 0.75)])
    table = summarize(
        xr.Dataset(
            {"rank": (DIMS, rank), "correct_probability": (DIMS, probability)},
            {"checkpoint": ["base", "tuned"], "condition": ["clean"]},
        ),
        n_classes=2,
    )
    accuracy, certainty = table.iloc[0], table.iloc[1]
    assert accuracy["ci_low"] > 0.85
    assert accuracy["ci_high"] == 1
    assert accuracy["effect_size"] == 0.5
    assert (certainty["ci_low"], certainty["ci_high"]) == pytest.approx((0.5, 0.5))
    assert np.isnan(certainty["effect_size"])
    assert set(table["verdict"]) == {"changed"}


def test_a_metric_that_goes_in_steps_is_not_called_equivalent_because_no_image_moved():
    """A change in 3 % of the images may leave 100 of them as they are."""
    first = np.full((2, 1, 100), 5.0)
    first[:, :, :50] = 2.0
    data = xr.Dataset(
        {
            "first_correct_layer": (DIMS, first),
            "lens_rank": ((*DIMS, "resid_layer"), np.zeros((2, 1, 100, 13))),
        },
        {"checkpoint": ["base", "tuned"], "condition": ["clean"]},
    )
    # Student's interval of 100 zeros and one step of 13 places in either direction.
    end = stats.ttest_1samp([*np.zeros(100), 13, -13], 0).confidence_interval().high
    for margin, verdict in ((end - 0.001, "undecided"), (end + 0.001, "equivalent")):
        table = summarize(data, margins={"first_correct_layer": margin}, n_resamples=100)
        row = one(table, metric="first_correct_layer")
        assert (row["verdict"], row["ci_high"]) == (verdict, pytest.approx(end))


def test_images_missing_in_either_checkpoint_are_left_out_of_their_rows(data):
    holed = data.copy(deep=True)
    holed["correct_probability"][0, 0, :5] = np.nan
    holed["correct_probability"][1, 0, 3:8] = np.nan
    table = summarize(holed, n_resamples=200)
    row = one(table, metric="correct_probability", condition="clean", checkpoint="blur")
    kept = data["correct_probability"].astype(float).isel(condition=0, image=slice(8, None))
    assert row["n"] == 52
    assert row["value_reference"] == pytest.approx(float(kept.sel(checkpoint="base").mean()))
    assert row["value"] == pytest.approx(float(kept.sel(checkpoint="blur").mean()))
    assert one(table, metric="correct_probability", condition="clean", checkpoint="noise")["n"] == 55
    assert (pick(table, metric="correct_probability", condition="gaussian_blur@3")["n"] == 60).all()


def test_one_checkpoint_has_no_rows_but_all_columns():
    table = summarize(made(checkpoints=("base",)))
    assert len(table) == 0
    assert list(table.columns) == COLUMNS
    assert table["layer"].dtype == pd.Int64Dtype()


def test_one_image_decides_nothing():
    margins = {"correct_probability": 0.5, "top1_accuracy": 0.99}
    table = summarize(made(n_images=1), n_resamples=200, margins=margins)
    assert (table["n"] == 1).all()
    assert (table["verdict"] == "undecided").all()
    assert (table["p_adjusted"].dropna() == 1).all()
    assert pick(table, metric="correct_probability")["ci_low"].isna().all()
    assert pick(table, metric="top1_accuracy")["ci_low"].between(-1, 0).all()


def test_a_metric_without_any_image_is_unknown(data):
    empty = data.copy(deep=True)
    empty["correct_probability"][1] = np.nan
    empty["rank"] = empty["rank"].where(empty["checkpoint"] != "blur")
    empty["attention_entropy_nats"][1, :, :, 2] = np.nan
    table = summarize(empty, n_resamples=200, margins={"correct_probability": 0.5})
    unknown = table[
        (table["checkpoint"] == "blur")
        & (
            table["metric"].isin(["correct_probability", "top1_accuracy"])
            | (table["layer"] == 2).fillna(False)
        )
    ]
    assert len(unknown) == 4 + 8
    assert (unknown["n"] == 0).all()
    assert (unknown["verdict"] == "undecided").all()
    assert (
        unknown[["value", "value_reference", "difference", "ci_low", "ci_high", "p_adjusted"]]
        .isna()
        .all(axis=None)
    )
    assert pick(table, checkpoint="noise")["difference"].notna().all()


def test_data_without_a_metric_have_no_rows():
    data = made()[["label", "lens_rank"]]
    assert list(summarize(data).columns) == COLUMNS
    assert len(summarize(data)) == 0


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": "bsae"}, r"reference names 'bsae'.*no checkpoint.*base, blur, noise.*Nearest: 'base'"),
        ({"margins": {"top1_acuracy": 0.1}}, r"margins names 'top1_acuracy'.*Nearest: 'top1_accuracy'"),
        ({"primary": ["attention_entropy_nats[cls]"]}, r"primary names 'attention.*no scalar metric"),
        ({"margins": {"top1_accuracy": 0.0}}, r"margin of top1_accuracy is 0\.0.*above 0"),
        ({"margins": {"top1_accuracy": np.nan}}, r"margin of top1_accuracy is nan.*above 0"),
        ({"level": 0.5}, r"level is 0\.5.*between 0\.5 and 1"),
        ({"level": 1.0}, r"level is 1\.0.*between 0\.5 and 1"),
        ({"n_resamples": 0}, r"n_resamples is 0.*at least 1"),
        ({"seed": -1}, r"seed is -1.*0 or more"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(data, options, message):
    with pytest.raises(ComparisonError, match=message):
        summarize(data, **options)


def test_data_without_images_are_refused(data):
    with pytest.raises(ComparisonError, match=r"no image.*checkpoint, condition, image"):
        summarize(data.isel(image=[]))
    with pytest.raises(ComparisonError, match=r"no checkpoint"):
        summarize(data.isel(checkpoint=0, drop=True))


def test_a_p_of_just_alpha_is_not_below_it():
    """1 - 0.95 is a little more than 0.05 in binary."""
    data = made(n_images=40)
    data["attention_entropy_nats"][1] = data["attention_entropy_nats"][0] + 1
    table = summarize(data, n_resamples=19)  # the least p of a map is then 1 / 20
    cells = pick(table, metric="attention_entropy_nats[cls]")
    assert cells["p_adjusted"].min() == 0.05
    assert "changed" not in set(cells["verdict"])
