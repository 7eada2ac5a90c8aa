"""PhysioNet records: WFDB through `wfdb`, EDF through `pyEDFlib`, and what three of its databases mean by their files.

    ctu-uhb  CTU-UHB cardiotocography 1.0.0. 552 births in one hospital, heart rate (0: gap) and contractions at 4 Hz, outcome in
             the header. Chudáček et al., BMC Pregnancy and Childbirth 14:16, 2014. Open Data Commons Attribution.
    mitdb    MIT-BIH arrhythmia 1.0.0. 48 half hours of 47 people, two leads at 360 Hz, every beat labelled.
             Moody & Mark, IEEE Eng. Med. Biol. 20(3):45, 2001. Open Data Commons Attribution.
    eegmat   36 people at rest and doing mental arithmetic, EEG and ECG at 500 Hz. Zyma et al., Data 4(1):14, 2019. As above.

Their records are not shipped. A record whose length or checksum contradicts its header is refused, because a shifted signal still
looks like a signal. Left out on purpose: channels sampled at different rates.
"""

from __future__ import annotations

import math
import re
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, MissingExtraError, cut_message, join_words
from phoropter.core.files import temporary_folder
from phoropter.core.listed_files import ListedFiles
from phoropter.signals.readers.edf import read_edf, read_edf_labels
from phoropter.signals.readers.subject_facts import read_age_and_sex, read_subject_info, select_known_in_labour
from phoropter.signals.readers.wfdb_header import DEFAULT_RATE_NOTE, read_wfdb_text
from phoropter.signals.recording import GAPS_NOTE, Events, Recording, Span, check_filled_length, find_channels

# --- WFDB -------------------------------------------------------------------------------------------------------------

_BYTES_PER_SAMPLE = {"80": 1.0, "212": 1.5, "310": 4 / 3, "311": 4 / 3, "16": 2.0, "61": 2.0, "160": 2.0, "24": 3.0, "32": 4.0}
_FORMATS = frozenset({*_BYTES_PER_SAMPLE, "8", "508", "516", "524", "0"})  # of a varying size
_BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
_OTHER_SYMBOLS = frozenset("[!]x()ptu`'^|~+sT*D=\"@")


def read_wfdb(path: Path, channels: Sequence[str] | None = None, rate_hz: float | None = None) -> Recording:
    """A WFDB record of one or more segments, named by its .hea file with or without the ending; id and subject are its name.

    A length that the header leaves out is the signal file's. Samples between segments, and of a channel that a segment lacks, are
    missing. Raises DataError when files are missing, cut short, contradict their header in length or checksum, lack one of the
    `channels` or have two of its name, or have another rate than `rate_hz`.
    """
    stem = path.with_suffix("") if path.suffix.lower() in (".hea", ".dat", ".atr") else path
    header = _read_header(stem)
    if rate_hz is not None and header.fs != rate_hz:
        raise DataError(
            f"{stem.with_suffix('.hea')}: expected {rate_hz:g} Hz, came {header.fs:g} Hz: this is not the database it was read as"
        )
    segments = hasattr(header, "seg_name")
    names, units, samples, notes = _read_segments(header, stem) if segments else _read_segment(header, stem)
    rows = find_channels(names, channels, str(stem.with_suffix(".hea")))
    return Recording(
        stem.name,
        stem.name,
        np.ascontiguousarray(samples[rows]),
        tuple(names[row] for row in rows),
        tuple(units[row] for row in rows),
        float(header.fs),
        source=stem.with_suffix(".hea"),
        notes=notes,
    )


def select_channels(recording: Recording, channels: Sequence[str]) -> Recording:
    """The recording with only these channels, in this order. Raises DataError where one is missing."""
    rows = [recording.channel_index(name) for name in channels]
    units = tuple(recording.units[row] for row in rows)
    return replace(recording, samples=recording.samples[rows], channels=tuple(channels), units=units)


