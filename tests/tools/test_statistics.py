"""Averages and intervals against numbers worked out by hand."""

import numpy as np
import pytest

from dima_isaac.tools.statistics import bootstrap, iqm, wilson


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


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"), [(50, 100, 0.4038, 0.5962), (4, 4, 0.5101, 1.0), (0, 128, 0.0, 0.0291)]
)
def test_interval_of_a_proportion(successes, count, low, high):
    """Wilson's, from his formula by hand."""
    assert wilson(successes, count) == pytest.approx((low, high), abs=1e-4)
