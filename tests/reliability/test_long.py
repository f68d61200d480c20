"""Long and large runs, in short: memory stays flat, nothing piles up, stores may be larger than memory."""

import pytest

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


@pytest.mark.parametrize("n_mib", [512])
def test_an_sae_is_trained_on_a_store_of_twice_the_memory(n_mib):
    found = apart("store", n_mib)
    assert found["allowed_mib"] == n_mib / 2 < found["store_mib"]
    assert found["fvu"] < 1