_Segment = tuple[list[str], list[str], NDArray[np.float32], tuple[str, ...]]  # names, units, (channels, n) samples, notes


def _read_header(stem: Path) -> Any:
    file, wfdb = stem.with_suffix(".hea"), _import_wfdb()
    if not file.is_file() and (capitals := stem.with_suffix(".HEA")).is_file():
        raise DataError(f"{capitals}: names of WFDB files are written in small letters: rename this file and its .DAT file")
    if file.is_file():
        read_wfdb_text(file)  # which raises what wfdb would pass over
    return _read_or_raise(file, lambda: wfdb.rdheader(str(stem)))


def _read_segment(header: Any, stem: Path) -> _Segment:
    name = stem.with_suffix(".hea")
    described = len(getattr(header, "fmt", None) or ())
    if not described or described != header.n_sig:
        raise DataError(f"{name}: it says {header.n_sig} signals and describes {described}: correct its header")
    if any((frame or 1) != 1 for frame in header.samps_per_frame):
        raise DataError(f"{name}: its channels are sampled at different rates, which one recording cannot hold")
    zero_length = header.sig_len == 0  # by WFDB's manual the same as no length
    header.sig_len = header.sig_len or _find_length(header, stem)
    if max((skew or 0 for skew in header.skew or ()), default=0) > header.sig_len:  # wfdb would make room for all of them
        raise DataError(f"{name}: it shifts a signal by more samples than there are: correct its header")
    for file in sorted(set(header.file_name)):
        _check_size(stem.parent / file, [i for i, other in enumerate(header.file_name) if other == file], header)
    read = _read_without_length if zero_length else _read_digital
    record = _read_or_raise(stem.with_suffix(".dat"), lambda: read(stem), header.file_name[0])
    _check_signal(record, stem)
    samples = _read_or_raise(name, lambda: np.ascontiguousarray(record.dac(return_res=64).T, np.float32))
    text = read_wfdb_text(name)
    names = [own or given or f"channel {i + 1}" for i, (own, given) in enumerate(zip(text.names, record.sig_name, strict=True))]
    units = [own or given for own, given in zip(text.units, record.units, strict=True)]
    return names, units, samples, text.notes


def _read_digital(stem: Path) -> Any:
    return _import_wfdb().rdrecord(str(stem), physical=False)


def _read_without_length(stem: Path) -> Any:
    """Reads a record through a copy of its header that leaves the length 0 out, which wfdb would take literally."""
    lines = stem.with_suffix(".hea").read_text(encoding="latin-1").splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    lines[at] = " ".join(lines[at].split()[:3])
    with temporary_folder("wfdb") as folder:
        for file in {line.split()[0] for line in lines[at + 1 :] if line.strip() and not line.startswith("#")}:
            shutil.copyfile(stem.parent / file, folder / file)
        copy = folder / stem.name
        copy.with_suffix(".hea").write_text("\n".join(lines) + "\n", encoding="latin-1")
        return _read_digital(copy)


def _read_segments(header: Any, stem: Path) -> _Segment:
    """The segments of a record one after the other; `~` is a pause, and a first segment of length 0 lists the channels."""
    file = stem.with_suffix(".hea")
    parts: list[tuple[int, int, _Segment | None]] = []
    at = 0
    for name, length in zip(header.seg_name, header.seg_len, strict=True):
        parts.append((at, length, None if name == "~" or not length else _read_listed_segment(header, stem, name, length)))
        at += length
    if header.sig_len not in (None, 0, at):
        raise DataError(f"{file}: it says {header.sig_len} samples, and its segments have {at}: copy the header again")
    units: dict[str, str] = {}
    for segment in (segment for _, _, segment in parts if segment is not None):
        find_channels(segment[0], None, str(file))
        for name, unit in zip(segment[0], segment[1], strict=True):
            if units.setdefault(name, unit) != unit:
                raise DataError(f"{file}: channel {name} is in {units[name]} in one segment and in {unit} in another")
    names = list(units)
    if not names:
        raise DataError(f"{file}: none of its segments has a signal")
    check_filled_length(at, sum(length for _, length, segment in parts if segment is not None), str(file), len(names))
    samples = np.full((len(names), at), np.nan, np.float32)
    for start, length, part in parts:
        for row, name in enumerate(part[0] if part else ()):
            samples[names.index(name), start : start + length] = part[2][row] if part else np.nan
    pauses = (GAPS_NOTE,) if any(name == "~" for name in header.seg_name) else ()
    notes = dict.fromkeys(note for _, _, part in parts if part for note in part[3] if note != DEFAULT_RATE_NOTE)
    return names, list(units.values()), samples, (*read_wfdb_text(file).notes, *notes, *pauses)


