from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from phoropter.core.errors import DataError
from phoropter.data.images.decode import decode_image
from phoropter.data.in_memory import as_dataset
from phoropter.data.sources.items import convert_picture, from_huggingface, from_torch
from phoropter.data.spec import DataSpec
from phoropter.models.timm_compat import import_torchvision

IMAGES = np.random.default_rng(1).integers(0, 256, (6, 7, 5, 3), dtype=np.uint8)


class Pictures(torch.utils.data.Dataset[Any]):
    """Six pictures in one of the forms that datasets give them in."""

    def __init__(self, form: str = "tensor", labels: Any = (0, 1, 0, 1, 0, 1)) -> None:
        self.form, self.given = form, labels

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return FORMS[self.form](IMAGES[row]), self.given[row]


def _to_tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


FORMS: dict[str, Any] = {
    "tensor": _to_tensor,
    "float tensor": lambda image: _to_tensor(image) / 255,
    "array": lambda image: image,
    "float array": lambda image: (image / 255).astype(np.float32),
    "pillow": Image.fromarray,
}


class Subset:
    def __init__(self, dataset: Any, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, row: int) -> Any:
        return self.dataset[self.indices[row]]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_gives_the_same_pixels(form: str) -> None:
    columns: Any = {"groups": [1, 1, 2, 2, 3, 3], "parts": ["train"] * 4 + ["test"] * 2}
    dataset = from_torch(Pictures(form), **columns)
    for row in range(6):
        np.testing.assert_array_equal(dataset.read(row), IMAGES[row])
    assert dataset.fingerprint == from_torch(Pictures(), **columns).fingerprint
    assert dataset.classes == ("0", "1") and dataset.groups is not None and dataset.parts is not None
    few = dataset.select_rows(np.array([4, 1]))
    np.testing.assert_array_equal(few.read(0), IMAGES[4])
    assert few.digests() == [dataset.digests()[4], dataset.digests()[1]]


def test_grey_pictures_and_transparent_ones() -> None:
    np.testing.assert_array_equal(convert_picture(torch.full((1, 2, 3), 7, dtype=torch.uint8), "x"), np.full((2, 3, 3), 7))
    np.testing.assert_array_equal(convert_picture(np.full((2, 3), 7, np.uint8), "x"), np.full((2, 3, 3), 7))
    assert (convert_picture(np.zeros((2, 3, 4), np.uint8), "x") == 255).all()


def test_an_image_is_turned_as_its_file_would_be(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6  # the camera was held upright: turn by 90 degrees, clockwise
    Image.fromarray(IMAGES[0]).save(tmp_path / "turned.png", exif=tag)
    with Image.open(tmp_path / "turned.png") as image:
        found = convert_picture(image, "x")
    np.testing.assert_array_equal(found, np.rot90(IMAGES[0], -1))
    np.testing.assert_array_equal(found, decode_image((tmp_path / "turned.png").read_bytes(), "x"))


def test_labels_are_named_by_classes_also_through_a_subset() -> None:
    pictures = Pictures(labels=[torch.tensor(1), np.int64(0), 2, 1, 0, 2])
    pictures.classes = ["ant", "bee", "cow"]  # type: ignore[attr-defined]
    dataset = from_torch(Subset(pictures, [1, 2, 5]))
    assert dataset.classes == ("ant", "bee", "cow") and dataset.labels.tolist() == [0, 2, 2] and dataset.name == "Subset"
    assert from_torch(Pictures(labels="abcabc")).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "list holds no items"),
        ([IMAGES[0]], r"row 0: the item is ndarray, expected \(picture, label\)"),
        ([("cat.png", 0)], "row 0: the picture is str, expected a PIL Image, an array or a tensor"),
        ([(np.zeros((2, 3, 5), np.uint8), 0)], r"row 0: the picture has the shape \(2, 3, 5\)"),
        ([(torch.full((3, 2, 2), -1.5), 0)], "row 0: float pixels run from -1.5 to -1.5, expected 0 to 1: remove Normalize"),
        ([(torch.full((3, 2, 2), float("nan")), 0)], "float pixels run from nan"),
        ([(np.zeros((2, 3), np.int32), 0)], "row 0: pixels are int32, expected uint8"),
        ([(IMAGES[0], 0.5)], "a label is 0.5"),
        (iter([]), "has no length: an iterable dataset cannot be split"),
    ],
)
def test_items_that_cannot_be_used_are_named(items: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        from_torch(items)


def test_unknown_labels_and_columns_are_refused() -> None:
    pictures = Pictures(labels=[0, 1, 2, 0, 1, 2])
    pictures.classes = ["a", "b"]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="the label 2 came, but 'classes' names 2"):
        from_torch(pictures)
    with pytest.raises(DataError, match="'patients' is no column; expected ids, groups, sites or parts"):
        from_torch(Pictures(), patients=[1] * 6)
    with pytest.raises(DataError, match="groups has 2 rows"):
        from_torch(Pictures(), groups=[1, 2])


