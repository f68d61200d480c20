"""The section on transfer, and the words on similarity: the rows' own numbers."""

import numpy as np
import pandas as pd

from vitlens.comparison.transfer import transfer
from vitlens.report.dictionaries import feature_lines, features_html, similarity_lines
from vitlens.report.transferred import transfer_html
from vitlens.report.wording import Spoken


def test_transfer_is_said_and_shown_row_by_row(comparison):
    rows = transfer(
        comparison.data,
        seen=["gaussian_blur@3"],
        unseen=["gaussian_noise@3", "contrast@5"],
        metrics=["top1_accuracy"],
    )
    text = transfer_html(rows, Spoken({"top1_accuracy": "share"}))
    assert text.count("<tr>") == len(rows) + 1
    contrasts = rows[rows["exposure"] == "seen - unseen"]
    assert text.count("<li>") == len(contrasts)
    for row in contrasts.itertuples():
        if row.p_adjusted < 0.05:
            word = "more" if row.gain > 0 else "less"
            size = f"{100 * abs(row.gain):.1f} percentage points"
            assert f"{row.checkpoint} gained {size} {word} on seen than on unseen conditions (" in text
        else:
            assert f"undecided whether {row.checkpoint} gained more on seen or on unseen" in text
    for row in rows.itertuples():
        assert f'data-value="{row.gain:.9g}"' in text
        assert np.isnan(row.gap_closed_ci_low) or f'data-value="{row.gap_closed:.9g}"' in text


def contrast(metric, gain, p, **further):
    values = {"gain": gain, "ci_low": gain - 0.1, "ci_high": gain + 0.1, "p_adjusted": p, "n": 9}
    values |= dict.fromkeys(("gap", "gap_closed", "gap_closed_ci_low", "gap_closed_ci_high"), np.nan)
    names = {"metric": metric, "exposure": "seen - unseen", "condition": "seen - unseen", "checkpoint": "t"}
    return pd.DataFrame([names | values | further])


def said(rows, **units):
    return transfer_html(rows, Spoken(units)).partition("</li>")[0]


def test_a_difference_of_gains_that_is_not_significant_is_undecided():
    rows = contrast("top1_accuracy", 0.05, 0.04)
    assert "gained 5.0 percentage points more on seen" in said(rows, top1_accuracy="share")
    rows.attrs["level"] = 0.99
    assert "undecided whether t gained more" in said(rows, top1_accuracy="share")
    assert "seen minus unseen +5.0 [−5.0, +15.0] percentage points, adjusted p .040" in said(
        rows, top1_accuracy="share"
    )
    assert "undecided" in said(contrast("top1_accuracy", 0.0, np.nan), top1_accuracy="share")


def test_of_a_layer_nothing_is_gained():
    layers = {"first_correct_layer": "resid_layer"}
    text = said(contrast("first_correct_layer", -1.5, 0.001), **layers)
    assert "First correct layer: t moved 1.50 layers lower on seen than on unseen conditions (" in text
    assert "gained" not in text
    assert "moved further" in said(contrast("first_correct_layer", -1.5, 0.5), **layers)


def test_a_share_of_a_gap_that_is_not_told_from_0_is_left_out():
    rows = contrast("top1_accuracy", 0.05, 0.04, gap=0.004, gap_closed=11.805)
    assert "1180" not in transfer_html(rows, Spoken({"top1_accuracy": "share"}))


def test_without_rows_there_is_no_section():
    assert transfer_html(None, Spoken()) == ""
    assert features_html(None) == ""
    assert similarity_lines(None) == []


def test_matched_and_lost_features_are_counted_beside_both_yardsticks(comparison):
    features = comparison.features
    text = features_html(features)
    of_pair = features[(features["kind"] == "vanilla") & (features["checkpoint_b"] == "tuned on blur")]
    of_pair = of_pair[of_pair["role"] == "checkpoints"]
    n_matched = int(of_pair["mutual"].sum())
    assert f'data-value="{n_matched}">{n_matched}</td>' in text
    assert f'data-value="{len(of_pair) - n_matched}">{len(of_pair) - n_matched}</td>' in text
    assert "two seeds (%)" in text
    assert "New:" not in text  # nothing tells how many features the checkpoint has
    assert any(
        f"{of_pair['mutual'].mean():.0%} of {len(of_pair):,} features are matched (two seeds" in line
        for line in feature_lines(features)
    )


def test_new_features_are_counted_where_the_checkpoints_own_are_known(comparison):
    features = comparison.features.assign(n_live_b=200)
    rows = features[(features["kind"] == "vanilla") & (features["checkpoint_b"] == "tuned on blur")]
    each = rows[rows["role"] == "checkpoints"].groupby(["seed_a", "seed_b"])
    n_new = sum(200 - int(pair["mutual"].sum()) for _, pair in each)
    text = features_html(features)
    assert f'data-value="{n_new}">{n_new}</td>' in text
    assert len(each) > 1
    assert f'data-value="{len(each)}">{len(each)}</td>' in text
    assert "over all pairs of SAEs" in text
    one = rows[(rows["seed_a"] == rows["seed_a"].min()) & (rows["seed_b"] == rows["seed_b"].min())]
    assert "pairs of SAEs" not in features_html(one)  # nothing to be said of them


def test_similarity_is_said_with_its_interval_and_verdict():
    rows = pd.DataFrame(
        {
            "kind": ["batch_topk", "vanilla"],
            "checkpoint": ["tuned", "tuned"],
            "similarity_share": [0.954, 0.5],
            "ci_low": [0.91, np.nan],
            "ci_high": [0.99, np.nan],
            "threshold": [0.9, 0.9],
            "verdict": ["equivalent", "undecided"],
        }
    )
    first, second = similarity_lines(rows)
    assert (
        first == "BatchTopK, tuned: similarity share 0.95 [0.91, 0.99], equivalent (equivalent from 0.9 on)."
    )
    assert "[" not in second
    assert "0.954</td>" in features_html(None, rows)


def test_a_similarity_that_is_not_known_is_said_with_the_reason():
    rows = pd.DataFrame(
        {
            "kind": ["vanilla"],
            "checkpoint": ["tuned"],
            "similarity_share": [np.nan],
            "ci_low": [np.nan],
            "ci_high": [np.nan],
            "threshold": [0.9],
            "verdict": ["undecided"],
            "reason": ["no seed-to-seed similarity"],
        }
    )
    (line,) = similarity_lines(rows)
    assert line == (
        "vanilla, tuned: similarity share not known (no seed-to-seed similarity), undecided "
        "(equivalent from 0.9 on)."
    )
