"""Small inputs as people have them, with the right value for each: layouts of folders, pictures, the estimator."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from shared_cases import CASES, MARKS, parts_and_classes

from phoropter.core.errors import DataError
from phoropter.data.inspect import summarize_dataset
from phoropter.data.spec import folder, open_dataset
from phoropter.training.estimator import VisionClassifier

pytestmark = MARKS


SYNSETS = ("n01443537", "n01629819", "n01641577")


@pytest.mark.parametrize(
    ("case", "rows"),
    [
        ("layout-training_set", {(part, name): 3 for part in ("train", "test") for name in ("cats", "dogs")}),
        ("layout-train-eval", {(part, name): 3 for part in ("train", "test") for name in ("cats", "dogs")}),
        (
            "layout-tiny-imagenet",
            {**{("train", s): 4 for s in SYNSETS}, **{("val", s): 2 for s in SYNSETS}, ("", ""): 4},
        ),
        ("layout-images-masks", {("", name): 4 for name in ("COVID", "Normal", "Viral Pneumonia")}),
    ],
)
def test_layouts(case: str, rows: dict[tuple[str, str], int]) -> None:
    assert parts_and_classes(open_dataset(folder(CASES / case / "data"))) == rows


def test_masks_are_counted() -> None:
    notes = open_dataset(folder(CASES / "layout-images-masks" / "data")).notes
    assert any(note.startswith("12 pictures that look like masks were left out (12 in folders called masks") for note in notes)


def test_results_beside_the_classes_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "own"
    shutil.copytree(CASES / "own-report-in-data", root)
    before = open_dataset(folder(root))
    (root / "runs" / "s" / "report" / "figures").mkdir(parents=True)
    (root / "runs" / "s" / "study.json").write_text("{}")
    for name in ("classes.pdf", "classes.png"):
        (root / "runs" / "s" / "report" / "figures" / name).write_bytes(b"%PDF")
    after = open_dataset(folder(root))
    assert after.fingerprint == before.fingerprint and len(after) == 20 and after.problems == before.problems == ()
    assert "1 folder that phoropter wrote (results, reports, bundles, maps) was left out: runs/s" in after.notes


@pytest.mark.parametrize("case", ["bmp32-alpha0", "tiff-int32", "avif-named-jpg"])
def test_pictures_are_what_they_show(case: str) -> None:
    dataset = open_dataset(folder(CASES / case / "data"))
    picture = dataset.read(0)
    assert picture.shape == (32, 40, 3) and len(np.unique(picture)) > 100 and 60 < picture.mean() < 200
    assert not any("may be empty" in note for note in summarize_dataset(dataset).notes)


def test_the_estimator_of_the_cases() -> None:
    y = np.array([0, 1] * 8)
    X = np.random.default_rng(0).integers(0, 60, (16, 32, 32, 3), dtype=np.uint8)
    X[y == 1] += 150
    model = VisionClassifier("test_convnext", weights="random", recipe={"preset": "scratch", "epochs": 1}, size=32, device="cpu")
    expected = model.fit(X, y).predict_proba(X)
    with pytest.raises(DataError, match=r"X has shape \(32, 32, 3\), which is one picture"):
        model.predict(X[0])
    np.testing.assert_array_equal(model.fit(X, np.eye(2)[y]).predict_proba(X), expected)
