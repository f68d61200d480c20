"""Any variable gets the figure that fits its dims, and the figure shows the variable's own values."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from vitlens import report
from vitlens.comparison.gap import gap_closed, patching_agreement
from vitlens.report.charts.behind import kept
from vitlens.report.charts.sections import SECTIONS

from .made import made_comparison, made_further

GENERIC = [
    "entropy_nats",
    "tuned_first_correct_layer",
    "tuned_lens_accuracy",
    "lens_probability",
    "last_change_layer",
    "lens_kl_nats",
    "tuned_lens_probability",
    "token_lens_probability",
    "n_artifact_tokens",
    "attention_distance_patches",
    "attention_to_registers_share",
    "attention_rollout",
    "resid_cosine",
    "probe_correct",
    "cka",
    "attribution",
    "integrated_gradients",
    "transplant_gap",
    "transplant_correct",
    "transplant_log_probability",
    "attribution_patching",
    "ablated_log_probability_change",
    "sparsity",
]


@pytest.fixture(scope="module")
def further():
    """Every kind of variable: 3 checkpoints, 2 conditions, 60 images, 3 layers, 2 heads."""
    return made_further(
        made_comparison(
            conditions=("gaussian_noise@3", "clean"), n_images=60, n_layers=3, n_heads=2, n_examples=2
        )
    )


@pytest.fixture(scope="module")
def figures(further):  # in place of the shared ones
    return report.figures(further)


def with_variable(further, name, dims, values, coords=None, **attributes):
    """The comparison with nothing but its ranks and one variable of a stranger's."""
    data = further.data[["rank"]].assign({name: (dims, values, attributes)}).assign_coords(coords or {})
    return dataclasses.replace(further, data=data, examples=None, features=None)


def only(further, *variables):
    """The comparison with some of its variables alone."""
    return dataclasses.replace(further, data=further.data[list(variables)], examples=None, features=None)


def lines(figure, checkpoint):
    return [trace for trace in figure.data if trace.name == checkpoint]


def test_every_variable_has_its_figure_and_no_variable_two(further, figures):
    assert {*GENERIC} < {*figures}
    of_the_study = {"accuracy", "correct_probability", "first_correct_layer", "lens_accuracy"}
    of_the_study |= {"attention_entropy", "attention_entropy_difference", "attention_maps"}
    assert {*figures} == {*GENERIC} | of_the_study | {"feature_similarity", "corruption_spectra"}


def test_figures_stand_section_by_section(figures):
    places = [SECTIONS.index(figure.layout.meta["section"]) for figure in figures.values()]
    assert places == sorted(places)
    assert figures["sparsity"].layout.meta["section"] == "Further"
    assert figures["attribution"].layout.meta["section"] == "Attribution"
    assert figures["attribution_patching"].layout.meta["section"] == "Causal sweep"


def test_every_figure_has_a_caption_a_number_of_images_and_an_axis(figures):
    for name in GENERIC:
        layout = figures[name].layout
        assert layout.meta["caption"].endswith("."), name
        assert "images" in layout.title.subtitle.text, name
        axes = (*figures[name].select_xaxes(), *figures[name].select_yaxes())
        assert layout.coloraxis.colorbar.title.text or any(axis.title.text for axis in axes), name


def test_a_profile_shows_means_with_students_interval(further, figures):
    values = further.data["lens_kl_nats"]
    for checkpoint in values["checkpoint"].values:
        for condition, trace in zip(
            values["condition"].values, lines(figures["lens_kl_nats"], checkpoint), strict=True
        ):
            here = values.sel(checkpoint=checkpoint, condition=condition).values.astype(float)
            np.testing.assert_allclose(trace.y, here.mean(0))
            band = next(
                other
                for other in figures["lens_kl_nats"].data
                if other.fill and other.legendgroup == trace.legendgroup and other.xaxis == trace.xaxis
            )
            n_places = here.shape[1]
            half = stats.t.ppf(0.975, 59) * stats.sem(here)
            np.testing.assert_allclose(np.asarray(band.y)[:n_places], here.mean(0) - half)
            np.testing.assert_allclose(np.asarray(band.y)[n_places:], (here.mean(0) + half)[::-1])


