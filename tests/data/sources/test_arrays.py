from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.arrays import from_arrays, open_digits

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


def test_digits_equal_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), open_digits()
    assert len(ours) == 1797 and ours.classes == tuple("0123456789")
    np.testing.assert_array_equal(ours.labels, theirs.target)
    for row in (0, 900, 1796):
        np.testing.assert_array_equal(ours.read(row)[:, :, 1], np.floor(theirs.images[row] * 255 / 16 + 0.5))


def test_an_alpha_channel_is_composited_on_white() -> None:
    clear = np.zeros((2, 3, 3, 4), dtype=np.uint8)
    clear[1, ..., 3] = 255
    dataset = from_arrays(clear, ["a", "b"])
    assert (dataset.read(0) == 255).all() and (dataset.read(1) == 0).all()


def test_arrays_of_unequal_length_are_refused() -> None:
    with pytest.raises(DataError, match="3 labels came for 4 images"):
        from_arrays(IMAGES, [1, 2, 3])
