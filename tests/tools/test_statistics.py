"""Averages and intervals against numbers worked out by hand."""

import numpy as np
import pytest

from dima_isaac.tools.statistics import bootstrap, iqm, mean


def test_iqm_cuts_a_quarter_from_each_end():
    assert iqm(np.array([100.0, 1.0, 2.0, -50.0])) == 1.5
    assert iqm(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0])) == 3.5


@pytest.mark.parametrize("scores", [[4.0], [1.0, 2.0], [1.0, 2.0, 9.0]])
def test_iqm_of_fewer_than_four_is_the_mean(scores):
    assert iqm(np.array(scores)) == pytest.approx(sum(scores) / len(scores))


def test_iqm_works_column_by_column():
    scores = np.array([[1.0, 40.0], [2.0, 30.0], [3.0, 20.0], [4.0, 10.0]])
    np.testing.assert_array_equal(iqm(scores), [2.5, 25.0])


def test_a_single_score_has_no_width():
    assert [float(end) for end in bootstrap(np.array([3.0]))] == [3.0, 3.0]


def test_interval_of_the_mean_of_coin_flips():
    """100 flips with 50 heads: the standard error is 0.05, so the 95 % interval is 0.5 +- 0.098."""
    flips = np.repeat([0.0, 1.0], 50)
    lower, upper = bootstrap(flips, mean)
    assert lower == pytest.approx(0.402, abs=0.015) and upper == pytest.approx(0.598, abs=0.015)
