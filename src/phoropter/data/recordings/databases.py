"""The recording databases phoropter knows, one `Database` each; the key of the table is the key under `data:`.

A new database is a reader in signals/readers and one value here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from phoropter.core.files import cache_dir
from phoropter.data.recordings.database import Database
from phoropter.signals.outcomes import OUTCOME_CLASSES
from phoropter.signals.readers import edf, monitor_csv, physionet, ptbxl, wesad
from phoropter.signals.readers.tables import read_manifest
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, read_folder
from phoropter.signals.render import Trace
from phoropter.signals.simulate import CtgCohort, EcgCohort, ctg_simulate, ecg_simulate


def _read_wesad_folder(folder: Path, on_bad_input: OnBadInput) -> LoadedRecordings:
    return wesad.read_wesad_folder(folder, cache_dir() / "wesad", on_bad_input)


def _read_wesad_file(file: Path) -> Recording:
    return wesad.read_wesad_subject(file, cache_dir() / "wesad")


def _read_eegmat_file(file: Path) -> Recording:
    """A file named as eegmat's are has a subject and a condition; any other is a recording of its own."""
    return physionet.read_eegmat(file) if physionet.is_eegmat_file(file) else edf.read_edf(file)


def _is_wesad(folder: Path, names: Sequence[str]) -> bool:
    return any(re.fullmatch(r"S\d+", name) and (folder / name / f"{name}.pkl").is_file() for name in names)


def _some_headers(names: Sequence[str]) -> list[str]:
    """The first headers of WFDB records in a folder; hidden files are none."""
    return sorted(name for name in names if name.lower().endswith(".hea") and not name.startswith("."))[:5]


def _read_start(file: Path) -> str:
    with file.open(encoding="latin-1") as opened:
        return opened.read(100_000)


def _is_mitdb(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).with_suffix(".atr").is_file() for name in _some_headers(names))


def _is_ctu(folder: Path, names: Sequence[str]) -> bool:
    return any("pH" in physionet.parse_ctu_outcome(_read_start(folder / name)) for name in _some_headers(names))


def _is_eegmat(folder: Path, names: Sequence[str]) -> bool:
    return any(re.fullmatch(r"Subject\d+_[12]\.edf", name, re.IGNORECASE) for name in names)


def _is_ptbxl(folder: Path, names: Sequence[str]) -> bool:
    return ptbxl.METADATA_FILE in names


# Classes of beats by ANSI/AAMI EC57. Fusion and paced beats come from too few patients to be held out, and are left out.
_AAMI_SYMBOLS = {"normal": "NLRej", "supraventricular": "AaJS", "ventricular": "VE"}
_AAMI_TASK = {symbol: name for name, symbols in _AAMI_SYMBOLS.items() for symbol in symbols}
_STRESS_TASKS: Mapping[str, Mapping[str, str]] = {"3-class": wesad.TASKS["3-class"], "2-class": wesad.TASKS["2-class"]}

_PTBXL = partial(
    Database,
    read_file=physionet.read_wfdb,
    window_s=10.0,
    channel="II",
    tasks={"superclass": {name: name for name in ptbxl.SUPERCLASSES}},
    subjects="patients",
    note="PTB-XL (Wagner et al., Sci Data 7:154, 2020), PhysioNet, Creative Commons Attribution 4.0",
    download_hint="PTB-XL from physionet.org/content/ptb-xl",
)

