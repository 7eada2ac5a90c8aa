"""Distinct values and the number of each, as NumPy's own function finds them."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.results.metrics.distinct_values import MAX_RANGE, number_values


@pytest.mark.parametrize(
    "values",
    [
        np.array([7, -3, 7, 0, 12, -3]),
        np.array([3, 200, 3], dtype=np.uint8),
        np.array([-128, 127, 0] * 20, dtype=np.int8),  # the range does not fit the type
        np.array([2**64 - 1, 2**64 - 6], dtype=np.uint64),
        np.array([0, 10 * MAX_RANGE, 5]),  # too far apart to be counted
        np.array(["b", "a", "b"]),
        np.array([], dtype=np.int64),
        np.array([2.5, 1.5, 2.5]),
    ],
)
def test_they_are_those_of_a_sort(values: np.ndarray) -> None:  # type: ignore[type-arg]
    distinct, member = number_values(values)
    expected, inverse = np.unique(values, return_inverse=True)
    assert distinct.dtype == expected.dtype and member.dtype == np.int64
    assert np.array_equal(distinct, expected) and np.array_equal(member, inverse)
