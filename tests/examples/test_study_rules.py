"""The study's rules by themselves: how conditions are split, rows counted and verdicts reached."""

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import vitlens as vl

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module", autouse=True)
def _found():
    """The examples can be imported."""
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def rule():
    import study_verdicts

    return study_verdicts


@pytest.fixture(scope="module")
def tables():
    import study_table

    return study_table


# ------------------------------------------------------------------ verdicts


@pytest.mark.parametrize(
    ("says", "verdict", "difference", "expected"),
    [
        ("higher", "changed", 0.1, "holds"),
        ("higher", "changed", -0.1, "fails"),
        ("higher", "equivalent", 0.01, "fails"),
        ("higher", "undecided", 0.1, "undecided"),
        ("lower", "changed", -0.1, "holds"),
        ("lower", "changed", 0.1, "fails"),
        ("lower", "equivalent", -0.01, "fails"),
        ("same", "equivalent", 0.01, "holds"),
        ("same", "changed", 0.1, "fails"),
        ("same", "undecided", 0.0, "undecided"),
    ],
)
def test_one_row_agrees_disagrees_or_leaves_it_open(rule, says, verdict, difference, expected):
    assert rule.judge(says, [(verdict, difference)]) == expected


def test_without_a_row_nothing_is_decided(rule):
    assert rule.judge("same", []) == "undecided"


ROWS = st.lists(
    st.tuples(st.sampled_from(["changed", "equivalent", "undecided"]), st.sampled_from([-0.1, 0.1])),
    min_size=1,
)


