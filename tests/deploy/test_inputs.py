"""Pixels in memory are read as stored ones are."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.data.images.pixels import InMemoryPixels


def test_pixels_in_memory_are_read_like_stored_ones() -> None:
    squares = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    pixels = InMemoryPixels(squares)
    rows = np.array([2, 0, 2], dtype=np.int64)
    np.testing.assert_array_equal(pixels.batch(rows), squares[[2, 0, 2]])
    np.testing.assert_array_equal(np.stack(pixels.read_each(rows)), squares[[2, 0, 2]])
    np.testing.assert_array_equal(pixels.array, squares)
    assert pixels.batch(rows).flags.writeable and len(pixels) == 4
    with pytest.raises(IndexError):
        pixels.batch(np.array([4], dtype=np.int64))
    assert not pixels.stored  # else a GPU would keep them under an identity that all chunks share
