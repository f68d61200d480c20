"""Words and their nearest spellings."""

import pytest

from vitlens.names import nearest

METRICS = ["correct_probability", "entropy_nats", "stop", "top10_accuracy", "top1_accuracy", "top5_accuracy"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("top1", "top1_accuracy"),
        ("top5", "top5_accuracy"),
        ("to", "top1_accuracy"),
        ("entropy", "entropy_nats"),
        ("tpo1_accuracy", "top1_accuracy"),
        ("top1_accuracy", "top1_accuracy"),
    ],
)
def test_what_begins_with_the_name_is_nearest_then_what_is_spelt_like_it(name, first):
    assert nearest(name, METRICS).startswith(f"'{first}'")


def test_each_candidate_is_named_once_and_no_more_than_asked_for():
    found = nearest("top", METRICS, n=3).split(", ")
    assert found == ["'top1_accuracy'", "'top5_accuracy'", "'top10_accuracy'"]
    assert nearest("", METRICS, n=1) == "'correct_probability'"
    assert nearest("zzz", [], n=3) == ""
