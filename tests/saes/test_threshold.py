"""The threshold: an order statistic, exact up to ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitlens import saes
from vitlens.errors import SAEError

from .conftest import make_sae


def random_sae(seed: int, d_in: int = 6, d_sae: int = 12):
    return make_sae(torch.randn(d_sae, d_in, generator=torch.Generator().manual_seed(seed)), threshold=0.3)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    n_tokens=st.integers(1, 50),
    k=st.integers(1, 12),
    batch_size=st.integers(1, 60),
)
def test_the_threshold_is_the_order_statistic_that_sorting_gives(seed, n_tokens, k, batch_size):
    sae = random_sae(seed)
    x = torch.randn(n_tokens, 6, generator=torch.Generator().manual_seed(seed + 1))
    ranked = np.sort(np.maximum((x @ sae.W_enc).numpy(), 0).ravel())[::-1]
    n_positive, n_wanted = int((ranked > 0).sum()), k * n_tokens
    threshold = saes.set_threshold(sae, x, k, batch_size=batch_size)
    assert torch.equal(sae.threshold, torch.full((12,), threshold))
    assert int(sae.encode(x).count_nonzero()) == min(n_wanted, n_positive)
    if n_positive > n_wanted:
        assert threshold == pytest.approx((ranked[n_wanted - 1] + ranked[n_wanted]) / 2, rel=1e-5)
    else:
        assert threshold == 0


def test_tokens_that_tie_stay_inactive_together():
    sae = make_sae(torch.eye(3), threshold=0.0)
    x = torch.tensor([[3.0, 1.0, 0.0], [2.0, 1.0, 0.0], [2.0, 1.0, 0.0]])
    # The third and fourth largest of 3 2 2 1 1 1 differ, the second and third do not.
    assert saes.set_threshold(sae, x, 1) == 1.5
    assert saes.set_threshold(sae, x[:2], 1) == 1.5
    assert saes.set_threshold(sae, x[1:].repeat(1, 1), 1) == 1.5
    tied = torch.tensor([[2.0, 2.0, 0.0]])
    assert saes.set_threshold(sae, tied, 1) == 2.0
    assert saes.l0(sae.encode(tied)) == 0.0


def test_neighboring_floats_are_told_apart():
    sae = make_sae(torch.eye(2), threshold=0.0)
    low = np.float32(1.0)
    high = np.nextafter(low, np.float32(2.0))
    x = torch.from_numpy(np.array([[low, high]]))
    saes.set_threshold(sae, x, 1)
    assert sae.encode(x).ne(0).tolist() == [[False, True]]


def test_only_a_jumprelu_has_a_threshold():
    with pytest.raises(SAEError, match="StandardSAE, which has no threshold"):
        saes.set_threshold(make_sae(torch.eye(3)), torch.ones(2, 3), 1)


@pytest.mark.parametrize(
    ("x", "k", "batch_size", "message"),
    [
        (torch.ones(2, 4), 1, 8, "4 wide, the SAE's d_in is 3"),
        (torch.ones(2, 3), 4, 8, "k_per_token is 4 and d_sae 3"),
        (torch.ones(2, 3), 0, 8, "k_per_token is 0"),
        (torch.ones(2, 3), 1, 0, "batch_size is 0"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(x, k, batch_size, message):
    sae = make_sae(torch.eye(3), threshold=0.7)
    with pytest.raises(SAEError, match=message):
        saes.set_threshold(sae, x, k, batch_size=batch_size)
    assert torch.equal(sae.threshold, torch.full((3,), 0.7))
