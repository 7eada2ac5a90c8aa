"""What an array is, by its name and those beside it."""

from __future__ import annotations

import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.array_names import assign_arrays


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (["images", "labels"], [""]),
        (["X", "Y", "notes"], [""]),
        (["train_images", "train_labels", "val_images", "val_labels"], ["train", "val"]),
        (["x_train", "y_train", "x_test", "y_test"], ["train", "test"]),
        (["train/images", "train/labels", "validation/image", "validation/label"], ["train", "val"]),
        (["train_set_x", "train_set_y"], ["train"]),
    ],
)
def test_usual_names(names: list[str], parts: list[str]) -> None:
    found = assign_arrays("x.h5", names)
    assert [one.part for one in found] == parts and all(set(one.arrays) == {"images", "labels"} for one in found)


def test_class_names_are_of_their_part_or_of_all() -> None:
    names = ["train_images", "train_labels", "test_images", "test_labels"]
    assert [one.classes for one in assign_arrays("x", [*names, "classes"])] == ["classes", "classes"]
    own = [*names, "train_classes", "test_classes"]
    assert [one.classes for one in assign_arrays("x", own)] == ["train_classes", "test_classes"]
    assert [one.classes for one in assign_arrays("x", [*names, "train_classes"])] == ["train_classes", "train_classes"]


def test_a_named_array_replaces_the_usual_one() -> None:
    (found,) = assign_arrays("x", ["images", "labels", "Stained"], {"image": "stained"})
    assert found.arrays == {"images": "Stained", "labels": "labels"}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["images"], "x has no array 'labels'; expected images"),
        ([], "x has no array 'images'"),
        (["images", "x", "labels"], "x has two arrays of images, 'images' and 'x': keep one"),
        (["images", "labels", "train_images", "train_labels"], "it is not clear which rows the images belong to"),
    ],
)
def test_names_that_do_not_tell_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        assign_arrays("x", names)
