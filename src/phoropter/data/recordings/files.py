"""Recordings of no study: the files, folders and manifests that a finished classifier is asked to predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from phoropter.core.errors import DataError, InputProblem, join_words
from phoropter.data.recordings.changes import RecordingChanges
from phoropter.data.recordings.database import Database
from phoropter.data.recordings.databases import DATABASES, MANIFEST
from phoropter.data.recordings.spec import RecordingFields
from phoropter.signals.readers import edf, physionet
from phoropter.signals.readers.signal_tables import read_signal_table
from phoropter.signals.readers.tables import is_manifest, read_manifest
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, read_recordings

_GENERIC_READERS: dict[str, Callable[[Path], Recording]] = {
    ".hea": physionet.read_wfdb,
    ".edf": edf.read_edf,
    ".bdf": edf.read_edf,
}
_SUFFIXES = (".csv", ".parquet", *_GENERIC_READERS)


def find_prediction_database(fields: RecordingFields, source: str) -> Database:
    """The Database whose readers serve new files of a study's kind.

    Simulations, recordings in memory and a user's database known by name only are served by the readers of common formats.
    """
    return fields.database if fields.database and fields.database.has_reader else DATABASES.get(source, MANIFEST)


def read_recording_paths(
    paths: Sequence[Path],
    database: Database,
    rate_hz: float,
    on_bad_input: OnBadInput,
    changes: RecordingChanges | None = None,
) -> LoadedRecordings:
    """Files, folders and manifests → their recordings, each id once.

    rate_hz: of tables that no manifest describes
    changes: what the study changes after reading
    Raises DataError for a path where there is nothing.
    """
    parts = [_read_path(path, database, rate_hz, on_bad_input) for path in paths]
    kept: dict[str, Recording] = {}
    problems = [problem for part in parts for problem in part.problems]
    for recording in (recording for part in parts for recording in part.recordings):
        first = kept.setdefault(recording.id, recording)
        if first is not recording and first.source != recording.source:
            what = f"{recording.source} and {first.source} have the same id"
            if on_bad_input == "stop":
                raise DataError(f"recording {recording.id}: {what}; rename one")
            problems.append(InputProblem(recording.id, what))
    return (changes or RecordingChanges()).apply(LoadedRecordings(list(kept.values()), problems), on_bad_input)


def _read_path(path: Path, database: Database, rate_hz: float, on_bad_input: OnBadInput) -> LoadedRecordings:
    if path.is_dir():
        if database != MANIFEST:
            return database.load(path, on_bad_input)
        if (path / "manifest.csv").is_file():
            return read_manifest(path / "manifest.csv", on_bad_input)
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in _SUFFIXES and not f.name.startswith("."))
        if not files:
            raise DataError(f"{path}: no recording lies there; expected manifest.csv or files ending in {join_words(_SUFFIXES)}")
        return read_recordings(files, lambda file: _read_file(file, database, rate_hz), on_bad_input)
    header = path.with_suffix(".hea") if path.suffix.lower() in (".dat", ".atr", "") else path
    if not header.is_file():
        raise DataError(f"there is nothing at {path}; expected a recording, a folder of them or a manifest")
    if header.suffix.lower() in (".csv", ".parquet") and is_manifest(header):
        return read_manifest(header, on_bad_input)
    return read_recordings([header], lambda file: _read_file(file, database, rate_hz), on_bad_input)


def _read_file(file: Path, database: Database, rate_hz: float) -> Recording:
    ending = file.suffix.lower()
    if database.read_file is not None and ending == database.suffix:
        return database.read_file(file)
    if ending in (".csv", ".parquet"):
        return read_signal_table(file, rate_hz)
    if ending not in _GENERIC_READERS:
        raise DataError(f"{file}: a recording should end in {join_words([*_SUFFIXES, '.pkl (WESAD)'])}")
    return _GENERIC_READERS[ending](file)