@given(says=st.sampled_from(["higher", "lower", "same"]), rows=ROWS)
def test_a_claim_holds_if_every_row_does_and_fails_if_any_does(rule, says, rows):
    alone = {rule.judge(says, [row]) for row in rows}
    expected = "fails" if "fails" in alone else "holds" if alone == {"holds"} else "undecided"
    assert rule.judge(says, rows) == expected
    assert rule.judge(says, rows[::-1]) == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.51, 0.9, "changed"),
        (-0.2, 0.49, "equivalent"),
        (0.4, 0.6, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_a_part_carries_a_gap_if_its_interval_lies_above_half(rule, low, high, expected):
    assert rule.part_verdict(low, high) == expected


def test_what_the_control_shows_too_is_not_the_corruptions_doing(rule):
    rows = pd.DataFrame(
        {
            "claim": ["accuracy_clean"] * 2, "estimate": [0.0, 0.001], "verdict": ["equivalent"] * 2,
            "base_estimate": [0.3, 0.3], "base_verdict": ["changed"] * 2,
        }
    )  # fmt: skip
    row = rule.verdicts(rows).set_index("claim").loc["accuracy_clean"]
    assert (row["verdict"], row["against_base"]) == ("holds", "fails")


def test_every_claims_metric_has_a_margin_and_every_margin_a_claim(rule):
    from study_claims import CLAIMS, MARGINS

    assert {metric for claim in CLAIMS for metric, _, _ in claim.rows} == set(MARGINS)
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


def test_the_published_page_is_made_of_the_rows_beside_it(rule):
    import study_page

    docs = EXAMPLES.parent / "docs"
    assert study_page.rendered(docs) == (docs / "study.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------ the split and the table


def test_conditions_are_split_by_family(tables):
    import reproduce_study

    removes = reproduce_study.family("removes_high_frequency", "blur")
    adds = reproduce_study.family("adds_high_frequency", "noise")
    every = [f"{name}@3" for name, spec in vl.CORRUPTIONS.items() if spec.is_ready]
    groups = tables.split(every, {"removes": removes, "adds": adds})
    assert groups["clean"] == ["clean"]
    for name, family in (("removes", "blur"), ("adds", "noise")):
        assert {vl.CORRUPTIONS[each.split("@")[0]].family for each in groups[name]} == {family}
    unseen = {vl.CORRUPTIONS[each.split("@")[0]].family for each in groups["unseen"]}
    assert not unseen & {"blur", "noise"}
    assert sorted(each for members in groups.values() for each in members) == sorted(["clean", *every])


def test_a_band_of_frequencies_is_a_family_of_its_own(tables):
    recipes = {"removes": ["gaussian_blur@3"], "adds": ["fourier:band=1/4-1/2,rms=0.1"]}
    conditions = ["clean", "fourier:band=1/4-1/2,rms=0.1", "fourier:band=0-1/8,rms=0.1"]
    groups = tables.split(conditions, recipes)
    assert groups == {"clean": ["clean"], "adds": [conditions[1]], "unseen": [conditions[2]]}


def test_one_family_on_both_sides_is_refused(tables):
    recipes = {"removes": ["gaussian_blur@3"], "adds": ["gaussian_noise@3", "zoom_blur@3"]}
    with pytest.raises(vl.errors.ConditionError, match="--removes and --adds both have the family 'blur'"):
        tables.split(["fog@3"], recipes)


GROUPS = {"clean": ["clean"], "unseen": ["fog@3", "contrast@3"]}


def made(n=40):
    """Ranks and probabilities of five checkpoints under three conditions."""
    generator = np.random.default_rng(0)
    dims = ("checkpoint", "condition", "image")
    return xr.Dataset(
        {
            "rank": (dims, generator.integers(0, 3, (5, 3, n))),
            "correct_probability": (dims, generator.random((5, 3, n))),
        },
        coords={
            "checkpoint": ["base", "control", "removes", "adds", "both"],
            "condition": ["clean", "fog@3", "contrast@3"],
        },
    )


@pytest.mark.parametrize("reference", ["control", "base"])
def test_accuracy_under_one_condition_has_wilsons_interval_and_tangos_difference(tables, reference):
    data, n, z = made(), 40, 1.959963984540054
    table = tables.table(data, GROUPS, n_classes=2)
    row = table.set_index(["metric", "condition", "checkpoint"]).loc[("top1_accuracy", "clean", "adds")]
    p = float((data["rank"] == 0).sel(condition="clean", checkpoint="adds").mean())
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((middle - half, middle + half))
    expected = vl.comparison.summarize(data, reference=reference, n_classes=2)
    tango = expected.set_index(["metric", "condition", "checkpoint"]).loc[("top1_accuracy", "clean", "adds")]
    assert row[f"difference_from_{reference}"] == pytest.approx(tango["difference"])
    assert row[f"from_{reference}_low"] == pytest.approx(tango["ci_low"])


def test_a_group_counts_each_image_once(tables):
    data = made()
    twice = xr.concat([data, data.assign_coords(condition=["c2", "f2", "d2"])], dim="condition")
    once = tables.table(data, GROUPS, n_classes=2)
    doubled = tables.table(twice, {**GROUPS, "unseen": ["fog@3", "contrast@3", "f2", "d2"]}, n_classes=2)
    same = [name for name in once if name != "n_conditions"]
    pd.testing.assert_frame_equal(once[same], doubled[same])


def test_nothing_is_equivalent_without_a_margin(tables):
    column = "from_control_verdict"
    assert "equivalent" not in set(tables.table(made(), GROUPS, n_classes=2)[column])
    margins = {"top1_accuracy": 0.9, "correct_probability": 0.9}
    table = tables.table(made(), GROUPS, n_classes=2, margins=margins)
    assert set(table[column].dropna()) == {"equivalent"}


def test_an_image_that_was_not_measured_is_left_out_of_its_own_metric_alone(tables):
    data = made()
    data["correct_probability"] = data["correct_probability"].where(np.arange(40) < 30)
    table = tables.table(data, GROUPS, n_classes=2).groupby("metric")["n_images"].unique()
    assert table["correct_probability"].tolist() == [30]
    assert table["top1_accuracy"].tolist() == [40]
