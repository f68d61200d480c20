"""The summary in words: every verdict under its heading, with its figure and its row."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from vitlens.comparison import notebook
from vitlens.report.findings import Links, findings_html
from vitlens.report.tables import summary_table
from vitlens.report.wording import Spoken

from .made import SUMMARY_COLUMNS

SPOKEN = Spoken({"top1_accuracy": "share", "gain": "nats"})


def row(metric, condition, difference, verdict, *, margin=np.nan, layer=pd.NA, head=pd.NA, p=0.01):
    values = (metric, condition, layer, head, "base", "tuned", 0.5, 0.5 + difference, difference)
    return (*values, difference - 0.01, difference + 0.01, p, margin, verdict, 100)


def table(*rows):
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)).astype({"layer": "Int64", "head": "Int64"})


def say(rows, pools=()):
    links = Links({"top1_accuracy": "figure-1-accuracy"}.get, frozenset(rows.index))
    return findings_html(rows, SPOKEN, links, pools=pools)


def part(text, heading):
    """The text under one heading."""
    return text.partition(f"<h4>{heading}</h4>")[2].partition("</div>")[0]


def test_each_verdict_stands_under_its_heading_with_its_figure_and_its_row():
    text = say(
        table(
            row("top1_accuracy", "clean", -0.09, "changed"),
            row("top1_accuracy", "fog@3", 0.05, "changed"),
            row("top1_accuracy", "snow@3", 0.001, "equivalent", margin=0.02),
            row("top1_accuracy", "frost@3", 0.01, "undecided", p=0.4),
        )
    )
    changed = part(text, "What changed")
    assert '<a class="to-figure" href="#figure-1-accuracy"><strong>Top-1 accuracy</strong></a>' in changed
    assert 'rose under <a href="#row-1">fog@3</a> (50.0 % to 55.0 %: +5.0 [+4.0, +6.0]' in changed
    assert 'fell under <a href="#row-0">clean</a>' in changed
    assert '<a href="#row-2">snow@3</a>' in part(text, "What did not change")
    assert "within ±2.0" in part(text, "What did not change")
    assert '<a href="#row-3">frost@3</a>' in part(text, "What is undecided")
    assert "not the same as unchanged" in part(text, "What is undecided")
    for n, verdict in ((2, "changed"), (1, "equivalent"), (1, "undecided")):
        assert f">{n} {verdict}</span>" in text


@pytest.mark.parametrize(("difference", "p", "is_said"), [(0.05, 0.06, True), (0.005, 0.4, False)])
def test_an_interval_without_0_among_the_undecided_is_explained(difference, p, is_said):
    text = say(table(row("top1_accuracy", "clean", difference, "undecided", p=p)))
    assert ("can leave out 0" in part(text, "What is undecided")) == is_said


@pytest.mark.parametrize(("margin", "said"), [(np.nan, "no margin was given"), (0.02, "Nothing lies within")])
def test_without_an_equivalence_it_is_said_why(margin, said):
    text = say(table(row("top1_accuracy", "clean", 0.01, "undecided", margin=margin)))
    assert said in part(text, "What did not change")
    assert "No tested difference is significant" in part(text, "What changed")


def test_of_many_conditions_the_largest_are_said_and_the_others_folded():
    text = say(table(*(row("gain", f"fog@{at}", 0.1 * at, "changed") for at in range(1, 6))))
    said, _, folded = part(text, "What changed").partition("<details")
    assert [condition in said for condition in ("fog@5", "fog@4", "fog@3", "fog@2", "fog@1")] == [
        True
    ] * 3 + [False] * 2
    assert said.index("fog@5") < said.index("fog@4") < said.index("fog@3")
    assert "2 more conditions" in folded
    assert "fog@1" in folded


def test_pools_come_before_single_conditions():
    text = say(
        table(row("gain", "fog@3", 0.9, "changed"), row("gain", "unseen", 0.1, "changed")), pools=["unseen"]
    )
    assert text.index("unseen") < text.index("fog@3")


def test_a_map_is_told_by_its_counts_and_its_largest_change():
    rows = [row("gain", "clean", 0.1 * (head + 1), "changed", layer=0, head=head) for head in range(2)]
    rows += [row("gain", "clean", 0.0, "undecided", layer=1, head=head) for head in range(2)]
    rows += [row("gain", "fog@3", 0.0, "undecided", layer=at, head=0) for at in range(4)]
    text = part(say(table(*rows)), "What changed")
    assert "none to 2 of 4 heads, most under clean; largest: layer 0, head 1 under clean" in text


def test_a_map_without_any_change_is_told_among_the_undecided():
    rows = [row("gain", "clean", 0.0, "undecided", layer=at, head=0) for at in range(4)]
    assert "none of 4 heads changed" in part(say(table(*rows)), "What is undecided")


def test_what_was_not_tested_is_named():
    text = say(table(row("gain", "clean", 0.0, "undecided", p=np.nan)))
    assert "No difference was tested." in text
    assert "Not tested (exploratory): Gain." in text


def test_a_metric_with_a_margin_is_told_however_it_ended():
    text = say(
        table(
            row("gain", "clean", 0.001, "equivalent", margin=0.1, p=np.nan),
            row("gain", "fog@3", 0.2, "undecided", margin=0.1, p=np.nan),
        )
    )
    assert "fog@3" in part(text, "What is undecided")
    assert "not shown to lie within ±0.100" in part(text, "What is undecided")
    assert ">1 equivalent</span>" in text
    assert ">1 undecided</span>" in text
    assert "of 2 tested differences" in text


def test_the_tally_counts_the_maps_beside_the_differences():
    cells = [row("gain", "clean", 0.1, "changed", layer=0, head=head) for head in range(2)]
    cells += [row("gain", "fog@3", 0.1, "undecided", layer=0, head=head, p=0.5) for head in range(2)]
    text = say(table(row("top1_accuracy", "clean", 0.0, "undecided", p=0.5), *cells))
    assert "of 1 tested difference (a metric under a condition)" in text
    assert "Besides, of 2 maps over layers or heads (a metric under a condition), 1 changed somewhere" in text
    alone = say(table(*cells))
    assert "Of 2 maps" in alone
    assert "No difference was tested" not in alone


def test_a_metric_is_called_by_the_title_of_its_figure():
    rows = table(row("gain[cls]", "clean", 0.1, "changed"))
    spoken = Spoken(titles={"gain": "How much <was> gained"})
    text = findings_html(rows, spoken, Links({}.get))
    assert "<strong>How much &lt;was&gt; gained (class token)</strong>" in text
    assert "How much &lt;was&gt; gained (class token)" in summary_table(rows, spoken, 0.95)


@pytest.mark.parametrize("with_margin", [False, True])
@pytest.mark.parametrize("with_effect", [False, True])
@pytest.mark.parametrize("with_places", [False, True])
def test_a_table_has_a_head_over_each_of_its_cells(with_margin, with_effect, with_places):
    at = {"layer": 1, "head": 2} if with_places else {}
    rows = table(row("gain", "clean", 0.1, "changed", margin=0.1 if with_margin else np.nan, **at))
    if with_effect:
        rows["effect_size"] = 0.3
    text = summary_table(rows, SPOKEN, 0.95)
    head, _, body = text.partition("<tbody>")
    n_cells = 10 + with_margin + with_effect + 2 * with_places
    assert head.count('<th scope="col"') == body.count("<t") - body.count("<tr") == n_cells


def test_a_notebook_counts_what_a_margin_left_undecided():
    rows = table(
        row("gain", "clean", 0.2, "undecided", margin=0.1, p=np.nan),
        row("gain", "fog@3", 0.2, "undecided", p=np.nan),
    )
    shown = notebook.html(xr.Dataset(coords={"image": ["a"]}), "base", rows)
    assert "Of 1 tested differences: 1 undecided." in shown
