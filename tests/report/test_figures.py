"""The figures show the data's own values, and only where there are data."""

import dataclasses
import types

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy.stats import binomtest

from vitlens import report

ORDER = [
    "accuracy",
    "correct_probability",
    "entropy_nats",
    "first_correct_layer",
    "lens_accuracy",
    "lens_probability",
    "last_change_layer",
    "attention_entropy",
    "attention_entropy_difference",
    "attention_maps",
    "feature_similarity",
    "corruption_spectra",
]


def named(figure, name):
    return [trace for trace in figure.data if trace.name == name]


@pytest.fixture(scope="module")
def deit_figures(deit_comparison):
    return report.figures(deit_comparison)


def test_all_figures_are_there_in_order(figures, deit_figures):
    assert list(figures) == ORDER
    assert list(deit_figures) == ORDER


@pytest.mark.parametrize(
    ("variable", "names"),
    [
        ("rank", ["accuracy"]),
        ("correct_probability", ["correct_probability"]),
        ("lens_rank", ["lens_accuracy"]),
        ("attention_entropy_nats", ["attention_entropy", "attention_entropy_difference"]),
    ],
)
def test_a_figure_is_drawn_where_its_data_are_there(comparison, variable, names):
    less = dataclasses.replace(comparison, data=comparison.data[[variable]], examples=None, features=None)
    assert list(report.figures(less, comparison.summary())) == names


def test_examples_and_features_are_shown_only_where_there_are_any(comparison):
    less = dataclasses.replace(comparison, data=comparison.data[["rank"]])
    assert list(report.figures(less)) == [
        "accuracy",
        "attention_maps",
        "feature_similarity",
        "corruption_spectra",
    ]
    assert list(report.figures(dataclasses.replace(less, examples=None, features=None))) == ["accuracy"]


def test_accuracy_shows_means_and_wilson_intervals(comparison, figures):
    rank = comparison.data["rank"]
    for checkpoint in rank["checkpoint"].values:
        panels = named(figures["accuracy"], checkpoint)
        assert len(panels) == 2  # of ten classes, top 10 is no question
        for k, trace in zip((1, 5), panels, strict=True):
            hits = (rank.sel(checkpoint=checkpoint) < k).sum("image").values
            np.testing.assert_allclose(trace.x, hits / 2)
            for index, hit in enumerate(hits):
                interval = binomtest(int(hit), 200).proportion_ci(method="wilson")
                assert trace.x[index] + trace.error_x.array[index] == pytest.approx(100 * interval.high)
                assert trace.x[index] - trace.error_x.arrayminus[index] == pytest.approx(100 * interval.low)


def test_accuracy_shows_the_ks_that_the_summary_has(comparison):
    few = comparison.data[["rank"]] * 0  # all right: the values tell of one class
    parts = {"data": few, "reference": "base", "examples": None, "features": None, "class_names": None}
    made = types.SimpleNamespace(**parts, provenance={}, summary=comparison.summary)
    for n_classes, n_panels in ((10, 2), (1000, 3), (5, 1)):
        made.n_classes = n_classes
        assert len(named(report.figures(made)["accuracy"], "base")) == n_panels


def test_top_ten_is_shown_where_there_are_more_classes(deit_figures):
    accuracy = deit_figures["accuracy"]
    assert len(named(accuracy, accuracy.data[0].name)) == 3


def test_first_correct_layer_counts_the_never_correct_and_shows_their_share(comparison, figures):
    values = comparison.data["first_correct_layer"]
    for checkpoint in values["checkpoint"].values:
        mean, never = named(figures["first_correct_layer"], checkpoint)
        here = values.sel(checkpoint=checkpoint)
        np.testing.assert_allclose(mean.x, here.fillna(7).mean("image"))
        np.testing.assert_allclose(never.x, 100 * here.isnull().mean("image"))


def test_lens_accuracy_is_the_share_of_rank_zero_at_each_place(comparison, figures):
    right = (comparison.data["lens_rank"] == 0).mean("image") * 100
    for checkpoint in right["checkpoint"].values:
        traces = named(figures["lens_accuracy"], checkpoint)
        for condition, trace in zip(right["condition"].values, traces, strict=True):
            np.testing.assert_allclose(trace.y, right.sel(checkpoint=checkpoint, condition=condition))