def test_a_profile_of_booleans_shows_percent_of_images(further, figures):
    right = 100 * further.data["probe_correct"].sel(checkpoint="base").mean("image")
    for condition, trace in zip(
        right["condition"].values, lines(figures["probe_correct"], "base"), strict=True
    ):
        np.testing.assert_allclose(trace.y, right.sel(condition=condition))
    assert "Wilson" in figures["probe_correct"].layout.meta["caption"]
    assert figures["probe_correct"].layout.yaxis.title.text == "Linear probe correct (%)"


def test_a_profile_has_a_menu_for_kinds_of_token(further, figures):
    figure = figures["resid_cosine"]
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["tokens: class token", "tokens: patches"]
    means = further.data["resid_cosine"].mean("image").sel(checkpoint="tuned on blur")
    for at, kind in enumerate(("cls", "patch")):
        seen = [
            trace
            for trace, visible in zip(figure.data, menu.buttons[at].args[0]["visible"], strict=True)
            if visible and trace.name == "tuned on blur"
        ]
        for condition, trace in zip(means["condition"].values, seen, strict=True):
            np.testing.assert_allclose(trace.y, means.sel(token_kind=kind, condition=condition), rtol=1e-6)
    assert [trace.visible for trace in figure.data] == menu.buttons[0].args[0]["visible"]


def test_a_statistic_of_the_set_is_shown_as_it_is_with_its_standard_error(further, figures):
    cka = further.data["cka"].sel(checkpoint="tuned on blur")
    figure = figures["cka"]
    for condition, trace in zip(cka["condition"].values, lines(figure, "tuned on blur"), strict=True):
        np.testing.assert_allclose(trace.y, cka.sel(condition=condition))
    band = next(trace for trace in figure.data if trace.fill)
    assert np.ptp(np.asarray(band.y).reshape(2, -1)[:, 0]) == pytest.approx(2 * 1.959964 * 0.02)
    drawn = report.figures(only(further, "cka"))["cka"]
    assert not any(trace.fill for trace in drawn.data)
    assert "no interval is known" in drawn.layout.title.subtitle.text


def test_heads_show_the_paired_difference_around_zero(further, figures):
    figure = figures["attention_to_registers_share"]
    means = 100 * further.data["attention_to_registers_share"].astype(float).mean("image")
    for trace in figure.data:
        wanted = (means.sel(checkpoint=trace.name) - means.sel(checkpoint="base")).sel(condition="clean")
        np.testing.assert_allclose(trace.z, wanted, rtol=1e-3, atol=1e-3)
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax < 0
    assert figure.layout.coloraxis.colorbar.title.text == "percentage points"


def test_heads_are_marked_by_the_summary(further):
    rows = further.summary()
    like = rows[(rows["metric"] == "attention_entropy_nats[cls]")].assign(
        metric="attention_distance_patches", p_adjusted=1.0
    )
    like.loc[
        (like["layer"] == 1) & (like["head"] == 0) & (like["checkpoint"] == "tuned on blur"), "p_adjusted"
    ] = 0.01
    distance = only(further, "attention_distance_patches")
    figure = report.figures(distance, pd.concat([rows, like]))["attention_distance_patches"]
    filled = {trace.name: np.argwhere(np.isin(trace.text, ["▲", "▼"])).tolist() for trace in figure.data}
    assert filled == {"tuned on blur": [[1, 0]], "tuned on noise": []}
    assert "max-T" in figure.layout.meta["caption"]
    assert "▲ or ▼" in figure.layout.title.subtitle.text


def test_a_difference_says_its_way_without_color(figures):
    for trace in figures["attention_distance_patches"].data:
        ups, downs = np.isin(trace.text, ["▲", "△"]), np.isin(trace.text, ["▼", "▽"])
        np.testing.assert_array_equal(ups, trace.z > 0)
        np.testing.assert_array_equal(downs, trace.z < 0)


