"""WESAD: wearable stress and affect detection (Schmidt et al., ICMI 2018), chest ECG.

15 people (S2 … S17 without S12) with a chest strap and a wristband, about 1.5 hours each in one session: neutral reading
(baseline, ~20 min), the Trier social stress test (~11 min), funny clips (amusement, ~6.5 min), meditation. Baseline is
first; stress and amusement swap between subjects, so that condition and time on test are mixed. ECG and a label per
sample at 700 Hz; units inside the pickle are undocumented (probably mV): never rely on absolute amplitude. The
distribution asks users to cite the paper; it is not shipped here.

A subject's file is a pickle of about 1 GB, written by Python 2. It is read once, by an unpickler that can make arrays and nothing
else (safe_pickle.py); ECG and labels are then cached as .npz under the digest of the file.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, cut_message
from phoropter.core.files import atomic_write, digest_file, format_bytes
from phoropter.signals.readers.safe_pickle import load_arrays_file
from phoropter.signals.readers.subject_facts import read_personal_information
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, codes_to_spans, read_recordings

RATE_HZ = 700.0
CONDITION_NAMES = {1: "baseline", 2: "stress", 3: "amusement", 4: "meditation"}
IGNORED_CODES = (0, 5, 6, 7)  # undefined, or to be ignored
TASKS = {
    "3-class": {"baseline": "baseline", "stress": "stress", "amusement": "amusement"},
    "2-class": {"baseline": "non-stress", "stress": "stress", "amusement": "non-stress"},
}
MAX_BYTES = 8 * 1024**3


def read_wesad_subject(path: Path, cache: Path | None = None) -> Recording:
    """`S2.pkl` → its chest ECG with the conditions as spans. With a `cache` folder, a file is converted once.

    Raises DataError for another layout, a subject that differs from the file's name, and a pickle that is not plain arrays.
    """
    if not path.is_file():
        raise DataError(f"{path}: this file is missing: expected the WESAD layout S2/S2.pkl … S17/S17.pkl")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise DataError(f"{path}: {format_bytes(size)} are more than a WESAD subject has (at most {format_bytes(MAX_BYTES)})")
    kept = None if cache is None else cache / f"wesad-{digest_file(path)}.npz"
    converted = _load_converted(kept) if kept is not None else None
    if converted is None:
        converted = _convert_pickle(path)
        if kept is not None:
            _save_converted(kept, *converted)
    subject, ecg, codes = converted
    if subject != path.stem:
        raise DataError(
            f"{path}: it holds subject {subject!r}, expected {path.stem!r} as in its name: is it a copy of another file?"
        )
    spans = codes_to_spans(codes, CONDITION_NAMES, IGNORED_CODES, str(path))
    about = read_personal_information(path.with_name(f"{subject}_readme.txt"))
    return Recording(subject, subject, ecg[None], ("ECG",), ("mV",), RATE_HZ, spans=spans, source=path, about=about)


def read_wesad_folder(root: Path, cache: Path | None = None, on_bad_input: OnBadInput = "stop") -> LoadedRecordings:
    """All subjects of a WESAD folder, in order of number. Raises DataError when there is none."""
    found = {int(match[1]): path for path in root.glob("S*/S*.pkl") if (match := re.fullmatch(r"S(\d+)", path.stem))}
    if not found:
        raise DataError(f"{root}: no S2/S2.pkl … S17/S17.pkl in this folder, so it is not a WESAD folder")
    return read_recordings([found[number] for number in sorted(found)], partial(read_wesad_subject, cache=cache), on_bad_input)


def _convert_pickle(path: Path) -> tuple[str, NDArray[np.float32], NDArray[np.uint8]]:
    try:
        session = load_arrays_file(path)
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: refused, it is not a pickle of arrays: {cut_message(error)}") from error
    try:
        subject, ecg, codes = session["subject"], session["signal"]["chest"]["ECG"], session["label"]
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: expected subject, label and signal → chest → ECG as in WESAD, {error} is missing") from error
    if not isinstance(subject, str):
        raise DataError(f"{path}: the subject should be text such as S2, came {type(subject).__name__}")
    _check_numbers(path, "ECG", ecg, "fiu", ("(N, 1)", "(N,)"))
    _check_numbers(path, "label", codes, "iu", ("(N,)",))
    if len(ecg) != len(codes):
        raise DataError(f"{path}: {len(ecg)} samples of ECG and {len(codes)} labels should be equally many")
    if codes.min() < 0 or codes.max() > 255:
        raise DataError(f"{path}: the label codes {codes.min()}..{codes.max()} are not those of WESAD, 0..7")
    return subject, ecg.reshape(-1).astype(np.float32), codes.astype(np.uint8)


def _check_numbers(path: Path, name: str, array: Any, kinds: str, shapes: tuple[str, ...]) -> None:
    if isinstance(array, np.ndarray):
        shape = f"({', '.join(['N', *map(str, array.shape[1:])])}{',' if array.ndim == 1 else ''})"
        if array.dtype.kind in kinds and shape in shapes and len(array):
            return
        came = f"{array.dtype} of shape {array.shape}"
    else:
        came = type(array).__name__
    raise DataError(f"{path}: {name} should be numbers of shape {' or '.join(shapes)}, came {came}")


def _load_converted(file: Path) -> tuple[str, NDArray[np.float32], NDArray[np.uint8]] | None:
    """The result of an earlier conversion; None where there is none, or it cannot be read."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as kept:
            return str(kept["subject"]), kept["ecg"], kept["label"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _save_converted(file: Path, subject: str, ecg: NDArray[np.float32], codes: NDArray[np.uint8]) -> None:
    with atomic_write(file) as aside, aside.open("wb") as out:
        np.savez(out, subject=np.array(subject), ecg=ecg, label=codes)
