"""Sources of recordings: how each is read, and what a reader of its results must know.

A new database is one entry in READERS at the foot, one field of Recorded (recorded.py) and one line in spec.py's SOURCES.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.recorded import view_of
from phoropter.data.rendered import HeldRecordings, remembered, rendered
from phoropter.signals import physionet, wesad
from phoropter.signals.recording import Loaded, OnBadInput
from phoropter.signals.simulate import CtgCohort, EcgCohort, ctg_simulate, ecg_simulate
from phoropter.signals.tables import read_manifest

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