def test_labels_and_groups_are_read_as_in_every_table() -> None:
    dataset = from_torch(
        Pictures(labels=[1.0, "0", np.float32(1), torch.tensor(0), None, "1.0"]), groups=[1, 1.0, "1", "2", 2, "2.0"]
    )
    assert dataset.classes == ("0", "1") and dataset.labels.tolist() == [1, 0, 1, 0, -1, 1]
    assert dataset.groups is not None and dataset.groups.tolist() == ["1", "1", "1", "2", "2", "2"]
    assert dataset.notes == ("1 of 6 rows have no label",)
    with pytest.raises(DataError, match=r"the group is empty here and given elsewhere \(2 of 6 rows have none\)"):
        from_torch(Pictures(), groups=["a", None, "b", float("nan"), "b", "c"])
    with pytest.raises(DataError, match=r"a label is 1 and another 'cat', expected whole numbers or words alone"):
        from_torch(Pictures(labels=[1, "cat", 1, "cat", 1, 1]))


def test_a_random_transform_is_refused() -> None:
    class Random(Pictures):
        def __getitem__(self, row: int) -> tuple[Any, Any]:
            return torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8), row % 2

    with pytest.raises(DataError, match="gives other pixels for the same row each time: pass it without random transforms"):
        from_torch(Random())


def test_it_is_pickled_or_the_error_names_the_reason() -> None:
    again = pickle.loads(pickle.dumps(from_torch(Pictures())))  # noqa: S301
    np.testing.assert_array_equal(again.read(2), IMAGES[2])

    class Local(Pictures):
        pass

    with pytest.raises(DataError, match=r"Local cannot be sent to other processes .* define its class .* or run with jobs=1"):
        pickle.dumps(from_torch(Local()))


class ClassLabel:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class Value:
    pass


# `datasets` finds the picture by the class of its feature.
ImageFeature = type("Image", (), {})


class Hub:
    """As a `datasets.Dataset` looks from outside: rows are mappings, columns have features."""

    def __init__(self, **features: Any) -> None:
        self.features = features or {"picture": ImageFeature(), "label": ClassLabel(["ant", "bee"]), "patient": Value()}
        self.column_names = list(self.features)

    def __len__(self) -> int:
        return len(IMAGES)

    def _row(self, row: int) -> dict[str, Any]:
        values = {"label": row % 2, "patient": f"p{row // 2}"}
        return {name: Image.fromarray(IMAGES[row]) if name not in values else values[name] for name in self.column_names}

    def __getitem__(self, key: int | str) -> Any:
        return self._row(key) if isinstance(key, int) else [self._row(row)[key] for row in range(len(self))]


def test_a_dataset_of_the_hub_is_read_by_its_features() -> None:
    dataset = from_huggingface(Hub(), groups="patient")
    assert dataset.classes == ("ant", "bee") and dataset.labels.tolist() == [0, 1] * 3
    assert dataset.groups is not None and dataset.groups.tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    np.testing.assert_array_equal(dataset.read(5), IMAGES[5])
    assert from_huggingface(Hub(), image="picture", label="label").fingerprint == from_huggingface(Hub()).fingerprint


def test_ambiguous_columns_of_the_hub_must_be_named() -> None:
    two = Hub(left=ImageFeature(), right=ImageFeature(), label=ClassLabel(["a", "b"]))
    with pytest.raises(DataError, match="2 columns are of the kind Image among left, right or label: name one with image=COLUMN"):
        from_huggingface(two)
    assert len(from_huggingface(two, image="right")) == 6
    with pytest.raises(DataError, match="Hub has no column 'diagnosis'; it has picture, label or patient"):
        from_huggingface(Hub(), label="diagnosis")


class HubParts(dict[str, Any]):
    """As a `datasets.DatasetDict` looks from outside."""

    @property
    def column_names(self) -> dict[str, list[str]]:
        return {name: part.column_names for name, part in self.items()}


def test_the_parts_of_the_hub_are_official_parts() -> None:
    parts = HubParts(train=Hub(), validation=Hub())
    dataset = as_dataset(parts)
    assert dataset.parts is not None and dataset.parts.tolist() == ["train"] * 6 + ["val"] * 6
    assert dataset.labels.tolist() == [0, 1] * 6
    for row in range(12):
        np.testing.assert_array_equal(dataset.read(row), IMAGES[row % 6])
    groups = from_huggingface(parts, groups="patient").groups
    assert groups is not None and groups.tolist() == ["p0", "p0", "p1", "p1", "p2", "p2"] * 2
    assert DataSpec.model_validate(parts).plain()["object"]["rows"] == 12
    with pytest.raises(DataError, match="parts holds 'extra'; expected train, val or test"):
        from_huggingface({"train": Hub(), "extra": Hub()})


def test_a_torchvision_dataset_is_read_as_it_is() -> None:
    pictures = import_torchvision("datasets").FakeData(size=6, image_size=(3, 9, 8), num_classes=2)
    to_tensor = import_torchvision("transforms").ToTensor()
    dataset = from_torch(pictures, name="fake")
    assert dataset.read(5).shape == (9, 8, 3) and dataset.labels.tolist() == [int(pictures[row][1]) for row in range(6)]
    np.testing.assert_array_equal(dataset.read(2), np.asarray(pictures[2][0]))
    with_tensors = import_torchvision("datasets").FakeData(size=6, image_size=(3, 9, 8), num_classes=2, transform=to_tensor)
    assert from_torch(with_tensors).fingerprint == dataset.fingerprint
