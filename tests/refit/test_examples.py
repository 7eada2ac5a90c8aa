"""Examples in a bundle: copies of held-out data without names, which are predicted as the study's own pixels are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import phoropter as ph
from phoropter.core.errors import DataError, SpecError
from phoropter.data.dataset import Dataset
from phoropter.data.images.options import OptionedPictures, PictureOptions
from phoropter.data.sources.storage import FilePictures
from phoropter.refit import examples
from phoropter.refit.examples import choose_example_rows
from phoropter.results.store import Store
from phoropter.training.candidates.refit_record import RefitRecord

Refit = Callable[..., RefitRecord]


def make_dataset(
    names: list[str], labels: list[int], recordings: list[str] | None = None, notes: tuple[str, ...] = ()
) -> Dataset:
    return Dataset(
        "d",
        np.array([f"row {i}" for i in range(len(names))]),
        np.array(labels),
        ("a", "b"),
        FilePictures(Path("/nowhere"), names),
        groups=np.array(recordings) if recordings else None,
        recordings=np.array(recordings) if recordings else None,
        notes=notes,
    )


def test_pictures_travel_as_squares_without_names(shapes: Store, refit: Refit, tmp_path: Path) -> None:
    refit(shapes, tmp_path / "bundle", "vit", examples=3)
    model = ph.load(tmp_path / "bundle")
    kept = model.examples
    assert [e.file.name for e in kept] == ["1.png", "2.png", "3.png"] and {e.label for e in kept} == {"dark", "light"}
    sources = sorted((shapes.folder.parent / "pictures").rglob("*.png"))
    predicted = {f: model.predict(f, device="cpu").logits for f in sources}
    for example in kept:
        with Image.open(example.file) as image:
            assert image.size == (48, 48) and not image.info
        np.testing.assert_allclose(model.predict(example.file, device="cpu").logits, example.logits, atol=1e-6)
        twin = min(predicted, key=lambda f: float(np.abs(predicted[f] - example.logits).max()))
        assert twin.parent.name == example.label and np.abs(predicted[twin] - example.logits).max() < 1e-4
    text = (tmp_path / "bundle" / "examples" / "examples.json").read_text()
    assert not any(f.stem in json.loads(text)["examples"][0].values() for f in sources) and "pictures" not in text
    listed = json.loads((tmp_path / "bundle" / "bundle.json").read_text())["files"]
    assert {"examples/1.png", "examples/examples.json"} <= listed.keys()


@pytest.mark.parametrize("name", ["people", "births"])
def test_recordings_travel_as_tables(signals: dict[str, Store], refit: Refit, tmp_path: Path, name: str) -> None:
    refit(signals[name], tmp_path / "bundle", None, examples=2)
    model = ph.load(tmp_path / "bundle")
    assert [e.file.name for e in model.examples] == ["1.csv", "2.csv"]
    for example in model.examples:
        predicted = model.predict(example.file, device="cpu")
        assert len(predicted.logits) > 0 and np.array_equal(predicted.logits, example.logits)
        header = example.file.read_text().splitlines()[0]
        assert header == ("ECG" if name == "people" else "FHR,UC")


def test_a_long_recording_is_cut_at_a_window(
    signals: dict[str, Store], refit: Refit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examples, "MAX_VALUES", 1500)  # 15 s at 100 Hz
    refit(signals["people"], tmp_path / "bundle", None, examples=1)
    example = ph.load(tmp_path / "bundle").examples[0]
    assert len(example.file.read_text().splitlines()) == 1 + 1500 and len(example.logits) == 3  # windows of 5 s, 5 s apart


def test_classes_come_in_turn_and_each_recording_once() -> None:
    plain = make_dataset([f"{i}.png" for i in range(9)], [0] * 6 + [1] * 3)
    chosen = choose_example_rows(plain, np.arange(8), 4)
    assert sorted(plain.labels[chosen].tolist()) == [0, 0, 1, 1] and 8 not in chosen and len(set(chosen.tolist())) == 4
    windows = make_dataset([f"{i}.png" for i in range(9)], [0] * 6 + [1] * 3, list("AAABBBCCC"))
    assert sorted(windows.recordings[choose_example_rows(windows, np.arange(9), 5)].tolist()) == ["A", "B", "C"]  # type: ignore[index]


def test_dicom_is_refused() -> None:
    named = make_dataset(["1.png", "2.dcm"], [0, 1])
    optioned = make_dataset(["1.dcm", "2.dcm"], [0, 1])
    object.__setattr__(optioned, "pictures", OptionedPictures(optioned.pictures, PictureOptions(window=(0, 9))))
    noted = make_dataset(["1.png", "2.png"], [0, 1], notes=("2 DICOM files name no institution",))
    for dataset in (named, optioned, noted):
        with pytest.raises(SpecError, match="--examples: the data are DICOM"):
            choose_example_rows(dataset, np.arange(2), 1)


def test_a_file_that_is_predicted_otherwise_is_refused(
    shapes: Store, refit: Refit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_mirrored(image: Image.Image, file: Path) -> None:
        saved(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), file)

    saved = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", save_mirrored)
    with pytest.raises(DataError, match="is not predicted as the study's pixels are"):
        refit(shapes, tmp_path / "bundle", "probe", examples=1)
    assert list(tmp_path.iterdir()) == []