def _read_listed_segment(header: Any, stem: Path, name: str, length: int) -> _Segment:
    part = stem.parent / name
    if not re.fullmatch(r"[\w.-]+", name) or name == stem.name:
        raise DataError(f"{stem.with_suffix('.hea')}: {name!r} is no name of a segment beside it")
    own = _read_header(part)
    if hasattr(own, "seg_name") or own.fs != header.fs:
        raise DataError(f"{part}.hea: expected one segment of {header.fs:g} Hz, as {stem.name}.hea says")
    segment = _read_segment(own, part)
    if segment[2].shape[1] != length:
        raise DataError(f"{part}.hea: it has {segment[2].shape[1]} samples, and {stem.name}.hea says {length}: copy both again")
    return segment


def _find_length(header: Any, stem: Path) -> int:
    """Samples of a signal by the size of the signal files. Raises DataError where two files differ or the format is packed."""
    lengths = set()
    for name in sorted(set(header.file_name)):
        rows = [i for i, other in enumerate(header.file_name) if other == name]
        file, kind = stem.parent / name, header.fmt[rows[0]]
        _check_there(file)
        if kind not in _BYTES_PER_SAMPLE:
            raise DataError(f"{stem}.hea: it has no length, and that of signals in format {kind} cannot be counted: add it")
        size = file.stat().st_size - (header.byte_offset[rows[0]] or 0)
        lengths.add(math.floor(size / (len(rows) * _BYTES_PER_SAMPLE[kind]) + 1e-9))
    if len(lengths) != 1 or min(lengths) < 1:
        came = join_words(map(str, sorted(lengths)))
        raise DataError(f"{stem}.hea: it has no length, and its signal files hold {came} samples: add the right one")
    return int(lengths.pop())


def _check_there(file: Path) -> None:
    """Raises DataError for a signal file that is missing, also where its name differs in case."""
    if not file.is_file():
        near = ListedFiles(file.parent).suggest_name(file.name)
        raise DataError(f"{file}: this signal file, named by the header beside it, is missing{near}: copy the record again")


def _check_size(file: Path, rows: list[int], header: Any) -> None:
    _check_there(file)
    if header.fmt[rows[0]] not in _FORMATS:
        raise DataError(
            f"{file.with_suffix('.hea')}: the format {header.fmt[rows[0]]} of {file.name} is none of WFDB's: correct it"
        )
    if header.fmt[rows[0]] not in _BYTES_PER_SAMPLE:
        return  # compressed: wfdb checks it when reading
    expected = math.ceil(header.sig_len * len(rows) * _BYTES_PER_SAMPLE[header.fmt[rows[0]]]) + (header.byte_offset[rows[0]] or 0)
    padding = 3 if header.fmt[rows[0]] in ("212", "310", "311") else 0  # packed formats may end in a filled word
    if not expected <= file.stat().st_size <= expected + padding:
        raise DataError(
            f"{file}: its header says {header.sig_len} samples of {len(rows)} signals, which are {expected} bytes, "
            f"came {file.stat().st_size}: the file is cut short or belongs to another header; copy the record again"
        )