def test_a_statistic_of_the_set_says_how_many_images_it_is_of(further):
    made = only(further, "cka")
    assert "n" not in kept(report.figures(made)["cka"])
    data = made.data.assign(cka=made.data["cka"].assign_attrs(n_images=48))
    figure = report.figures(dataclasses.replace(made, data=data))["cka"]
    assert set(kept(figure)["n"]) == {48}
    assert "48 images" in figure.data[-1].hovertext[0]


def test_components_show_the_largest_means_in_their_own_order(further, figures):
    figure = figures["attribution"]
    values = further.data["attribution"].astype(float)
    size = np.abs(values.mean("image")).max(("checkpoint", "condition"))
    labels = [str(label) for label in values["direct_component"].values]
    assert len(labels) <= 20 or len(figure.layout.yaxis.ticktext) == 20
    kept = set(size.sortby(-size)["direct_component"].values[:20])
    assert list(figure.layout.yaxis.ticktext) == [label for label in labels if label in kept]
    (trace,) = lines(figure, "tuned on noise")
    here = values.sel(checkpoint="tuned on noise", condition="clean")
    here = here.sel(direct_component=list(figure.layout.yaxis.ticktext)).transpose(
        "direct_component", "image"
    )
    np.testing.assert_allclose(trace.x, here.mean("image"))
    half = stats.t.ppf(0.975, 59) * stats.sem(here.values, axis=1)
    np.testing.assert_allclose(trace.error_x.array, half)


def test_a_components_menu_moves_the_points_to_the_condition(further, figures):
    (menu,) = figures["attribution"].layout.updatemenus
    assert [button.label for button in menu.buttons] == ["clean", "gaussian_noise@3"]
    shown = list(figures["attribution"].layout.yaxis.ticktext)
    means = (
        further.data["attribution"].mean("image").sel(direct_component=shown, condition="gaussian_noise@3")
    )
    for x, checkpoint in zip(menu.buttons[1].args[0]["x"], means["checkpoint"].values, strict=True):
        np.testing.assert_allclose(x, means.sel(checkpoint=checkpoint), rtol=1e-3)


def test_transplants_show_the_share_of_the_gap_by_layer_and_part(further, figures):
    figure = figures["transplant_gap"]
    table = gap_closed(further.data).set_index(["condition", "checkpoint", "metric", "component"])
    trace = figure.data[0]
    assert list(trace.x) == ["resid", "attn", "mlp", "H0", "H1"]
    row = table.loc["clean", trace.name, "accuracy", "2_attn_out"]
    assert trace.z[2][1] == pytest.approx(100 * row["gap_closed"])
    np.testing.assert_allclose(
        trace.customdata[2][1], 100 * row[["ci_low", "ci_high"]].astype(float), rtol=1e-3
    )
    row = table.loc["clean", trace.name, "accuracy", "L0H1"]
    assert trace.z[0][4] == pytest.approx(100 * row["gap_closed"])
    assert list(figures["transplant_correct"].layout.yaxis.ticktext) == [
        "none",
        "all",
        "feature",
        "classifier",
    ]


def test_without_a_gap_no_share_of_it_is_shown(further):
    made = only(further, "transplant_correct", "transplant_log_probability")
    same = made.data.sel(checkpoint=["base"] * 3).assign_coords(checkpoint=made.data["checkpoint"])
    drawn = report.figures(dataclasses.replace(made, data=same))
    assert "transplant_gap" not in drawn
    assert len(drawn["transplant_correct"].layout.yaxis.ticktext) == 19  # all components: there are few


