"""Sources of recordings: how each is read, and what a reader of its results must know.

A new database is one entry in READERS at the foot, one field of Recorded (recorded.py) and one line in spec.py's SOURCES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from phoropter.core.errors import DataError, InputProblem, join_words
from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.recordings.dataset import LazyRecordings, memoize_recordings, render_recordings
from phoropter.data.recordings.spec import RecordingFields, resolve_recording_view
from phoropter.signals.readers import physionet, wesad
from phoropter.signals.readers.tables import is_manifest, read_manifest, read_signal_table
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, read_recordings
from phoropter.signals.simulate import CtgCohort, EcgCohort, ctg_simulate, ecg_simulate


class DatabaseReader(NamedTuple):
    """How a folder or manifest is read, and a note on what it is."""

    read: Callable[[Path, OnBadInput], LoadedRecordings]
    note: str = ""


def open_recordings(
    fields: RecordingFields, source: str, path: Path | None, *, size: int | None, name: str | None, on_bad_input: OnBadInput
) -> Dataset:
    """Recordings → the Dataset of their windows. Raises DataError where they are missing or none can be drawn.

    size: of the stored pictures in pixels · name: of the dataset, by default the file's or folder's
    """
    held = load_recordings(fields, source, path, on_bad_input)
    view = resolve_recording_view(fields, source, size, held.loaded.recordings)
    name = name or (path.stem if path is not None else f"simulated {fields.simulate}")
    return render_recordings(
        held, view, name=name, on_bad_input=on_bad_input, notes=[note] if (note := _source_note(source)) else []
    )


def load_recordings(fields: RecordingFields, source: str, path: Path | None, on_bad_input: OnBadInput) -> LazyRecordings:
    """The recordings of a source, read once a process."""
    if path is None:
        cohort = fields.cohort or (EcgCohort() if fields.simulate == "ecg" else CtgCohort())
        return memoize_recordings((source, cohort), None, _simulate_cohort, cohort)
    path = path.absolute()
    return memoize_recordings((source, path, on_bad_input), path, _read_source, source, path, on_bad_input)


def _read_source(source: str, path: Path, on_bad_input: OnBadInput) -> LoadedRecordings:
    return READERS[source].read(path, on_bad_input)


def _simulate_cohort(cohort: EcgCohort | CtgCohort) -> LoadedRecordings:
    return LoadedRecordings(ecg_simulate(cohort) if isinstance(cohort, EcgCohort) else ctg_simulate(cohort))


def _source_note(source: str) -> str:
    return READERS[source].note if source in READERS else "simulated: the truth is known, and nothing was measured on anybody"


# --- recordings of no study ------------------------------------------------------------------------------------------------


def read_recording_paths(paths: Sequence[Path], source: str, rate_hz: float, on_bad_input: OnBadInput) -> LoadedRecordings:
    """Files, folders and manifests, each read as `source` (a key of SOURCES) reads its own → the recordings, each id once.

    rate_hz: of a table that lies there without a manifest to say it. Raises DataError for a path where there is nothing.
    """
    parts = [_read_path(path, source, rate_hz, on_bad_input) for path in paths]
    kept: dict[str, Recording] = {}
    problems = [problem for part in parts for problem in part.problems]
    for recording in (recording for part in parts for recording in part.recordings):
        first = kept.setdefault(recording.id, recording)
        if first is not recording and first.source != recording.source:
            what = f"{recording.source} and {first.source} have the same id"
            if on_bad_input == "stop":
                raise DataError(f"recording {recording.id}: {what}; rename one")
            problems.append(InputProblem(recording.id, what))
    return LoadedRecordings(list(kept.values()), problems)


def _read_path(path: Path, source: str, rate_hz: float, on_bad_input: OnBadInput) -> LoadedRecordings:
    if path.is_dir():
        if source in _FILE_READERS:
            return READERS[source].read(path, on_bad_input)
        if (path / "manifest.csv").is_file():
            return read_manifest(path / "manifest.csv", on_bad_input)
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in _SUFFIXES and not f.name.startswith("."))
        if not files:
            raise DataError(f"{path}: no recording lies there; expected manifest.csv or files ending in {join_words(_SUFFIXES)}")
        return read_recordings(files, lambda file: _read_file(file, source, rate_hz), on_bad_input)
    header = path.with_suffix(".hea") if path.suffix.lower() in (".dat", ".atr", "") else path
    if not header.is_file():
        raise DataError(f"there is nothing at {path}; expected a recording, a folder of them or a manifest")
    if header.suffix.lower() in (".csv", ".parquet") and is_manifest(header):
        return read_manifest(header, on_bad_input)
    return read_recordings([header], lambda file: _read_file(file, source, rate_hz), on_bad_input)


def _read_file(file: Path, source: str, rate_hz: float) -> Recording:
    ending = file.suffix.lower()
    if ending in (".csv", ".parquet"):
        return read_signal_table(file, rate_hz)
    read = (
        _FILE_READERS[source] if source in _FILE_READERS and ending == _DATABASE_SUFFIX[source] else _GENERIC_READERS.get(ending)
    )
    if read is None:
        raise DataError(f"{file}: a recording should end in {join_words([*_SUFFIXES, '.pkl (WESAD)'])}")
    return read(file)


def _read_edf(file: Path) -> Recording:
    """A file named as eegmat's are has subject and condition; any other is a recording of its own."""
    return physionet.read_eegmat(file) if physionet.is_eegmat_file(file) else physionet.read_edf(file)


_SUFFIXES = (".csv", ".parquet", ".hea", ".edf")
_DATABASE_SUFFIX = {"wesad": ".pkl", "ctu": ".hea", "mitdb": ".hea", "eegmat": ".edf"}
_FILE_READERS: dict[str, Callable[[Path], Recording]] = {
    "wesad": lambda file: wesad.read_wesad_subject(file, cache_dir() / "wesad"),
    "ctu": physionet.read_ctu,
    "mitdb": physionet.read_mitdb,
    "eegmat": _read_edf,
}
_GENERIC_READERS: dict[str, Callable[[Path], Recording]] = {".hea": physionet.read_wfdb, ".edf": physionet.read_edf}


READERS: dict[str, DatabaseReader] = {
    "wesad": DatabaseReader(
        lambda path, bad: wesad.read_wesad_folder(path, cache_dir() / "wesad", bad),
        "WESAD (Schmidt et al. 2018): cite the paper; the distribution has terms of its own",
    ),
    "ctu": DatabaseReader(
        lambda path, bad: physionet.read_database_folder(path, "ctu-uhb", bad),
        "CTU-UHB intrapartum cardiotocography (Chudáček et al. 2014), PhysioNet, Open Data Commons Attribution; one hospital",
    ),
    "eegmat": DatabaseReader(
        lambda path, bad: physionet.read_database_folder(path, "eegmat", bad),
        "ECG of «EEG during mental arithmetic» (Zyma et al. 2019), PhysioNet, Open Data Commons Attribution",
    ),
    "mitdb": DatabaseReader(
        lambda path, bad: physionet.read_database_folder(path, "mitdb", bad),
        "MIT-BIH arrhythmia (Moody & Mark 2001), PhysioNet, Open Data Commons Attribution",
    ),
    "recordings": DatabaseReader(read_manifest),
}
