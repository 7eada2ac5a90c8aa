"""HDF5 files: pictures as arrays and as encoded bytes, parts, and that no other file is opened."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.inspect import detect_data_spec
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.packed.hdf5 import open_hdf5
from phoropter.data.spec import DataSpec, open_dataset

h5py = pytest.importorskip("h5py")

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
LABELS = [0, 1, 0, 1, 0, 1, 1]


def written(path: Path, **arrays: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in ({"images": IMAGES, "labels": LABELS} | arrays).items():
            if values is not None:
                file[name.replace("__", "/")] = values
    return path


def test_arrays_give_what_the_same_arrays_in_memory_give(tmp_path: Path) -> None:
    path = written(
        tmp_path / "x.h5",
        classes=["no", "yes"],
        groups=[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0],
        sites=np.array([b"a", b"b"] * 3 + [b"a"]),
        parts=["train"] * 4 + ["Validation", "test", "test"],
        ids=[f"r{at}" for at in range(7)],
    )
    dataset = open_dataset(detect_data_spec(path))
    memory = from_arrays(IMAGES, ["no" if label == 0 else "yes" for label in LABELS])
    assert dataset.classes == memory.classes and dataset.labels.tolist() == memory.labels.tolist()
    assert dataset.digests() == memory.digests() and dataset.ids.tolist() == [f"r{at}" for at in range(7)]
    assert dataset.groups is not None and dataset.groups.tolist() == list("1122333")
    assert dataset.sites is not None and dataset.sites.tolist() == list("abababa")
    assert dataset.parts is not None and dataset.parts.tolist() == ["train"] * 4 + ["val", "test", "test"]
    again = pickle.loads(pickle.dumps(dataset))  # noqa: S301
    for row in range(7):
        np.testing.assert_array_equal(again.read(row), IMAGES[row])


@pytest.mark.parametrize("chunks", [None, (2, 6, 5, 3), (7, 1, 1, 1)])
def test_chunked_and_compressed_arrays(tmp_path: Path, chunks: Any) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        file.create_dataset("images", data=IMAGES, chunks=chunks, compression="gzip" if chunks else None)
        file["labels"] = np.array(LABELS)[:, None, None, None]
    dataset = open_hdf5(tmp_path / "x.hdf5")
    np.testing.assert_array_equal(np.stack([dataset.read(row) for row in (6, 0, 3)]), IMAGES[[6, 0, 3]])
    assert dataset.labels.tolist() == LABELS


def test_grey_pictures(tmp_path: Path) -> None:
    for grey in (IMAGES[..., 0], IMAGES[..., :1]):
        dataset = open_hdf5(written(tmp_path / "x.h5", images=grey))
        np.testing.assert_array_equal(dataset.read(2), np.repeat(IMAGES[2, ..., :1], 3, axis=2))


@pytest.mark.parametrize("how", ["bytes", "opaque"])
def test_encoded_pictures(zoo: Path, tmp_path: Path, how: str) -> None:
    names = ["cat/a.png", "dog/a.png", "dog/b.png"]
    contents = [(zoo / name).read_bytes() for name in names]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if how == "bytes":
            array = file.create_dataset("images", (3,), dtype=h5py.vlen_dtype(np.uint8))
            for at, content in enumerate(contents):
                array[at] = np.frombuffer(content, np.uint8)
        else:
            size = max(map(len, contents))
            file["images"] = np.array([content.ljust(size, b"\0") for content in contents], dtype=f"V{size}")
        file["labels"] = ["cat", "dog", "dog"]
    dataset, files = open_hdf5(tmp_path / "x.h5"), open_folder(zoo)
    for row, name in enumerate(names):
        np.testing.assert_array_equal(dataset.read(row), files.read(files.ids.tolist().index(name)))


def test_parts_in_groups_names_and_files(tmp_path: Path) -> None:
    half = {"images": None, "labels": None}
    inside = written(
        tmp_path / "a.h5", **half, train__images=IMAGES, train__labels=LABELS, test__images=IMAGES, test__labels=LABELS
    )
    dataset = open_hdf5(inside)
    assert dataset.parts is not None and dataset.parts.tolist() == ["test"] * 7 + ["train"] * 7 and dataset.ids[8] == "a/train/1"
    both = tmp_path / "cats"
    written(both / "train_cats.h5", **half, train_set_x=IMAGES, train_set_y=LABELS, list_classes=[b"non-cat", b"cat"])
    written(both / "test_cats.h5", **half, test_set_x=IMAGES, test_set_y=LABELS, list_classes=[b"cat", b"non-cat"])
    dataset = open_dataset(detect_data_spec(both))
    assert dataset.parts is not None and dataset.parts.tolist() == ["test"] * 7 + ["train"] * 7
    assert [dataset.classes[label] for label in dataset.labels[[0, 7]]] == ["cat", "non-cat"]  # both are number 0


def test_columns_name_arrays(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.h5", labels=None, images=None, scans=IMAGES, meta__diagnosis=LABELS, meta__patient=list("aabbccc")
    )
    dataset = open_hdf5(path, columns={"image": "scans", "label": "meta/diagnosis", "group": "Meta/Patient"})
    assert dataset.groups is not None and dataset.groups.tolist() == list("aabbccc") and dataset.labels.tolist() == LABELS
    with pytest.raises(DataError, match=r"a\.h5 has no array 'images'; expected images .*; it has .*meta/diagnosis"):
        open_hdf5(path)


def test_half_filled_labels_are_refused_with_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.h5", labels=[0.0, 1.0, np.nan, 1.0, 0.0, 0.0, 1.0])
    with pytest.raises(DataError, match=r"a\.h5, row 2: the label is empty here .* \(1 of 7 rows have none\)"):
        open_hdf5(path)
    assert open_hdf5(path, on_bad_input="skip").labels.tolist() == [0, 1, -1, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": IMAGES / 255}, "images are float64, expected uint8"),
        ({"images": IMAGES[..., :2]}, r"images have the shape \(7, 6, 5, 2\)"),
        ({"labels": [0, 1]}, r"'labels' has the shape \(2,\) .*expected \(7,\)"),
        ({"labels": np.zeros((7, 3), int)}, "a picture has one label here, and these have several"),
        ({"labels": None}, r"has no array 'labels'"),
        ({"x": IMAGES}, "has two arrays of images, 'images' and 'x': keep one"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_hdf5(written(tmp_path / "x.h5", **arrays))


def test_no_other_file_is_opened(tmp_path: Path) -> None:
    other = written(tmp_path / "secret" / "other.h5")
    raw = tmp_path / "secret" / "raw.bin"
    raw.write_bytes(IMAGES.tobytes())
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["images"], file["labels"] = h5py.ExternalLink(str(other), "images"), LABELS
    with pytest.raises(DataError, match=r"has no array 'images'"):
        open_hdf5(tmp_path / "link.h5")
    with pytest.raises(DataError, match=r"has no column 'images'"):
        open_hdf5(tmp_path / "link.h5", columns={"image": "images"})
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("images", IMAGES.shape, np.uint8, external=[(str(raw), 0, IMAGES.nbytes)])
        file["labels"] = LABELS
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:] = h5py.VirtualSource(str(other), "images", IMAGES.shape)
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file.create_virtual_dataset("images", layout)
        file["labels"] = LABELS
    for name in ("external.h5", "virtual.h5"):
        with pytest.raises(DataError, match=r"'images' is stored in other files, which are not opened"):
            open_hdf5(tmp_path / name)


def test_enormous_promises_and_damage(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file.create_dataset("images", (7, 60_000, 60_000), np.uint8, chunks=(1, 64, 64))
        file["labels"] = LABELS
    with pytest.raises(DataError, match="promises more than 100 million pixels"):
        open_hdf5(tmp_path / "big.h5")
    with h5py.File(tmp_path / "chunk.h5", "w") as file:
        file.create_dataset("images", (2_000_000, 600, 1), np.uint8, chunks=(1_900_000, 600, 1), compression="gzip")
        file["labels"] = LABELS
    with pytest.raises(DataError, match="stored in chunks of more than"):
        open_hdf5(tmp_path / "chunk.h5")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.create_dataset("images", (7, 3000, 3000), np.uint8, chunks=(1, 300, 300))  # and nothing written into it
        file["labels"] = LABELS
    with pytest.raises(DataError, match=r"holds less than its shape \(7, 3000, 3000\) promises"):
        open_hdf5(tmp_path / "empty.h5")
    path = written(tmp_path / "x.h5")
    dataset = open_hdf5(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"x\.h5 is damaged or no HDF5 file"):
        open_hdf5(path)
    with pytest.raises(DataError, match=r"x\.h5 is damaged or no HDF5 file"):
        dataset.read(0)


def test_one_hot_labels_are_class_numbers(tmp_path: Path) -> None:
    path = written(tmp_path / "x.h5", labels=np.eye(2)[LABELS], patients=np.arange(7))
    dataset = open_hdf5(path)
    assert dataset.labels.tolist() == LABELS
    assert any("'patients' was not read" in note for note in dataset.notes)
    with pytest.raises(DataError, match="these have several"):
        open_hdf5(written(tmp_path / "y.h5", labels=np.ones((7, 2))))


SETS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [-1, -1, -1], [1, 1, 0], [0, 0, 1], [0, 1, 1]])


def test_a_table_of_labels_gives_what_it_gives_in_an_npz(tmp_path: Path) -> None:
    """Also of two files, joined by the names of their labels, and where no row of a file has the last."""
    names = ["edema", "mass", "nodule"]
    np.savez(tmp_path / "x.npz", images=IMAGES, labels=SETS, classes=names)
    asked = {"multi_label": True, "on_bad_input": "skip"}
    npz = open_dataset(DataSpec.model_validate({"npz": tmp_path / "x.npz", **asked}))
    path = written(tmp_path / "x.h5", labels=SETS, classes=names)
    dataset = open_dataset(DataSpec.model_validate({"hdf5": path, **asked}))
    assert dataset.is_multi_label and dataset.classes == npz.classes == tuple(names)
    assert dataset.labels.tolist() == npz.labels.tolist() == SETS.tolist()
    written(tmp_path / "two/a.h5", labels=SETS[:, :2], classes=names[:2])
    written(tmp_path / "two/b.h5", labels=SETS[:, ::-1] * (SETS[:, ::-1] > 0), classes=names[::-1])
    both = open_hdf5(tmp_path / "two", multi_label=True, on_bad_input="skip")
    assert both.classes == tuple(names)
    assert both.labels[[0, 4, 7, 10]].tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_tables_of_labels_without_names_have_the_same_columns(tmp_path: Path) -> None:
    for name, labels in (("a.h5", SETS[4:, :2]), ("b.h5", SETS[4:])):
        written(tmp_path / "two" / name, images=IMAGES[4:], labels=labels)
    with pytest.raises(
        DataError, match=r"the labels of a\.h5 are label 1 or label 2, those of b\.h5 label 1, label 2 or label 3"
    ):
        open_hdf5(tmp_path / "two", multi_label=True)
    written(tmp_path / "two" / "a.h5", images=IMAGES[4:], labels=SETS[4:])
    assert open_hdf5(tmp_path / "two", multi_label=True).labels.tolist() == SETS[4:].tolist() * 2


def test_lists_of_label_numbers_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "x.h5", labels=None, classes=["a", "b", "c"])
    with h5py.File(path, "a") as file:
        file.create_dataset("labels", (7,), dtype=h5py.vlen_dtype(np.int16))
        for row, numbers in enumerate([[0, 2], [], [1], [2], [0, 1], [2], [1, 2]]):
            file["labels"][row] = numbers
    expected = SETS.copy()
    expected[3] = [0, 0, 1]
    assert open_hdf5(path, multi_label=True).labels.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["a|b"] * 7, r"'labels' has the shape \(7,\) .* expects \(7, L\) of 0 and 1, or a list of numbers in each row"),
        (LABELS, r"'labels' has the shape \(7,\) and kind int64, and multi_label: true expects"),
        (np.full((7, 2), 2), r"'labels', row 0: the labels are \[2, 2\], expected 0 and 1"),
        (np.eye(7)[:3], r"'labels' has the shape \(3, 7\)"),
    ],
)
def test_other_labels_are_refused_where_several_are_asked_for(tmp_path: Path, labels: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_hdf5(written(tmp_path / "x.h5", labels=labels), multi_label=True)
    with pytest.raises(ValueError, match="'multi_label' has keys for labels in one cell"):
        DataSpec.model_validate({"hdf5": tmp_path / "x.h5", "multi_label": {"separator": ","}})
