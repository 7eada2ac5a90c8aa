from __future__ import annotations

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.arrays import convert_labels, from_arrays, open_digits

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


def test_missing_groups_are_refused_and_missing_labels_counted() -> None:
    with pytest.raises(DataError, match=r"arrays: the group is empty here and given elsewhere \(1 of 4 rows have none\)"):
        from_arrays(IMAGES, list("abab"), groups=np.array([1.0, 1.0, 2.0, np.nan]))
    dataset = from_arrays(IMAGES, np.array([1.0, np.nan, 0.0, 1.0]), groups=np.array([1.0, 1.0, 2.0, 3.0]), sites=[None] * 4)
    assert dataset.labels.tolist() == [1, -1, 0, 1] and dataset.classes == ("0", "1") and dataset.sites is None
    assert dataset.groups is not None and dataset.groups.tolist() == ["1", "1", "2", "3"]
    assert dataset.notes == ("1 of 4 rows have no label",)


def test_classes_of_one_name_are_told_apart_by_their_number() -> None:
    labels, classes = convert_labels([0, 1, 2, "1"], ["crane", "dog", "crane"], "x")
    assert classes == ("crane #0", "dog", "crane #2") and labels.tolist() == [0, 1, 2, 1]
    assert convert_labels(["0", "1 ", ""], ["cat", "dog"], "x")[0].tolist() == [0, 1, -1]
    assert convert_labels([" dog", "cat\u200b"], ["cat", "dog"], "x")[0].tolist() == [1, 0]


def test_rows_outside_the_official_parts_and_names_that_differ_in_case_are_noted() -> None:
    dataset = from_arrays(IMAGES, ["cat", "Cat", "dog", "dog"], groups=["p", "P", "q", "q"], parts=["train", "test", "", "test"])
    assert dataset.notes == (
        "1 of 4 rows belong to no official part",
        "class names that differ in case only: Cat or cat",
        "groups that differ in case only: p or P",
    )
