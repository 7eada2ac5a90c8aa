"""Ranks are those of scipy, to the last bit."""

import numpy as np
import pytest
from scipy.stats import rankdata

from phoropter.results.stats.ranks import average_ranks


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (300, 40), (4, 0)])
@pytest.mark.parametrize("distinct", [1, 3, 10**6])
def test_ranks_are_those_of_scipy(shape: tuple[int, int], axis: int, distinct: int) -> None:
    values = np.random.default_rng(0).integers(0, distinct, shape) / 7
    np.testing.assert_array_equal(average_ranks(values, axis), rankdata(values, axis=axis))


def test_a_single_row_is_ranked() -> None:
    assert average_ranks(np.array([0.3, 0.1, 0.3, -2.0])).tolist() == [3.5, 2.0, 3.5, 1.0]
