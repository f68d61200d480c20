"""Long and large runs, in short: memory stays flat, nothing piles up, rows are resumed."""

from .long_runs import apart, piled_up, rows


def test_memory_stays_flat_over_a_long_run():
    found = apart("flat", 600)
    assert found["growth_mib"] < 25, found


def test_a_hundred_runs_leave_nothing_behind():
    found = piled_up(100)
    assert found["after"] == found["before"]


def test_rows_of_many_images_are_resumed_and_read_back():
    found = rows(2000, reports=False)
    assert found["images_read_when_resumed"] <= 0.1 * 2000 + 256 + 2  # a shard's worth, and two examples
    assert found["rows_mib"] < 5
