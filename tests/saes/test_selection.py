"""The largest entries of a matrix, against a full sort."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens.saes.selection import largest_in_each_row, largest_positive


def check(matrix: torch.Tensor, n_wanted: int) -> None:
    """Exactly the values that a sort puts first, each from its own place, in order."""
    rows, columns, values = largest_positive(matrix, n_wanted)
    expected = matrix[matrix > 0].sort(descending=True).values[:n_wanted]
    assert torch.equal(values.sort(descending=True).values, expected)
    assert torch.equal(matrix[rows, columns], values)
    assert (torch.diff(rows.long() * matrix.shape[1] + columns) > 0).all()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 400), st.integers(1, 300), st.integers(0, 100), st.booleans()
)  # fmt: skip
def test_the_largest_are_those_that_a_sort_puts_first(n_rows, n_columns, n_wanted, seed, has_ties):
    matrix = torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed))
    if has_ties:
        matrix = (2 * matrix).round()
    check(matrix, n_wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_of_usual_size_is_chosen_from_exactly(dtype):
    matrix = torch.randn(512, 3072, dtype=dtype, generator=torch.Generator().manual_seed(0))
    check(matrix, 32 * 512)


def test_a_sample_that_misleads_does_not_change_the_choice():
    matrix = torch.zeros(100, 122)
    matrix.view(-1)[::67] = 10.0  # 67 is the first prime that does not divide 122: the sample sees only these
    matrix += torch.rand(100, 122, generator=torch.Generator().manual_seed(0))
    check(matrix, 2000)
    check(-matrix + 20, 2000)


def test_ties_at_the_end_are_cut_to_the_number_wanted():
    rows, columns, values = largest_positive(torch.ones(4, 5), 7)
    assert values.tolist() == [1.0] * 7
    assert rows.tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert columns.tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_fewer_positive_entries_than_wanted_are_all_chosen():
    matrix = torch.tensor([[-1.0, 0.5], [0.0, torch.nan], [2.0, -3.0]])
    assert largest_positive(matrix, 4).values.tolist() == [0.5, 2.0]
    assert len(largest_positive(-torch.ones(3, 2), 4).values) == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 20), st.integers(1, 30), st.integers(0, 100), st.data())
def test_the_largest_of_each_row_are_those_of_topk(n_rows, n_columns, seed, data):
    n_wanted = data.draw(st.integers(1, n_columns))
    matrix = torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed))
    rows, columns, values = largest_in_each_row(matrix, n_wanted)
    assert torch.equal(matrix[rows, columns], values)
    assert torch.equal(
        values.view(n_rows, n_wanted).sort(dim=1, descending=True).values, matrix.topk(n_wanted).values
    )
    assert (torch.diff(rows.long() * n_columns + columns) > 0).all()