def test_a_panel_without_a_gap_says_so_and_keeps_its_axes(further):
    made = only(further, "transplant_correct", "transplant_log_probability")
    data = made.data.copy(deep=True)
    for name in data:  # one checkpoint as good as the reference, whatever is put into it
        data[name].loc[{"checkpoint": "tuned on noise", "condition": "clean"}] = (
            data[name].sel(checkpoint="base", condition="clean").isel(component=0, drop=True)
        )
    figure = report.figures(dataclasses.replace(made, data=data))["transplant_gap"]
    notes = [trace for trace in figure.data if trace.type == "scatter"]
    said = [trace.text[0].replace("<br>", " ") for trace in notes]
    assert said[:2] == ["", "The gap is not told from 0."]
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        assert axis.range in ((-0.5, 2.5), (-0.5, 4.5))
    measure, condition = figure.layout.updatemenus
    assert [len(button.args[0]["visible"]) for button in measure.buttons] == [len(figure.data)] * 2
    texts = condition.buttons[1].args[0]["text"]
    assert len(texts) == len(figure.data)
    assert texts[-len(notes) :] == [[""]] * len(notes)  # under noise every gap is there


def test_patching_is_set_against_the_transplants_effect(further, figures):
    figure = figures["attribution_patching"]
    data = further.data.sel(condition="clean", checkpoint="tuned on blur").mean("image")
    (trace,) = [trace for trace in lines(figure, "tuned on blur") if trace.xaxis == "x"]
    labels = data["patching_component"].values
    exact = data["transplant_log_probability"]
    np.testing.assert_allclose(trace.x, exact.sel(component=labels) - exact.sel(component="none"))
    np.testing.assert_allclose(trace.y, data["attribution_patching"])
    table = patching_agreement(further.data).set_index(["condition", "checkpoint", "kind"])
    r = table.loc["clean", "tuned on blur", "all"]["pearson"]
    assert f"r = {r:.2f}" in figure.layout.annotations[0].text


def test_patching_alone_is_drawn_as_components(further):
    drawn = report.figures(only(further, "attribution_patching"))
    assert list(drawn["attribution_patching"].layout.yaxis.ticktext)[:2] == ["0_resid_post", "1_resid_post"]


def test_maps_stand_beside_their_pictures(further, figures):
    values = further.data["integrated_gradients"].sel(condition="clean")
    traces = [trace for trace in figures["integrated_gradients"].data if trace.visible]
    pictures = [trace for trace in traces if trace.type == "image"]
    assert [picture.opacity for picture in pictures] == [1.0, 0.0]  # of the second image none was kept
    said = [annotation.text for annotation in figures["integrated_gradients"].layout.annotations]
    assert "no picture kept" in said
    maps = [trace for trace in traces if trace.type == "heatmap"]
    assert len(maps) == 6
    for trace, (image, checkpoint) in zip(
        maps,
        [(image, name) for image in values["named_image"].values for name in values["checkpoint"].values],
        strict=True,
    ):
        assert trace.name == checkpoint
        np.testing.assert_allclose(trace.z, values.sel(named_image=image, checkpoint=checkpoint))
    colors = figures["integrated_gradients"].layout.coloraxis
    assert colors.cmin == -colors.cmax < 0
    assert figures["attention_rollout"].layout.coloraxis.cmin == 0


def test_maps_of_places_have_a_menu_that_starts_at_the_last(further, figures):
    place, condition = figures["token_lens_probability"].layout.updatemenus
    assert [button.label for button in place.buttons] == [f"resid_layer {at}" for at in range(4)]
    assert place.active == 3
    wanted = further.data["token_lens_probability"].sel(condition="clean", checkpoint="base")
    first = place.buttons[0].args[0]["z"][0]
    np.testing.assert_allclose(first, wanted.isel(named_image=0, resid_layer=0), rtol=1e-3)
    assert [button.label for button in condition.buttons] == ["clean", "gaussian_noise@3"]


def test_maps_without_pictures_stand_alone(further):
    drawn = report.figures(only(further, "attention_rollout"))["attention_rollout"]
    assert {trace.type for trace in drawn.data} == {"heatmap"}


