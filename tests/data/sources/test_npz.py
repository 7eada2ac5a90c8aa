from __future__ import annotations

import io
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.npz import open_npz

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


def saved(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **{"images": IMAGES, "labels": np.array([0, 1, 1, 0]), **arrays})
    return path


def test_npz_with_every_key(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "x.npz",
        classes=np.array(["no", "yes"]),
        ids=np.array(list("abcd")),
        groups=np.array([1, 1, 2, 2]),
        sites=np.array(["s", "s", "t", "t"]),
        parts=np.array(["train", "train", "Validation", "test"]),
    )
    dataset = open_npz(path)
    assert dataset.classes == ("no", "yes") and dataset.labels.tolist() == [0, 1, 1, 0] and dataset.ids.tolist() == list("abcd")
    assert dataset.groups is not None and dataset.groups.tolist() == ["1", "1", "2", "2"]
    assert dataset.parts is not None and dataset.parts.tolist() == ["train", "train", "val", "test"]
    np.testing.assert_array_equal(dataset.select_rows(np.array([2])).read(0), IMAGES[2])


def test_text_labels_and_greyscale(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", images=IMAGES[..., :1], labels=np.array(["b", "a", "", "a"]))
    with pytest.raises(DataError, match=r"x\.npz, row 2: the label is empty here and given elsewhere \(1 of 4 rows have none\)"):
        open_npz(path)
    dataset = open_npz(path, on_bad_input="skip")
    assert dataset.classes == ("a", "b") and dataset.labels.tolist() == [1, 0, -1, 0]
    np.testing.assert_array_equal(dataset.read(1), np.repeat(IMAGES[1, ..., :1], 3, axis=2))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": IMAGES.astype(np.float32) / 255}, "images are float32, expected uint8"),
        ({"images": IMAGES[0]}, r"'labels' has the shape \(4,\) .* expected \(6,\)"),
        ({"images": IMAGES[..., :2]}, r"images have the shape \(4, 6, 5, 2\)"),
        ({"labels": np.array([0, 1])}, r"'labels' has the shape \(2,\)"),
        ({"labels": np.array([0.5, 1, 1, 0])}, r"a label is 0\.5 \(float\), expected whole numbers or words"),
        ({"labels": np.array([{}, 1, 1, 0], dtype=object)}, "it holds pickled objects, which are not read"),
        ({"classes": np.array(["only"])}, "the label 1 came, but 'classes' names 1"),
        ({"labels": np.array(["x", "z", "x", "y"]), "classes": np.array(["x", "y"])}, "the label 'z' is not in 'classes'"),
        ({"parts": np.array(["train", "train", "dev0", "test"])}, "parts holds 'dev0'; expected train, val or test"),
    ],
)
def test_errors_in_an_npz_are_named(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_npz(saved(tmp_path / "x.npz", **arrays))


def test_missing_keys_and_files_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", labels=np.array([1]))
    with pytest.raises(DataError, match=r"a\.npz has no array 'images'"):
        open_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=IMAGES)
    with pytest.raises(DataError, match=r"b\.npz has no array 'labels'"):
        open_npz(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"c\.npz is damaged or no \.npz file"):
        open_npz(tmp_path / "c.npz")
    with pytest.raises(DataError, match="there is no such file"):
        open_npz(tmp_path / "d.npz")


def test_a_pickle_for_images_is_not_run(tmp_path: Path) -> None:
    class Malice:
        def __reduce__(self) -> Any:
            return (tmp_path / "was-here").touch, ()

    with pytest.raises(DataError, match="images are object, expected uint8"):
        open_npz(saved(tmp_path / "x.npz", images=np.array([Malice(), 1, 2, 3], dtype=object)))
    assert not (tmp_path / "was-here").exists()


