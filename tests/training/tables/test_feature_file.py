"""Features from files: in the order of the dataset, and refused where rows are missing or there twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from made_rows import make_rows, save_frame
from phoropter.core.errors import DataError
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.feature_file import read_features

DATASET = make_rows()
VALUES = np.random.default_rng(0).normal(size=(len(DATASET), 3))
FRAME = pd.DataFrame({"id": DATASET.ids, "label": [DATASET.classes[k] for k in DATASET.labels], "fold": 1, "a": VALUES[:, 0]})
FRAME = FRAME.assign(b=VALUES[:, 1], c=VALUES[:, 2]).sample(frac=1, random_state=0)


def read(path: Path, **columns: str) -> tuple[np.ndarray, list[str]]:
    return read_features(TableSpec(features=str(path), columns=columns), DATASET, None)


@pytest.mark.parametrize("name", ["f.csv", "f.parquet"])
def test_every_number_is_a_feature_but_for_what_places_a_row(tmp_path: Path, name: str) -> None:
    values, names = read(save_frame(FRAME, tmp_path / name))
    assert names == ["a", "b", "c"] and values.dtype == np.float32
    np.testing.assert_allclose(values, VALUES, rtol=1e-6)


@pytest.mark.parametrize("name", ["f.csv", "again.csv", "f.parquet"])
def test_the_index_of_a_data_frame_is_no_feature(tmp_path: Path, name: str) -> None:
    """It counts the rows, which may stand in the order of their classes."""
    if name == "f.parquet":
        FRAME.to_parquet(tmp_path / name)
    else:
        FRAME.to_csv(tmp_path / name)
    if name == "again.csv":
        pd.read_csv(tmp_path / name, dtype=str).to_csv(tmp_path / name, index=False)
    assert read(tmp_path / name)[1] == ["a", "b", "c"]


def test_an_npz_holds_them_as_one_array(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", id=DATASET.ids[::-1], features=VALUES[::-1])
    np.testing.assert_allclose(read(tmp_path / "f.npz")[0], VALUES, rtol=1e-6)


def test_an_empty_cell_is_missing(tmp_path: Path) -> None:
    frame = FRAME.copy()
    frame.iloc[0, 3] = np.nan
    values, _ = read(save_frame(frame, tmp_path / "f.csv"))
    assert np.isnan(values).sum() == 1 and np.isnan(values[np.flatnonzero(DATASET.ids == frame.iloc[0].id)[0], 0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.iloc[3:], "3 of 60 rows have no features"),
        (lambda f: pd.concat([f, f.iloc[:2]]), "2 of 60 rows come more than once"),
        (lambda f: f[["id", "label"]], "no column of numbers"),
        (lambda f: f.assign(a="tall"), "the cell 'tall', expected numbers"),
        (lambda f: f.assign(label="ill"), "30 of 60 labels differ"),
        (lambda f: f.assign(a=np.inf), "an infinite number"),
    ],
)
def test_what_does_not_fit_is_refused_with_counts(tmp_path: Path, change: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(save_frame(change(FRAME), tmp_path / "f.csv"))  # type: ignore[operator]
