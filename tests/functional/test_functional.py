"""The pure functions against scipy, brute force and identities."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vitlens import errors, functional

scores = arrays(np.float32, (4, 6), elements=st.floats(-20, 20, width=32))


@given(st.integers(1, 40))
def test_uniform_attention_has_entropy_log_n(n):
    entropy = functional.attention_entropy(torch.full((2, 3, n), 1 / n))
    torch.testing.assert_close(entropy, torch.full((2, 3), math.log(n)), atol=1e-5, rtol=1e-5)


def test_attention_to_one_token_has_entropy_zero():
    assert torch.equal(functional.attention_entropy(torch.eye(5)), torch.zeros(5))


@settings(deadline=None)
@given(scores)
def test_entropies_agree_with_scipy(values):
    logits = torch.from_numpy(values)
    pattern = logits.softmax(-1)
    wanted = torch.from_numpy(scipy.stats.entropy(pattern.double().numpy(), axis=-1)).float()
    torch.testing.assert_close(functional.attention_entropy(pattern), wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(functional.entropy_nats(logits), wanted, atol=1e-5, rtol=1e-4)


def test_half_precision_patterns_are_summed_in_float32():
    pattern = torch.full((1, 4096), 1 / 4096, dtype=torch.bfloat16)
    assert functional.attention_entropy(pattern).dtype == torch.float32
    torch.testing.assert_close(functional.attention_entropy(pattern), torch.tensor([math.log(4096)]))


def test_a_pattern_without_a_query_axis_is_refused():
    # Without the run-time checker of the tests this is what a user sees.
    with pytest.raises(errors.ShapeError, match=r"\[\.\.\., query, key\]"):
        functional.attention_entropy.__wrapped__(torch.ones(3))


@settings(deadline=None)
@given(
    arrays(np.int8, (5, 6), elements=st.integers(0, 3)), st.lists(st.integers(0, 5), min_size=5, max_size=5)
)
def test_rank_is_the_place_in_a_stable_sort_also_under_ties(values, labels):
    logits, labels = torch.from_numpy(values).float(), torch.tensor(labels)
    order = np.argsort(-values.astype(int), axis=-1, kind="stable").tolist()
    wanted = [row.index(label) for row, label in zip(order, labels.tolist(), strict=True)]
    rank = functional.class_rank(logits, labels)
    assert rank.tolist() == wanted
    assert torch.equal(rank == 0, logits.argmax(-1) == labels)


@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_first_correct_layer_is_the_first_true(row):
    first = functional.first_correct_layer(torch.tensor(row)).item()
    assert math.isnan(first) if not any(row) else first == row.index(True)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=9))
def test_from_the_last_change_on_the_prediction_stays(row):
    last = int(functional.last_change_layer(torch.tensor(row)).item())
    assert set(row[last:]) == {row[-1]}
    assert last == 0 or row[last - 1] != row[-1]
