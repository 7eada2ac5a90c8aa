"""Predictions as files: the same cells in every format, and means of recordings and of subjects with several."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phoropter.core.errors import DiskError, SpecError
from phoropter.data.dataset import Dataset
from phoropter.deploy.memory_inputs import ObjectPictures
from phoropter.deploy.predictions import BundlePredictions
from phoropter.deploy.tables import check_output_format, format_predictions_csv, write_predictions

SUBJECTS = ["ann", "ann", "ann", "bob", "bob"]
RECORDINGS = ["a1", "a1", "a2", "b1", "b1"]


def make_predictions() -> BundlePredictions:
    logits = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    dataset = Dataset(
        name="windows",
        ids=np.array([f"{r}@{i}" for i, r in enumerate(RECORDINGS)]),
        labels=np.array([0, 1, -1, 2, 0]),
        classes=("x", "y", "z"),
        pictures=ObjectPictures([np.zeros((2, 2, 3), np.uint8)] * 5),
        groups=np.array(SUBJECTS),
        spans=np.array([[i, i + 1.5] for i in range(5)], dtype=np.float64),
        recordings=np.array(RECORDINGS),
    )
    return BundlePredictions(dataset, ("x", "y", "z"), logits)


def read_table(file: Path) -> pd.DataFrame:
    if file.suffix == ".parquet":
        return pd.read_parquet(file)
    if file.suffix == ".jsonl":
        return pd.DataFrame([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])
    return pd.read_csv(file, keep_default_na=False)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_every_format_has_the_rows_and_the_means(tmp_path: Path, ending: str) -> None:
    predictions = make_predictions()
    files = write_predictions(predictions, tmp_path / f"p{ending}")
    assert [f.name for f in files] == [f"p{ending}", f"p-recordings{ending}", f"p-subjects{ending}"]
    windows, recordings, subjects = map(read_table, files)
    columns = [*("id", "recording", "subject", "site", "start_s", "stop_s", "label", "class"), "p_x", "p_y", "p_z"]
    assert list(windows.columns) == columns and windows["label"].tolist() == ["x", "y", "", "z", "x"]
    exp = np.exp(predictions.logits.astype(np.float64))
    expected = exp / exp.sum(1, keepdims=True)
    np.testing.assert_allclose(windows[["p_x", "p_y", "p_z"]].to_numpy(), expected, rtol=1e-8)
    assert windows["class"].tolist() == [("x", "y", "z")[k] for k in expected.argmax(1)]
    for owner, table, owners in (("recording", recordings, RECORDINGS), ("subject", subjects, SUBJECTS)):
        assert table[owner].tolist() == list(dict.fromkeys(owners))
        for row in table.to_dict("records"):
            mine = expected[[o == row[owner] for o in owners]]
            assert row["windows"] == len(mine)
            np.testing.assert_allclose([row["p_x"], row["p_y"], row["p_z"]], mine.mean(0), rtol=1e-8)


def test_no_table_of_subjects_where_each_has_one_recording(tmp_path: Path) -> None:
    predictions = make_predictions()
    only_bob = BundlePredictions(predictions.dataset.select_rows(np.array([3, 4])), predictions.classes, predictions.logits[3:])
    assert [f.name for f in write_predictions(only_bob, tmp_path / "p.csv")] == ["p.csv", "p-recordings.csv"]


def test_the_text_for_standard_output_is_that_of_the_file(tmp_path: Path) -> None:
    predictions = make_predictions()
    (file, *_) = write_predictions(predictions, tmp_path / "p.csv")
    assert file.read_bytes().decode() == format_predictions_csv(predictions)


def test_another_ending_is_refused() -> None:
    with pytest.raises(SpecError, match=r"p\.xlsx: predictions are written as \.csv, \.parquet or \.jsonl"):
        check_output_format(Path("p.xlsx"))


def test_an_input_is_not_replaced_by_its_predictions(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("time,ECG\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "r.csv")
    for out in ("r.csv", "link.csv"):
        with pytest.raises(SpecError, match=f"{out} is one of the inputs"):
            check_output_format(tmp_path / out, [tmp_path / "absent.csv", tmp_path / "r.csv"])
    check_output_format(tmp_path / "p.csv", [tmp_path / "r.csv"])


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SpecError, match=r"folder\.csv is a folder; give the name of a file"):
        check_output_format(tmp_path / "folder.csv")
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="a folder is needed there"):
        check_output_format(tmp_path / "file" / "p.csv")
