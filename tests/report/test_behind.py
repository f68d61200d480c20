"""The rows behind a figure: the numbers that it draws, whatever the figure."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from vitlens import report
from vitlens.report.charts.behind import grid_rows, keep, kept
from vitlens.report.figure_html import figure_html, figure_json

from .made import made_further


@pytest.fixture(scope="module")
def further(comparison):
    return made_further(comparison)


@pytest.fixture(scope="module")
def drawn(further):
    return report.figures(further)


PICTURES = {"attention_maps", "attention_rollout", "integrated_gradients", "token_lens_probability"}


def test_every_figure_but_pictures_keeps_its_rows(drawn):
    assert {name for name, figure in drawn.items() if kept(figure) is None} == PICTURES


def test_rows_of_accuracy_are_the_shares(comparison, drawn):
    rows = kept(drawn["accuracy"])
    right = 100 * (comparison.data["rank"] < 5).mean("image")
    top5 = rows[rows["panel"] == "Top-5"].set_index(["condition", "checkpoint"])
    for (condition, checkpoint), row in top5.iterrows():
        wanted = right.sel(condition=condition, checkpoint=checkpoint).item()
        assert row["value"] == pytest.approx(wanted, rel=1e-5)
        assert row["ci_low"] < wanted < row["ci_high"]
    assert len(top5) == right.size


def test_rows_of_a_heat_map_hold_every_condition_and_kind(comparison, drawn):
    rows = kept(drawn["attention_entropy"])
    values = comparison.data["attention_entropy_nats"].mean("image")
    assert len(rows) == values.size
    one = rows.iloc[-1]
    wanted = values.sel({dim: one[dim] for dim in values.dims}).item()
    assert one["value"] == pytest.approx(wanted, rel=1e-4)


def test_rows_of_lines_name_their_kind_of_token(further, drawn):
    rows = kept(drawn["resid_cosine"])
    cosine = further.data["resid_cosine"].mean("image")
    here = rows[(rows["kind"] == "patches") | (rows["kind"] == "patch")]
    assert len(here) == cosine.sel(token_kind="patch").size


def test_rows_are_kept_to_six_digits_and_what_is_no_number_as_nothing():
    figure = keep(go.Figure(), pd.DataFrame({"a": [1 / 3, np.nan], "b": ["x", None]}))
    assert figure.layout.meta["rows"] == {"a": [0.333333, None], "b": ["x", None]}


def test_cells_without_any_number_are_left_out():
    rows = grid_rows({"a": [0, 1]}, {"v": np.array([np.nan, 1.0]), "w": np.array([np.nan, np.nan])})
    assert rows["a"].tolist() == [1]


def test_a_page_gets_the_rows_once_and_menus_as_its_own_controls(drawn):
    made = json.loads(figure_json(drawn["attribution"]))
    assert "rows" not in made["layout"]["meta"]
    assert "updatemenus" not in made["layout"]
    (menu,) = made["menus"]
    assert menu["name"] == "Condition"
    assert [button["label"] for button in menu["buttons"]][:2] == ["clean", "gaussian_blur@3"]
    assert len(drawn["attribution"].layout.updatemenus) == 1  # the figure itself keeps them


def test_a_figure_of_ones_own_keeps_its_menus():
    mine = go.Figure().update_layout(updatemenus=[{"buttons": [{"label": "a", "method": "skip"}]}])
    made = json.loads(figure_json(mine))
    assert made["menus"] == []
    assert len(made["layout"]["updatemenus"]) == 1


def test_few_rows_are_also_a_table_for_who_sees_no_figure(comparison):
    few = keep(go.Figure(), pd.DataFrame({"checkpoint": ["<b>"], "value": [-0.5]}))
    text = figure_html("figure-1", "mine", few)
    assert "<td>&lt;b&gt;</td>" in text
    assert '<td class="number" data-value="-0.5">−0.5</td>' in text
    many = keep(go.Figure(), pd.DataFrame({"value": np.arange(61.0)}))
    assert "<table" not in figure_html("figure-1", "mine", many)
