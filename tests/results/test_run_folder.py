"""Tables and archives of a run that were written by hand are refused in one sentence; see test_store.py for whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.errors import StoreError
from phoropter.results.run_folder import Predictions, Run, RunWriter, read_image_archive

SOUND: dict[str, Any] = {
    "id": np.array(["a", "b"]),
    "label": np.array([0, 1]),
    "logits": np.zeros((2, 2), np.float32),
}


def test_recordings_are_read_back_where_they_were_written(tmp_path: Path) -> None:
    made = Predictions(np.array(["a", "b"]), np.array([0, 1]), np.zeros((2, 2), np.float32), recordings=np.array(["r", "s"]))
    made.save(tmp_path / "p.npz")
    found = Predictions.load(tmp_path / "p.npz")
    assert found.recordings is not None and found.recordings.tolist() == ["r", "s"] and found.groups is None


@pytest.mark.parametrize(
    "change",
    [
        {"id": np.array(["a"])},
        {"id": np.array([1, 2])},
        {"label": np.array([0, 2])},
        {"label": np.array([-1, 0])},
        {"label": np.array([0.0, 1.0])},
        {"label": np.array([[0], [1]])},
        {"logits": np.zeros(2, np.float32)},
        {"logits": np.zeros((3, 2), np.float32)},
        {"group": np.array(["g"])},
        {"span": np.array(["x", "y"])},
    ],
)
def test_columns_that_are_no_table_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    np.savez(tmp_path / "predictions.npz", **SOUND)
    assert len(Predictions.load(tmp_path / "predictions.npz").ids) == 2
    np.savez(tmp_path / "predictions.npz", **(SOUND | change))
    with pytest.raises(StoreError, match="is not a predictions file"):
        Predictions.load(tmp_path / "predictions.npz")


def test_answers_alone_are_those_of_the_predictions_and_checked_alike(tmp_path: Path) -> None:
    assert Run(tmp_path).load_answers() is None
    np.savez(tmp_path / "predictions.npz", **SOUND)
    answers, predictions = Run(tmp_path).load_answers(), Run(tmp_path).load_predictions()
    assert answers is not None and predictions is not None
    assert np.array_equal(answers[0], predictions.labels) and np.array_equal(answers[1], predictions.logits)
    np.savez(tmp_path / "predictions.npz", **(SOUND | {"label": np.array([0, 2])}))
    with pytest.raises(StoreError, match="is not a predictions file"):
        Run(tmp_path).load_answers()


@pytest.mark.parametrize("content", [b"epoch\n\xff\n", b"epoch\n1,2\n", b"epoch,epoch\n1,2\n"])
def test_a_history_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:  # T8
    (tmp_path / "history.csv").write_bytes(content)
    with pytest.raises(StoreError, match=r"history\.csv is damaged"):
        _ = Run(tmp_path).history


def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    RunWriter(tmp_path).write_history([{"epoch": 1, "phase": "=all", "loss": -0.5}, {"epoch": 2, "phase": "head"}])
    text = (tmp_path / "history.csv").read_text()
    assert "'=all" in text and ",-0.5" in text
    first, second = Run(tmp_path).history
    assert first == {"epoch": 1.0, "phase": "=all", "loss": -0.5}
    assert second["epoch"] == 2.0 and np.isnan(float(second["loss"]))


@pytest.mark.parametrize("lengths", [[1, 1], [3, -1], [1, 2, 1]])
def test_thumbnails_whose_lengths_do_not_add_up_are_refused(tmp_path: Path, lengths: list[int]) -> None:
    file = tmp_path / "pictures.npz"
    np.savez(file, id=np.array(["a", "b"]), length=np.array(lengths), jpeg=np.arange(3, dtype=np.uint8))
    with pytest.raises(StoreError, match="cannot be read"):
        read_image_archive(file)
    np.savez(file, id=np.array(["a", "b"]), length=np.array([1, 2]), jpeg=np.arange(3, dtype=np.uint8))
    assert read_image_archive(file) == {"a": b"\0", "b": b"\1\2"}