def _check_signal(record: Any, stem: Path) -> None:
    """Compares the samples with the 16-bit checksums of the header, where it has them."""
    if record.d_signal.shape != (record.sig_len, record.n_sig):
        raise DataError(f"{stem}.dat: expected {(record.sig_len, record.n_sig)} samples, came {record.d_signal.shape}")
    sums = record.d_signal.astype(np.int64).sum(axis=0)
    for name, expected, actual in zip(record.sig_name, record.checksum or [], sums.tolist(), strict=False):
        if expected is not None and (actual - expected) % 65536:
            raise DataError(
                f"{stem}.dat: the checksum of signal {name} is {actual % 65536}, expected {expected % 65536} as in its header: "
                "the file is damaged or belongs to another header; copy the record again"
            )


# --- CTU-UHB ----------------------------------------------------------------------------------------------------------

_OUTCOME_LINE = re.compile(r"(.*?)\s*(?:\s|[:=])\s*([-+]?\d*[.,]?\d+|[-+]?\d+\.|nan)", re.IGNORECASE)
_BROKEN_OUTCOME = re.compile(r"[A-Za-z][\w. /%-]*?\s+[-+]?\d[\d.,]*")  # a name and what begins as a number
_SIGNED_OUTCOMES = ("BE", "BDecf")  # here -1 is a value; everywhere else it means unknown


def read_ctu(path: Path) -> Recording:
    """A CTU-UHB record: channels FHR (bpm) and UC, all that the header states as its outcome; every record is another mother."""
    recording = read_wfdb(path, ("FHR", "UC"), rate_hz=4.0)
    try:
        outcome = parse_ctu_outcome(path.with_suffix(".hea").read_text(encoding="latin-1"))
    except ValueError as error:
        raise DataError(f"{path.with_suffix('.hea')}: {error}") from None
    return replace(recording, site="UHB Brno", outcome=outcome, about=select_known_in_labour(outcome))


def parse_ctu_outcome(text: str) -> dict[str, float | str | None]:
    """The outcome lines `#Key   value` of a CTU-UHB header, also as wfdb writes them again (`# Key value`); None is unknown.

    The neonatology block, marked "NotReadyYet", is left out. Raises ValueError for a value such as 7.1.4, and for two of one key.
    """
    outcome: dict[str, float | str | None] = {}
    ready = True
    for line in (line.strip() for line in text.splitlines()):
        comment = line.lstrip("#").strip()
        if not line.startswith("#"):
            continue
        if comment.startswith("-"):
            ready = "NotReadyYet" not in comment
        elif ready and (match := _OUTCOME_LINE.fullmatch(comment)):
            key, value = " ".join(match[1].split()), float(match[2].replace(",", "."))
            known = None if math.isnan(value) or (value == -1 and key not in _SIGNED_OUTCOMES) else value
            if outcome.setdefault(key, known) != known:
                raise ValueError(f"the outcome '{key}' is given twice, as {outcome[key]} and as {known}: keep one")
        elif ready and _BROKEN_OUTCOME.fullmatch(comment):
            raise ValueError(f"the outcome '{comment}' is no number: correct it, or write -1 where it is unknown")
    return outcome


# --- MIT-BIH ----------------------------------------------------------------------------------------------------------
_SAME_PATIENT = {"202": "201"}


def read_mitdb(path: Path) -> Recording:
    """An MIT-BIH record: two leads, beats as events, rhythms as spans, age and sex; 201 and 202 are one patient."""
    recording = read_wfdb(path, rate_hz=360.0)
    events, spans = read_annotations(path, "atr", recording.length)
    subject, about = _SAME_PATIENT.get(recording.id, recording.id), read_age_and_sex(path.with_suffix(".hea"))
    return replace(recording, subject=subject, events=events, spans=spans, about=about)