def test_a_pickled_npz_dataset_contains_no_pixels(tmp_path: Path) -> None:
    dataset = open_npz(saved(tmp_path / "x.npz", images=np.zeros((4, 300, 300, 3), dtype=np.uint8)))
    dataset.read(0)
    assert len(pickle.dumps(dataset)) < 10_000


def joined(*parts: str) -> list[str]:
    return [part for part in parts for _ in range(4)]


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("{}_images", "{}_labels"),  # MedMNIST
        ("x_{}", "y_{}"),  # Keras
        ("X_{}", "Y_{}"),
        ("{}_x", "{}_y"),
        ("{}_data", "{}_targets"),
    ],
)
def test_a_set_of_arrays_for_each_part_is_joined(tmp_path: Path, images: str, labels: str) -> None:
    arrays = {}
    for number, part in enumerate(("train", "val", "test")):
        arrays[images.format(part)] = IMAGES[..., 0] + number
        arrays[labels.format(part)] = np.array([[0], [1], [1], [number]], dtype=np.uint8)
    np.savez(tmp_path / "set.npz", **arrays)
    dataset = open_npz(tmp_path / "set.npz")
    assert dataset.parts is not None and dataset.parts.tolist() == joined("train", "val", "test")
    assert dataset.labels.tolist() == [0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 2] and dataset.ids[4] == "val/0"
    np.testing.assert_array_equal(dataset.read(9)[..., 0], IMAGES[1, ..., 0] + 2)


def test_classes_of_parts_that_number_them_differently_are_joined_by_name(tmp_path: Path) -> None:
    arrays = {f"{part}_images": IMAGES for part in ("train", "test")} | {
        f"{part}_labels": [0, 1, 0, 1] for part in ("train", "test")
    }
    np.savez(tmp_path / "a.npz", **arrays, train_classes=["cat", "dog"], test_classes=["dog", "cat"])
    dataset = open_npz(tmp_path / "a.npz")
    assert [dataset.classes[label] for label in dataset.labels] == ["cat", "dog", "cat", "dog", "dog", "cat", "dog", "cat"]
    assert dataset.notes[0].startswith("the files number their 2 classes differently")
    np.savez(tmp_path / "b.npz", **arrays, train_classes=["cat", "dog"])
    assert open_npz(tmp_path / "b.npz").labels.tolist() == [0, 1, 0, 1] * 2