def test_entropy_is_the_mean_and_its_difference_is_paired(comparison, figures):
    means = comparison.data["attention_entropy_nats"].mean("image").sel(condition="clean", query_kind="cls")
    for trace in figures["attention_entropy"].data[:3]:
        np.testing.assert_allclose(trace.z, means.sel(checkpoint=trace.name), rtol=1e-5)
    for trace in figures["attention_entropy_difference"].data[:2]:
        wanted = means.sel(checkpoint=trace.name) - means.sel(checkpoint="base")
        np.testing.assert_allclose(trace.z, wanted, atol=1e-5)


def test_marked_heads_are_those_that_survive_correction(comparison, figures):
    rows = comparison.summary()
    rows = rows[(rows["metric"] == "attention_entropy_nats[cls]") & (rows["condition"] == "clean")]
    for trace in figures["attention_entropy_difference"].data[:2]:
        marked = {(layer, head) for layer, head in np.argwhere(np.isin(trace.text, ["▲", "▼"]))}
        survive = rows[(rows["checkpoint"] == trace.name) & (rows["p_adjusted"] < 0.05)]
        assert marked == set(zip(survive["layer"], survive["head"], strict=True))


def test_a_checkpoint_keeps_its_color_and_no_two_share_one(figures):
    seen = {}
    for name in ("accuracy", "first_correct_layer", "lens_accuracy"):
        for trace in figures[name].data:
            if trace.name:
                seen.setdefault(trace.name, set()).add(trace.marker.color or trace.line.color)
    assert all(len(colors) == 1 for colors in seen.values())
    assert len(set.union(*seen.values())) == 3


def test_nothing_is_told_apart_by_color_alone(figures):
    symbols = {trace.name: trace.marker.symbol for trace in figures["accuracy"].data}
    dashes = {trace.name: trace.line.dash for trace in figures["lens_accuracy"].data if trace.name}
    assert len(set(symbols.values())) == len(set(dashes.values())) == 3


def test_every_axis_says_what_it_shows(figures):
    for name in ORDER:
        if name == "attention_maps":  # pictures have no scale; their color bar has
            continue
        figure = figures[name]
        said = [axis.title.text for axis in (*figure.select_xaxes(), *figure.select_yaxes())]
        assert any(said), name
    assert "resid_layer" in {axis.title.text for axis in figures["lens_accuracy"].select_xaxes()}
    assert "accuracy (%)" in {axis.title.text for axis in figures["accuracy"].select_xaxes()}


def test_every_figure_says_how_many_images_it_shows(figures):
    for name in ORDER[:-3]:
        assert "200 images" in figures[name].layout.title.subtitle.text, name
    assert "3 example images" in figures["attention_maps"].layout.title.subtitle.text


def test_feature_similarity_shows_the_pair_beside_both_ends_of_the_null(comparison, figures):
    names = {trace.name for trace in figures["feature_similarity"].data if trace.name}
    assert {"base → tuned on blur", "two seeds of one checkpoint", "unrelated model"} <= names
    rows = comparison.features
    of_pair = rows[(rows["kind"] == "vanilla") & (rows["checkpoint_b"] == "tuned on blur")]
    of_pair = of_pair[of_pair["role"] == "checkpoints"]["decoder_cosine"].to_numpy()
    trace = named(figures["feature_similarity"], "base → tuned on blur")[0]
    wanted = [100 * (of_pair <= x).mean() for x in trace.x]
    np.testing.assert_allclose(trace.y, wanted, atol=1e-9)


def test_attention_maps_show_the_last_layers_mean_over_heads(comparison, figures):
    maps = comparison.examples["attention_map"].isel(layer=-1, image=0).sel(condition="clean").mean("head")
    shown = {
        trace.name: trace for trace in reversed(figures["attention_maps"].data) if trace.type == "heatmap"
    }
    for checkpoint in maps["checkpoint"].values:
        np.testing.assert_allclose(
            np.asarray(shown[checkpoint].z, float), 100 * maps.sel(checkpoint=checkpoint), atol=0.06
        )


def test_the_figures_are_plotlys_own(figures):
    assert all(isinstance(figure, go.Figure) for figure in figures.values())
