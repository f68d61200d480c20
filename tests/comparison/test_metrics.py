"""Metrics that a comparison's data hold: their values, names, order and what is none."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from vitlens.comparison.metrics import per_image_metrics
from vitlens.errors import ComparisonError

DIMS = ("checkpoint", "condition", "image")
SIZES = {
    "checkpoint": 2,
    "condition": 3,
    "image": 7,
    "layer": 4,
    "resid_layer": 5,
    "head": 2,
    "query_kind": 2,
}


def random_data(*names: str, seed: int = 0) -> xr.Dataset:
    """Random values of the built-in variables named."""
    rng = np.random.default_rng(seed)
    further = {
        "lens_rank": ("resid_layer",),
        "attention_entropy_nats": ("layer", "head", "query_kind"),
    }

    def draw(name: str) -> xr.DataArray:
        dims = DIMS + further.get(name, ())
        shape = [SIZES[dim] for dim in dims]
        if name in ("rank", "lens_rank", "label", "predicted"):
            return xr.DataArray(rng.integers(20, size=shape), dims=dims)
        if name == "first_correct_layer":
            return xr.DataArray(rng.choice([0.0, 2.0, 4.0, np.nan], size=shape), dims=dims)
        return xr.DataArray(rng.random(shape, dtype=np.float32), dims=dims)

    data = xr.Dataset({name: draw(name) for name in names})
    return data.assign_coords(query_kind=["cls", "patch"]) if "query_kind" in data.dims else data


def by_name(data: xr.Dataset, **options) -> dict:
    return {metric.name: metric for metric in per_image_metrics(data, **options)}


def test_accuracies_count_ranks_below_k():
    data = random_data("rank")
    metrics = by_name(data)
    assert list(metrics) == ["top1_accuracy", "top5_accuracy", "top10_accuracy"]
    for k in (1, 5, 10):
        metric = metrics[f"top{k}_accuracy"]
        np.testing.assert_array_equal(metric.values, data["rank"].values < k)
        assert metric.is_proportion
        assert f"{k} most probable" in metric.description


@pytest.mark.parametrize(
    ("n_classes", "kept"), [(None, [1, 5, 10]), (11, [1, 5, 10]), (10, [1, 5]), (5, [1]), (2, [1]), (1, [])]
)
def test_accuracy_among_all_classes_is_left_out(n_classes, kept):
    assert list(by_name(random_data("rank"), n_classes=n_classes)) == [f"top{k}_accuracy" for k in kept]


def test_a_missing_rank_is_a_missing_answer_and_not_a_wrong_one():
    data = random_data("rank")
    data["rank"] = data["rank"].astype(float)
    data["rank"][0, 0, 0] = np.nan
    values = by_name(data)["top1_accuracy"].values
    assert np.isnan(values[0, 0, 0])
    assert int(values.isnull().sum()) == 1


@pytest.mark.parametrize("axis", ["resid_layer", "layer"])
def test_never_correct_counts_as_one_place_after_the_last(axis):
    data = random_data(
        "first_correct_layer", "lens_rank" if axis == "resid_layer" else "attention_entropy_nats"
    )
    metrics = by_name(data)
    never = np.isnan(data["first_correct_layer"].values)
    expected = np.where(never, SIZES["layer"] + 1, data["first_correct_layer"].values)
    np.testing.assert_array_equal(metrics["first_correct_layer"].values, expected)
    np.testing.assert_array_equal(metrics["never_correct_share"].values, never)
    assert metrics["never_correct_share"].is_proportion
    assert not metrics["first_correct_layer"].is_proportion


def test_first_correct_layer_without_an_axis_of_layers_is_refused():
    with pytest.raises(ComparisonError, match=r"no axis of layers.*resid_layer or layer\. Keep lens_rank"):
        per_image_metrics(random_data("first_correct_layer"))


def test_each_query_kind_is_a_map_of_its_own():
    data = random_data("attention_entropy_nats")
    metrics = by_name(data)
    assert list(metrics) == ["attention_entropy_nats[cls]", "attention_entropy_nats[patch]"]
    for kind in ("cls", "patch"):
        metric = metrics[f"attention_entropy_nats[{kind}]"]
        np.testing.assert_array_equal(metric.values, data["attention_entropy_nats"].sel(query_kind=kind))
        assert metric.values.dims == (*DIMS, "layer", "head")
        assert metric.is_map
        assert metric.unit == "nats"
        assert kind in metric.description


def test_metrics_come_in_the_order_of_the_study_whatever_the_order_of_the_variables():
    names = [
        "own",
        "attention_entropy_nats",
        "last_change_layer",
        "lens_rank",
        "first_correct_layer",
        "entropy_nats",
        "label",
        "predicted",
        "rank",
        "correct_probability",
    ]
    assert list(by_name(random_data(*names))) == [
        "top1_accuracy",
        "top5_accuracy",
        "top10_accuracy",
        "correct_probability",
        "entropy_nats",
        "first_correct_layer",
        "never_correct_share",
        "last_change_layer",
        "attention_entropy_nats[cls]",
        "attention_entropy_nats[patch]",
        "own",
    ]


def test_a_variable_of_ones_own_is_a_metric_with_the_unit_and_words_it_brings():
    distance = xr.DataArray(
        np.zeros((2, 4, 2, 3, 7)),
        dims=("head", "layer", "checkpoint", "condition", "image"),
        attrs={"units": "patches", "long_name": "Mean distance that a head looks."},
    )
    bare = xr.DataArray(np.zeros((2, 3, 7), dtype=int), dims=DIMS)
    hit = xr.DataArray(np.ones((2, 3, 7, 2), dtype=bool), dims=(*DIMS, "head"))
    metrics = by_name(xr.Dataset({"distance": distance, "bare": bare, "hit": hit}))
    assert metrics["distance"].values.dims == (*DIMS, "layer", "head")
    assert (metrics["distance"].unit, metrics["distance"].description) == (
        "patches",
        "Mean distance that a head looks.",
    )
    assert (metrics["bare"].unit, metrics["bare"].is_map, metrics["bare"].is_proportion) == ("", False, False)
    assert (metrics["hit"].unit, metrics["hit"].is_map, metrics["hit"].is_proportion) == ("share", True, True)


def test_what_has_other_dims_or_is_no_number_is_no_metric():
    data = random_data("lens_rank", "label", "predicted").assign(
        attention=((*DIMS, "patch"), np.zeros((2, 3, 7, 4))),
        names=(DIMS, np.full((2, 3, 7), "a")),
        when=(DIMS, np.zeros((2, 3, 7), dtype="datetime64[ns]")),
        lens=((*DIMS, "layer", "resid_layer"), np.zeros((2, 3, 7, 4, 5))),
        per_checkpoint=(("checkpoint",), np.zeros(2)),
    )
    assert per_image_metrics(data) == []


def test_two_metrics_of_one_name_are_refused():
    data = random_data("rank").assign(top1_accuracy=(DIMS, np.zeros((2, 3, 7))))
    with pytest.raises(ComparisonError, match=r"2 metrics of the name 'top1_accuracy'.*Rename the variable"):
        per_image_metrics(data)


def test_the_most_that_one_image_can_change_is_one_for_shares_and_the_places_for_a_layer():
    data = random_data("rank", "correct_probability", "entropy_nats", "first_correct_layer", "lens_rank")
    reach = {name: metric.reach for name, metric in by_name(data).items()}
    assert reach["top1_accuracy"] == reach["correct_probability"] == reach["never_correct_share"] == 1
    assert reach["first_correct_layer"] == SIZES["layer"] + 1
    assert reach["entropy_nats"] == np.ptp(data["entropy_nats"].values)
    data["entropy_nats"][:] = np.nan
    assert by_name(data)["entropy_nats"].reach == 0