def test_one_set_may_use_any_usual_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=IMAGES, y=np.array([0.0, 1.0, np.nan, 1.0]), group=np.array([1.0, 1.0, 2.0, 3.0]))
    dataset = open_npz(tmp_path / "a.npz", on_bad_input="skip")
    assert dataset.labels.tolist() == [0, 1, -1, 1] and dataset.ids.tolist() == list("0123") and dataset.parts is None
    assert dataset.groups is not None and dataset.groups.tolist() == ["1", "1", "2", "3"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"train_images": IMAGES}, r"has no array 'labels' of the part train; expected images"),
        ({"x_train": IMAGES, "y_train": np.zeros(4, int), "y_test": np.zeros(4, int)}, "no array 'images' of the part test"),
        ({"images": IMAGES, "x": IMAGES, "y": np.zeros(4, int)}, "has two arrays of images, 'images' and 'x': keep one"),
        (
            {"train_images": IMAGES, "train_labels": np.zeros((4, 14), int)},
            r"'train_labels' has the shape \(4, 14\) .*; where a picture has several of these labels, say multi_label: true",
        ),
        (
            {"x_train": IMAGES, "y_train": np.zeros(4, int), "x_test": IMAGES[:, :3], "y_test": np.zeros(4, int)},
            r"the parts have pictures of the shapes \(6, 5, 3\) and \(3, 5, 3\), expected one shape",
        ),
        ({"images": IMAGES, "labels": np.zeros(4, int), "groups": np.array(["a", "b", "", "b"])}, r"1 of 4 rows have none"),
        (
            {"x_train": IMAGES, "y_train": np.zeros(4, int), "groups": np.arange(4)},
            r"has 'groups' and 'x_train': it is not clear which rows the groups belong to; name every array with its part",
        ),
        ({"images": IMAGES, "labels": np.zeros(4, int), "test_labels": np.zeros(4, int)}, "has 'images' and 'test_labels'"),
        ({"spectra": IMAGES}, r"has no array 'images'; .* it has spectra"),
    ],
)
def test_arrays_that_do_not_fit_together_are_named(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(DataError, match=words):
        open_npz(tmp_path / "x.npz")


def test_pictures_of_one_shape_only_are_joined_and_groups_keep_their_parts(tmp_path: Path) -> None:
    arrays = {"x_train": IMAGES, "y_train": list("abab"), "x_test": IMAGES, "y_test": list("abab")}
    np.savez(tmp_path / "x.npz", **arrays, train_groups=[1, 1, 2, 2], test_groups=[3.0, 3.0, 4.0, 4.0])
    groups = open_npz(tmp_path / "x.npz").groups
    assert groups is not None and groups.tolist() == list("11223344")
    np.savez(tmp_path / "x.npz", **arrays, train_groups=[1, 1, 2, 2])
    with pytest.raises(DataError, match=r"the group is empty here and given elsewhere \(4 of 8 rows have none\)"):
        open_npz(tmp_path / "x.npz")


def test_an_array_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "x.npz")
    with zipfile.ZipFile(tmp_path / "y.npz", "w") as archive, zipfile.ZipFile(tmp_path / "x.npz") as whole:
        archive.writestr("images.npy", whole.read("images.npy"))
        archive.writestr("labels.npy", whole.read("labels.npy").replace(b"(4,), }        ", b"(40000000000,)}"))
    with pytest.raises(
        DataError, match=r"y\.npz is damaged: the array 'labels' of the shape \(40000000000,\) needs more than its"
    ):
        open_npz(tmp_path / "y.npz")


@pytest.mark.parametrize("column", ["labels", "ids", "groups", "classes"])
def test_a_small_file_whose_names_unfold_to_gigabytes_is_refused_before_they_are_read(tmp_path: Path, column: str) -> None:  # X5
    width = 2_500_000
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": f"<U{width}", "fortran_order": False, "shape": (2,)})
    sound = {"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0, 1])}
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in sound.items():
            if name != column:
                plain = io.BytesIO()
                np.save(plain, array)
                archive.writestr(f"{name}.npy", plain.getvalue())
        with archive.open(f"{column}.npy", "w") as file:
            file.write(header.getvalue())
            for _ in range(2):
                file.write(bytes(10_000_000))
    tracemalloc.start()
    with pytest.raises(DataError, match=f"'{column}' has cells of 9.5"):
        open_npz(tmp_path / "bomb.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("kind", ["float64", "bool", "uint8"])
def test_one_hot_labels_are_class_numbers(tmp_path: Path, kind: str) -> None:
    table = np.eye(3)[[2, 0, 1, 1]].astype(kind)
    dataset = open_npz(saved(tmp_path / "x.npz", labels=table, classes=np.array(["a", "b", "c"])))
    assert [dataset.classes[label] for label in dataset.labels] == ["c", "a", "b", "b"]
    table[1] = 1
    with pytest.raises(DataError, match=r"where a picture has several of these labels, say multi_label: true"):
        open_npz(saved(tmp_path / "y.npz", labels=table))


def test_an_array_called_as_groups_are_is_noted_where_it_is_not_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.npz", patient_id=np.array([1, 1, 2, 2]), height=np.array([1, 2, 3, 4]))
    assert any("'patient_id' was not read" in note and note.endswith("call it groups") for note in open_npz(path).notes)
    path = saved(tmp_path / "y.npz", patient_id=np.array([1, 1, 2, 2]), groups=np.array([1, 1, 2, 2]))
    assert not any("not read" in note for note in open_npz(path).notes)