def test_a_map_of_all_images_shows_those_whose_pictures_were_kept(further):
    shape = [further.data.sizes[dim] for dim in ("checkpoint", "condition", "image")]
    made = with_variable(
        further,
        "relevance",
        ("checkpoint", "condition", "image", "patch_row", "patch_column"),
        np.random.default_rng(0).random((*shape, 2, 2)),
    )
    drawn = report.figures(dataclasses.replace(made, examples=further.examples))["relevance"]
    assert "2 of 60 images" in drawn.layout.title.subtitle.text
    drawn = report.figures(made)["relevance"]
    assert "6 of 60 images" in drawn.layout.title.subtitle.text


def test_a_strangers_words_are_shown_and_harmless(further):
    made = with_variable(
        further,
        "mine",
        ("checkpoint", "condition", "image", "resid_layer"),
        np.ones((3, 2, 60, 4)),
        long_name="<script>alert(1)</script> %{x}",
        units="<b>&amp;",
    )
    layout = report.figures(made)["mine"].layout
    assert "<script" not in layout.title.text
    assert "<b>" not in layout.yaxis.title.text
    assert layout.meta["section"] == "Further"


def test_one_thing_in_two_units_has_two_titles(further):
    made = only(further, "attention_distance_patches")
    pixels = (4 * made.data["attention_distance_patches"]).assign_attrs(
        units="pixels", long_name="Mean attention distance"
    )
    made = dataclasses.replace(made, data=made.data.assign(attention_distance_pixels=pixels))
    titles = [figure.layout.title.text for figure in report.figures(made, further.summary()).values()]
    assert titles == [
        f"Mean attention distance, in {unit}: difference from base" for unit in ("patches", "pixels")
    ]


@pytest.mark.parametrize(
    ("name", "dims", "shape"),
    [
        ("my_label", ("checkpoint", "condition", "image"), (3, 2, 60)),
        ("lens_predicted", ("checkpoint", "condition", "image", "resid_layer"), (3, 2, 60, 4)),
        ("odd", ("checkpoint", "condition", "image", "d_sae"), (3, 2, 60, 5)),
        ("weights", ("checkpoint", "layer"), (3, 3)),
    ],
)
def test_class_numbers_and_unknown_dims_have_no_figure(further, name, dims, shape):
    made = with_variable(further, name, dims, np.ones(shape, dtype=np.int64))
    assert list(report.figures(made)) == ["accuracy"]


def test_values_that_are_missing_leave_gaps_and_no_warning(further):
    values = np.random.default_rng(0).random((3, 2, 60, 4))
    values[0, 0] = np.nan
    values[1, 1, :, 2] = np.nan
    dims = ("checkpoint", "condition", "image", "resid_layer")
    drawn = report.figures(with_variable(further, "mine", dims, values))["mine"]
    shown = [np.asarray(trace.y, float) for trace in drawn.data if trace.mode == "lines+markers"]
    assert sum(np.isnan(y).sum() for y in shown) == 5
    none_at_all = with_variable(further, "mine", dims, np.full((3, 2, 60, 4), np.nan))
    assert "mine" not in report.figures(none_at_all)


def test_one_image_has_means_and_no_interval(further):
    one = dataclasses.replace(
        further, data=further.data.isel(image=[0])[["lens_kl_nats", "sparsity", "attribution", "rank"]]
    )
    drawn = report.figures(one)
    assert not any(trace.fill for trace in drawn["lens_kl_nats"].data)
    assert {"sparsity", "attribution"} <= {*drawn}


def test_the_reference_alone_has_levels_but_no_differences(further):
    shown = ("lens_kl_nats", "sparsity", "attribution", "attention_distance_patches", "transplant_correct")
    made = only(further, *shown)
    drawn = report.figures(dataclasses.replace(made, data=made.data.sel(checkpoint=["base"])), pd.DataFrame())
    assert {"lens_kl_nats", "sparsity", "attribution"} <= {*drawn}
    assert not {"attention_distance_patches", "transplant_gap"} & {*drawn}
