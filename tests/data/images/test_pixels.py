from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from phoropter.data.images.cache import prepare_pixels
from phoropter.data.sources.folder import open_folder


def test_a_batch_is_a_writable_copy(zoo: Path, tmp_path: Path) -> None:
    _, pixels = prepare_pixels(open_folder(zoo), 16, cache=tmp_path)
    out = np.empty((2, 3, 16, 16), dtype=np.uint8)
    batch = pixels.batch(np.array([1, 2]), out=out)
    assert batch is out and batch.flags.c_contiguous
    batch[:] = 0
    assert pixels.array[1].any() and not pixels.array.flags.writeable


@pytest.mark.parametrize("rows", [[-1], [5], [0, 7]])
def test_rows_outside_the_dataset_are_refused(zoo: Path, tmp_path: Path, rows: list[int]) -> None:
    _, pixels = prepare_pixels(open_folder(zoo), 8, cache=tmp_path)
    with pytest.raises(IndexError, match=r"expected rows in 0\.\.4"):
        pixels.batch(np.array(rows))


def test_pickled_pixels_are_a_path(zoo: Path, tmp_path: Path) -> None:
    _, pixels = prepare_pixels(open_folder(zoo), 64, cache=tmp_path)
    pixels.batch(np.array([0]))
    sent = pickle.dumps(pixels)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent).array, pixels.array)  # noqa: S301
