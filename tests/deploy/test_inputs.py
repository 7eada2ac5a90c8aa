"""Pictures that are asked about once are read as stored ones are, and are not taken for others of their kind."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.deploy.inputs import InMemoryPixels


def test_pictures_in_memory_are_read_like_stored_ones() -> None:
    squares = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    made = InMemoryPixels(squares)
    rows = np.array([2, 0, 2], dtype=np.int64)
    np.testing.assert_array_equal(made.batch(rows), squares[[2, 0, 2]])
    np.testing.assert_array_equal(np.stack(made.read_each(rows)), squares[[2, 0, 2]])
    np.testing.assert_array_equal(made.array, squares)
    assert made.batch(rows).flags.writeable and len(made) == 4
    with pytest.raises(IndexError):
        made.batch(np.array([4], dtype=np.int64))
    assert not made.stored  # a GPU keeps stored sets by their identity, and two parts of one answer have the same
