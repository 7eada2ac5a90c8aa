from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.storage import ArrayPictures, FilePictures, LazyArray, hash_picture

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


def load_images(scale: int) -> np.ndarray:
    return IMAGES // scale


def test_an_array_is_loaded_when_first_used_and_pickled_without_its_values() -> None:
    lazy = LazyArray(load_images, 2)
    assert lazy._array is None
    np.testing.assert_array_equal(lazy.array, IMAGES // 2)
    assert lazy.array is lazy.array
    again = pickle.loads(pickle.dumps(lazy))  # noqa: S301
    assert again._array is None
    np.testing.assert_array_equal(again.array, IMAGES // 2)


def test_rows_of_an_array_have_digests_of_their_shape_and_pixels() -> None:
    pictures = ArrayPictures(LazyArray(load_images, 1), np.array([3, 1]), "x")
    rows = np.array([0, 1])
    assert pictures.digests(rows) == [hash_picture(IMAGES[3]).hex(), hash_picture(IMAGES[1]).hex()]
    assert pictures.select(np.array([1])).identity(np.array([0])) != pictures.identity(rows)
    assert hash_picture(np.zeros((2, 3), np.uint8)) != hash_picture(np.zeros((3, 2), np.uint8))
    assert pictures.shape(0) == (6, 5)
    np.testing.assert_array_equal(pictures.read(0), IMAGES[3])


def test_files_are_read_by_their_names(zoo: Path) -> None:
    pictures = FilePictures(zoo, ["dog/b.png", "cat/a.png", "none.png"])
    assert pictures.shape(0) == (20, 30) and pictures.read(1).shape == (20, 30, 3)
    assert pictures.byte_count(0) == (zoo / "dog/b.png").stat().st_size and pictures.byte_count(2) == 0
    assert pictures.select(np.array([1])).file_names == ["cat/a.png"]
    with pytest.raises(DataError, match=r"none\.png: the file cannot be read"):
        pictures.shape(2)