DATABASES: dict[str, Database] = {
    "wesad": Database(
        "wesad",
        read=_read_wesad_folder,
        read_file=_read_wesad_file,
        pattern="S*/S*.pkl",
        detect=_is_wesad,
        channel="ECG",
        rate_hz=wesad.RATE_HZ,
        tasks=_STRESS_TASKS,
        subjects="people",
        note="WESAD (Schmidt et al. 2018): cite the paper; the distribution has terms of its own",
        download_hint="WESAD from archive.ics.uci.edu/dataset/465",
    ),
    "ctu": Database(
        "ctu",
        read_file=physionet.read_ctu,
        pattern="*.hea",
        detect=_is_ctu,
        windows="ctg",
        rate_hz=4.0,
        outcome="apgar<=6",
        subjects="births",
        note=(
            "CTU-UHB intrapartum cardiotocography (Chudáček et al. 2014), PhysioNet, Open Data Commons Attribution; one hospital"
        ),
        download_hint="CTU-UHB from physionet.org/content/ctu-uhb-ctgdb",
    ),
    "eegmat": Database(
        "eegmat",
        read=partial(read_folder, pattern="*.edf", read_file=physionet.read_eegmat),
        read_file=_read_eegmat_file,
        pattern="*.edf",
        detect=_is_eegmat,
        channel="ECG",
        rate_hz=500.0,
        classes=("rest", "task"),
        require_r_peaks=True,
        subjects="people",
        note="ECG of «EEG during mental arithmetic» (Zyma et al. 2019), PhysioNet, Open Data Commons Attribution",
        download_hint="eegmat from physionet.org/content/eegmat",
    ),
    "mitdb": Database(
        "mitdb",
        read_file=physionet.read_mitdb,
        pattern="*.hea",
        detect=_is_mitdb,
        windows="events",
        channel="MLII",
        rate_hz=360.0,
        tasks={"aami": _AAMI_TASK, "symbols": None},
        representation=Trace(),  # a beat is too short for a spectrogram, and its shape is what cardiologists read
        subjects="patients",
        note="MIT-BIH arrhythmia (Moody & Mark 2001), PhysioNet, Open Data Commons Attribution",
        download_hint="MIT-BIH arrhythmia from physionet.org/content/mitdb",
    ),
    "ptbxl": _PTBXL(
        "ptbxl",
        read=partial(ptbxl.read_ptbxl_folder, column="filename_lr"),
        read_label_sets=partial(ptbxl.read_ptbxl_folder, column="filename_lr", all_superclasses=True),
        pattern="records100/*/*_lr.hea",
        detect=_is_ptbxl,
        rate_hz=100.0,
    ),
    "ptbxl_500hz": _PTBXL(
        "ptbxl_500hz",
        read=partial(ptbxl.read_ptbxl_folder, column="filename_hr"),
        read_label_sets=partial(ptbxl.read_ptbxl_folder, column="filename_hr", all_superclasses=True),
        pattern="records500/*/*_hr.hea",
        rate_hz=500.0,
    ),
    "monitor_csv": Database(
        "monitor_csv",
        read=monitor_csv.read_export_folder,
        read_file=monitor_csv.read_export,
        pattern="*.csv",
        detect=monitor_csv.is_export_folder,
        windows=None,  # a cardiotocograph is a monitor too
        subjects="patients",
        note="CSV exports of a bedside monitor, labelled by their manifest",
    ),
}

MANIFEST = Database("recordings", read=read_manifest, windows=None)  # `recordings:`; what they are, the recordings tell

_SIMULATED = "simulated: the truth is known, and nothing was measured on anybody"


def _simulate_people(cohort: EcgCohort, on_bad_input: OnBadInput) -> LoadedRecordings:
    return LoadedRecordings(ecg_simulate(cohort))


def _simulate_births(cohort: CtgCohort, on_bad_input: OnBadInput) -> LoadedRecordings:
    return LoadedRecordings(ctg_simulate(cohort))


SIMULATIONS: dict[str, Database] = {
    "ecg": Database(
        "simulated-ecg", read=_simulate_people, channel="ECG", tasks=_STRESS_TASKS, subjects="people", note=_SIMULATED
    ),
    "ctg": Database(
        "simulated-ctg", read=_simulate_births, windows="ctg", classes=OUTCOME_CLASSES, subjects="births", note=_SIMULATED
    ),
}
