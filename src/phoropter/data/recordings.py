"""Sources of recordings: how each is read, and what a reader of its results must know.

A new database is one entry in READERS at the foot, one field of Recorded (recorded.py) and one line in spec.py's SOURCES.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phoropter.core.errors import DataError, Problem, listing
from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.recorded import view_of
from phoropter.data.rendered import HeldRecordings, remembered, rendered
from phoropter.signals import physionet, wesad
from phoropter.signals.recording import Loaded, OnBadInput, Recording, read_all
from phoropter.signals.simulate import CtgCohort, EcgCohort, ctg_simulate, ecg_simulate
from phoropter.signals.tables import is_manifest, read_manifest, read_table

if TYPE_CHECKING:
    from phoropter.data.spec import DataSpec


class Reader(NamedTuple):
    """How a folder or manifest is read, and a note on what it is."""

    read: Callable[[Path, OnBadInput], Loaded]
    note: str = ""


def open_recordings(spec: DataSpec, source: str, path: Path | None) -> Dataset:
    """A spec of recordings → the Dataset of their windows. Raises DataError where they are missing or none can be drawn."""
    held = load(spec, source, path)
    view = view_of(spec, source, spec.size, held.loaded.recordings)
    name = spec.name or (path.stem if path is not None else f"simulated {spec.simulate}")
    return rendered(held, view, name=name, on_bad_input=spec.on_bad_input, notes=[note] if (note := _note(source)) else [])


def load(spec: DataSpec, source: str, path: Path | None) -> HeldRecordings:
    """The recordings of a spec, read once a process."""
    if path is None:
        cohort = spec.cohort or (EcgCohort() if spec.simulate == "ecg" else CtgCohort())
        return remembered((source, cohort), None, _simulated, cohort)
    path = path.absolute()
    return remembered((source, path, spec.on_bad_input), path, _read, source, path, spec.on_bad_input)


def _read(source: str, path: Path, on_bad_input: OnBadInput) -> Loaded:
    return READERS[source].read(path, on_bad_input)


def _simulated(cohort: EcgCohort | CtgCohort) -> Loaded:
    return Loaded(ecg_simulate(cohort) if isinstance(cohort, EcgCohort) else ctg_simulate(cohort))


def _note(source: str) -> str:
    return READERS[source].note if source in READERS else "simulated: the truth is known, and nothing was measured on anybody"


# --- recordings of no study ------------------------------------------------------------------------------------------------


def read_paths(paths: Sequence[Path], source: str, rate_hz: float, on_bad_input: OnBadInput) -> Loaded:
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
            problems.append(Problem(recording.id, what))
    return Loaded(list(kept.values()), problems)


def _read_path(path: Path, source: str, rate_hz: float, on_bad_input: OnBadInput) -> Loaded:
    if path.is_dir():
        if source in _ONE:
            return READERS[source].read(path, on_bad_input)
        if (path / "manifest.csv").is_file():
            return read_manifest(path / "manifest.csv", on_bad_input)
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in _ENDINGS and not f.name.startswith("."))
        if not files:
            raise DataError(f"{path}: no recording lies there; expected manifest.csv or files ending in {listing(_ENDINGS)}")
        return read_all(files, lambda file: _read_file(file, source, rate_hz), on_bad_input)
    header = path.with_suffix(".hea") if path.suffix.lower() in (".dat", ".atr", "") else path
    if not header.is_file():
        raise DataError(f"there is nothing at {path}; expected a recording, a folder of them or a manifest")
    if header.suffix.lower() in (".csv", ".parquet") and is_manifest(header):
        return read_manifest(header, on_bad_input)
    return read_all([header], lambda file: _read_file(file, source, rate_hz), on_bad_input)


def _read_file(file: Path, source: str, rate_hz: float) -> Recording:
    ending = file.suffix.lower()
    if ending in (".csv", ".parquet"):
        return read_table(file, rate_hz)
    read = _ONE[source] if source in _ONE and ending == _ENDING_OF[source] else _ANY.get(ending)
    if read is None:
        raise DataError(f"{file}: a recording should end in {listing([*_ENDINGS, '.pkl (WESAD)'])}")
    return read(file)


def _read_edf(file: Path) -> Recording:
    """A file named as eegmat's are has subject and condition; any other is a recording of its own."""
    return physionet.read_eegmat(file) if physionet.is_eegmat(file) else physionet.read_edf(file)


_ENDINGS = (".csv", ".parquet", ".hea", ".edf")
_ENDING_OF = {"wesad": ".pkl", "ctu": ".hea", "mitdb": ".hea", "eegmat": ".edf"}
_ONE: dict[str, Callable[[Path], Recording]] = {
    "wesad": lambda file: wesad.read_subject(file, cache_dir() / "wesad"),
    "ctu": physionet.read_ctu,
    "mitdb": physionet.read_mitdb,
    "eegmat": _read_edf,
}
_ANY: dict[str, Callable[[Path], Recording]] = {".hea": physionet.read_wfdb, ".edf": physionet.read_edf}


READERS: dict[str, Reader] = {
    "wesad": Reader(
        lambda path, bad: wesad.read_folder(path, cache_dir() / "wesad", bad),
        "WESAD (Schmidt et al. 2018): cite the paper; the distribution has terms of its own",
    ),
    "ctu": Reader(
        lambda path, bad: physionet.read_folder(path, "ctu-uhb", bad),
        "CTU-UHB intrapartum cardiotocography (Chudáček et al. 2014), PhysioNet, Open Data Commons Attribution; one hospital",
    ),
    "eegmat": Reader(
        lambda path, bad: physionet.read_folder(path, "eegmat", bad),
        "ECG of «EEG during mental arithmetic» (Zyma et al. 2019), PhysioNet, Open Data Commons Attribution",
    ),
    "mitdb": Reader(
        lambda path, bad: physionet.read_folder(path, "mitdb", bad),
        "MIT-BIH arrhythmia (Moody & Mark 2001), PhysioNet, Open Data Commons Attribution",
    ),
    "recordings": Reader(read_manifest),
}