def read_annotations(path: Path, extension: str, length: int) -> tuple[Events, tuple[Span, ...]]:
    """The beats of a WFDB annotation file, and the spans between its rhythm changes. Raises DataError for an unknown symbol."""
    wfdb = _import_wfdb()
    file = path.with_suffix(f".{extension}")
    elements = ["symbol", "label_store"]
    notes = _read_or_raise(file, lambda: wfdb.rdann(str(path.with_suffix("")), extension, return_label_elements=elements))
    if len({len(column) for column in (notes.symbol, notes.label_store, notes.sample, notes.aux_note)}) > 1:
        raise DataError(f"{file}: it is damaged, because its annotations do not each have a place and a label: copy it again")
    for symbol, code in zip(notes.symbol, notes.label_store, strict=True):
        if symbol not in _BEAT_SYMBOLS and symbol not in _OTHER_SYMBOLS:
            raise DataError(f"{file}: unknown label code {code}; the beats are {' '.join(sorted(_BEAT_SYMBOLS))}")
    beat = np.array([symbol in _BEAT_SYMBOLS for symbol in notes.symbol], bool)
    at = np.asarray(notes.sample, np.int64)
    if len(at) and not (at.min() >= 0 and at.max() < length):
        raise DataError(f"{file}: an annotation at sample {at.max()} leaves the {length} samples: it is another record's")
    aux_notes = zip(at.tolist(), notes.aux_note, strict=True)
    rhythm = [(start, note.strip("\0 ").lstrip("(")) for start, note in aux_notes if note.startswith("(")]
    stops = [start for start, _ in rhythm[1:]] + [length] * bool(rhythm)
    spans = [Span(start, stop, name) for (start, name), stop in zip(rhythm, stops, strict=True) if start < stop]
    return Events(at[beat], np.array(notes.symbol, np.str_)[beat]), tuple(spans)


# --- eegmat -----------------------------------------------------------------------------------------------------------

_EEGMAT_NAME = re.compile(r"^(Subject\d+)_([12])$", re.IGNORECASE)
_EEGMAT_LABELS = {"1": "rest", "2": "task"}


def is_eegmat_file(path: Path) -> bool:
    """Whether a file is named as those of eegmat are."""
    return _EEGMAT_NAME.match(path.stem) is not None


def read_eegmat(path: Path) -> Recording:
    """The ECG of an eegmat file; subject and condition ("rest", "task") from its name, SubjectNN_1.edf or SubjectNN_2.edf."""
    match = _EEGMAT_NAME.match(path.stem)
    if match is None:
        raise DataError(f"{path}: expected a name like Subject07_1.edf (rest) or Subject07_2.edf (task)")
    name = "ECG" if "ECG" in read_edf_labels(path) else "ECG ECG"  # the database's own spelling repeats the kind of signal
    recording = read_edf(path, (name,), rate_hz=500.0)
    about = read_subject_info(path.parent, match[1])
    return replace(recording, subject=match[1], label=_EEGMAT_LABELS[match[2]], channels=("ECG",), about=about)


# --- faults of files ---------------------------------------------------------------------------------------------------


def _import_wfdb() -> ModuleType:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import wfdb
    except ImportError as error:
        raise MissingExtraError("wfdb", "signals", "reading a WFDB record") from error
    module: ModuleType = wfdb
    return module


def _read_or_raise(file: Path, read: Callable[[], Any], name: str | None = None) -> Any:
    """Calls a reader that raises anything at all on a bad file; its complaint becomes one line. name: of the file, if another"""
    file = file.with_name(name) if name else file
    if not file.is_file():
        raise DataError(f"{file}: this file is missing: check the path, or copy the record again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the readers call pandas in ways the newest pandas warns about
            return read()
    except Exception as error:
        raise DataError(
            f"{file}: it cannot be read ({cut_message(error)}): correct the line of the header that this names, or export the "
            "record again"
        ) from error
