"""Effect sizes against scipy and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vitlens.comparison.effects import cohens_g, d_z


def test_d_z_is_the_paired_t_over_the_root_of_n():
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2, 25, 4))
    t = stats.ttest_rel(after, before).statistic
    np.testing.assert_allclose(d_z(after - before), t / 5)


def test_d_z_knows_no_unit_but_the_direction():
    differences = np.random.default_rng(1).exponential(size=(12, 3))
    np.testing.assert_allclose(d_z(-1000 * differences), -d_z(differences))


def test_d_z_leaves_missing_images_out_of_their_own_column():
    differences = np.random.default_rng(2).normal(size=(20, 2))
    holed = differences.copy()
    holed[[3, 4], 0] = np.nan, np.inf
    np.testing.assert_allclose(
        d_z(holed), [d_z(np.delete(differences, [3, 4], axis=0))[0], d_z(differences)[1]]
    )


@pytest.mark.parametrize(
    "column", [[0.1] * 5, [0.0] * 5, [1e-300] * 3, [2.0], [np.nan, np.nan], [np.nan, 3.0]]
)
def test_d_z_is_unknown_where_nothing_varies(column):
    assert np.isnan(d_z(np.array(column)[:, None])).all()


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_cohens_g_is_the_share_of_gains_less_a_half(gained, lost):
    g = float(cohens_g(np.array(gained), np.array(lost)))
    if gained + lost == 0:
        assert np.isnan(g)
    else:
        assert g == pytest.approx(gained / (gained + lost) - 0.5)
        assert g == pytest.approx(-float(cohens_g(np.array(lost), np.array(gained))))
