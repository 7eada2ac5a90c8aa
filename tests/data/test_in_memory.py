from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import DataError, SpecError
from phoropter.core.extensions import trust_code
from phoropter.core.spec import validate_as
from phoropter.data.in_memory import InMemoryData, as_dataset, is_data_object
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.spec import DataSpec, in_memory, open_dataset

Draw = Callable[..., Path]
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)
LABELS = np.array(["cat", "dog"])[np.arange(12) % 2]
GROUPS = np.arange(12) // 3
SITES = np.array(["Brno", "Kyoto"])[np.arange(12) // 6]


class Items:
    """The least that a torch dataset is."""

    classes = ("cat", "dog")

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return IMAGES[row], row % 2


def test_arrays_become_a_dataset() -> None:
    dataset = as_dataset((IMAGES, LABELS, GROUPS, SITES))
    assert dataset.classes == ("cat", "dog") and dataset.labels.tolist() == [0, 1] * 6
    assert dataset.groups is not None and dataset.groups.tolist() == [str(g) for g in GROUPS]
    assert dataset.sites is not None and dataset.sites.tolist() == SITES.tolist()
    np.testing.assert_array_equal(dataset.read(7), IMAGES[7])


def test_each_kind_of_object_is_recognised(zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    monkeypatch.chdir(zoo)
    frame = pd.DataFrame({"path": ["cat/a.png", "dog/a.png"], "label": ["cat", "dog"]})
    assert as_dataset(frame).ids.tolist() == ["cat/a.png", "dog/a.png"]
    assert as_dataset(Items()).name == "Items"
    dataset = from_arrays(IMAGES, LABELS)
    assert as_dataset(dataset) is dataset and as_dataset(InMemoryData(dataset)) is dataset


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (object(), "data is object, expected a Dataset, "),
        ((IMAGES,), r"1 arrays came as data; expected \(images, labels"),
        ((IMAGES, LABELS, GROUPS, SITES, SITES), "5 arrays came as data"),
        ((IMAGES / 255, LABELS), "images are float64, expected uint8"),
        ((IMAGES[..., :2], LABELS), r"images have the shape \(12, 6, 5, 2\)"),
        ((IMAGES, LABELS[:3]), "3 labels came for 12 images"),
        ((IMAGES, np.linspace(0, 1, 12)), r"a label is 0\.09\d+ \(float\), expected whole numbers or words"),
        ((IMAGES, LABELS, GROUPS[:4]), "groups has 4 rows, expected one for each of 12 ids"),
    ],
)
def test_other_objects_are_refused_in_a_sentence(data: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        as_dataset(data)
    with pytest.raises(SpecError, match=words):
        validate_as(DataSpec, data)


def test_plain_data_are_no_object() -> None:
    assert not any(map(is_data_object, ("digits", 3, None, {"folder": "x"}, ["a", "b"], ("a", 1))))
    assert is_data_object((IMAGES, LABELS)) and is_data_object(Items()) and is_data_object(object())


def test_an_object_obeys_the_options_of_data() -> None:
    spec = in_memory((IMAGES, LABELS, GROUPS), size=32, classes=["dog", "cat"], max_samples=9, name="pets")
    dataset = open_dataset(spec)
    assert spec.size == 32 and dataset.name == "pets" and dataset.classes == ("dog", "cat") and len(dataset) == 9
    assert len(open_dataset(spec.with_changes(max_samples=6))) == 6
    with pytest.raises(
        SpecError,
        match=r"'columns' belongs to manifest, monitor_csv, .* or shards and does nothing for 'object'",
    ):
        in_memory((IMAGES, LABELS), columns={"label": "x"})
    with pytest.raises(SpecError, match="'folder' and 'object' both name a source"):
        in_memory((IMAGES, LABELS), folder="x")


def test_equal_contents_are_equal_and_other_contents_are_not() -> None:
    spec = validate_as(DataSpec, (IMAGES, LABELS))
    assert spec == validate_as(DataSpec, (IMAGES.copy(), LABELS.tolist()))
    assert spec.plain() == validate_as(DataSpec, (IMAGES.copy(), LABELS)).plain()
    assert as_dataset(Items()).fingerprint == as_dataset((IMAGES, LABELS)).fingerprint
    changed = IMAGES.copy()
    changed[3, 2, 1] ^= 1
    for other in ((changed, LABELS), (IMAGES, LABELS[::-1].copy()), (IMAGES, LABELS, GROUPS)):
        assert validate_as(DataSpec, other) != spec
        assert validate_as(DataSpec, other).plain()["object"]["fingerprint"] != spec.plain()["object"]["fingerprint"]


def test_a_record_of_an_object_cannot_be_opened() -> None:
    spec = in_memory((IMAGES, LABELS), size=32)
    plain = spec.plain()
    assert plain["object"] == {"kind": "ndarrays", "name": "arrays", "rows": 12, "fingerprint": open_dataset(spec).fingerprint}
    recorded = DataSpec.model_validate(plain)
    assert recorded == spec and recorded.plain() == plain and recorded.size == 32
    with pytest.raises(DataError, match=r"the data 'arrays' were passed in Python .* pass the object again"):
        open_dataset(recorded)


def test_an_object_can_be_pickled() -> None:
    spec = validate_as(DataSpec, (IMAGES, LABELS, GROUPS))
    again = pickle.loads(pickle.dumps(spec))  # noqa: S301
    assert again == spec
    np.testing.assert_array_equal(open_dataset(again).read(4), IMAGES[4])


def test_a_study_file_names_an_object_only_when_its_code_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pets_for_test.py").write_text(
        "import numpy as np\nPETS = (np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1])\ndef load_pets(): return PETS\nWRONG = 3\n"
    )
    with pytest.raises(SpecError, match="is run only where it is trusted"):
        validate_as(DataSpec, {"object": "pets_for_test:PETS"})
    with trust_code(tmp_path):
        for name in ("PETS", "load_pets"):
            assert len(open_dataset(validate_as(DataSpec, {"object": f"pets_for_test:{name}"}))) == 4
        with pytest.raises(SpecError, match="data is int, expected a Dataset"):
            validate_as(DataSpec, {"object": "pets_for_test:WRONG"})


def test_recordings_are_recognised() -> None:
    from phoropter.signals.simulate import EcgCohort, ecg_simulate

    recordings = ecg_simulate(EcgCohort(subjects=2))
    dataset = as_dataset(recordings)
    assert dataset.recordings is not None and set(dataset.recordings.tolist()) == {r.id for r in recordings}
    assert len(as_dataset(recordings[0])) < len(dataset)
    spec = validate_as(DataSpec, recordings)
    assert spec.plain()["object"]["fingerprint"] == dataset.fingerprint and len(open_dataset(spec)) == len(dataset)
