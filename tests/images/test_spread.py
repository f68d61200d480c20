"""Some images, spread evenly over a data set."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vitlens as vl
from vitlens.errors import DatasetError
from vitlens.images import known


@given(st.integers(1, 300), st.integers(0, 300))
def test_so_many_images_come_each_once_in_order_with_the_ends_among_them(total, n):
    found = list(vl.images.spread(list(range(total)), n))
    assert len(found) == min(n, total)
    assert found == sorted(set(found))
    if n:
        assert found[0] == 0
    if n > 1:
        assert found[-1] == total - 1
        steps = {b - a for a, b in itertools.pairwise(found)}
        assert not steps or max(steps) - min(steps) <= 1


def test_what_is_known_of_the_images_without_loading_them_stays_known():
    items = [{"pixels": None, "label": index, "image_id": str(index)} for index in range(5)]
    some = vl.images.spread(items, 2)
    assert known(some, "image_ids") == ["0", "4"]
    assert known(some, "labels") == [0, 4]


@pytest.mark.parametrize(
    ("dataset", "n", "message"),
    [
        ([1, 2], -1, "n is -1"),
        (iter([1, 2]), 1, "which cannot be read at any place"),
        ({1, 2}, 1, "The data set is a set"),
    ],
)
def test_what_cannot_be_spread_is_refused(dataset, n, message):
    with pytest.raises(DatasetError, match=message):
        vl.images.spread(dataset, n)
