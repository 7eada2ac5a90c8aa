"""New files for a bundle: read by the database of its study, or by the readers of common formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.core.extensions import read_recorded_extensions
from phoropter.core.spec import validate_as
from phoropter.data.recordings.database import Database
from phoropter.data.recordings.databases import DATABASES, MANIFEST
from phoropter.data.recordings.files import find_prediction_database, read_recording_paths
from phoropter.data.spec import DataSpec, recordings
from phoropter.signals.recording import Recording


def read_walk(file: Path) -> Recording:
    return Recording(file.stem, file.stem, np.load(file)[None].astype(np.float32), ("acc",), ("g",), 50.0, source=file)


WALKS = Database("walks", read_file=read_walk, pattern="*.npy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a", "b")):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(seed).normal(size=100))
        (tmp_path / f"{name}.csv").write_text("ECG\n" + "\n".join(str(i % 7) for i in range(100)) + "\n")
    return tmp_path


def test_the_database_of_the_study_reads_its_own_files_and_folders(folder: Path) -> None:
    database = find_prediction_database(recordings(folder, database=WALKS), "recordings")
    assert database == WALKS
    loaded = read_recording_paths([folder / "a.npy", folder], database, 50.0, "stop")
    assert [(r.id, r.channels) for r in loaded.recordings] == [("a", ("acc",)), ("b", ("acc",))]


def test_tables_are_read_at_the_rate_of_the_study_by_any_database(folder: Path) -> None:
    for database in (WALKS, MANIFEST, DATABASES["mitdb"]):
        (recording,) = read_recording_paths([folder / "a.csv"], database, 250.0, "stop").recordings
        assert (recording.rate_hz, recording.channels) == (250.0, ("ECG",))


@pytest.mark.parametrize(
    ("data", "expected"), [({"simulate": "ecg"}, "recordings"), ({"mitdb": "x"}, "mitdb"), ({"ctu": "x"}, "ctu")]
)
def test_simulated_studies_are_served_by_common_formats_and_databases_by_themselves(data: dict[str, str], expected: str) -> None:
    spec = validate_as(DataSpec, data)
    assert find_prediction_database(spec, spec.source).name == expected


def test_a_database_known_by_name_only_is_replaced_by_common_formats(folder: Path) -> None:
    with read_recorded_extensions():
        spec = validate_as(DataSpec, recordings(folder, database=WALKS).plain())
    assert find_prediction_database(spec, "recordings") == MANIFEST


def test_two_files_of_one_id_stop_or_are_listed(folder: Path) -> None:
    with pytest.raises(DataError, match=r"recording a: .* have the same id; rename one"):
        read_recording_paths([folder / "a.npy", folder / "a.csv"], WALKS, 50.0, "stop")
    loaded = read_recording_paths([folder / "a.npy", folder / "a.csv"], WALKS, 50.0, "skip")
    assert [r.id for r in loaded.recordings] == ["a"] and loaded.problems[0].where == "a"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.npy", "there is nothing at .*missing.npy; expected a recording"),
        ("a.txt", r"a recording should end in \.csv, \.parquet, \.hea, \.edf"),
        ("empty", "no recording lies there; expected manifest.csv or files ending in"),
    ],
)
def test_a_path_that_holds_no_recording_is_refused(folder: Path, name: str, message: str) -> None:
    (folder / "a.txt").write_text("text")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=message):
        read_recording_paths([folder / name], MANIFEST, 50.0, "stop")
