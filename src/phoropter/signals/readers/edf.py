"""EDF, EDF+ and BDF files → Recording.

Kemp et al., Electroenceph. Clin. Neurophysiol. 82:391, 1992 (EDF); Kemp & Olivan, Clin. Neurophysiol. 114:1755, 2003 (EDF+).

A header is held against the file: its data records are counted by the file's size, and a count that differs is refused, because
a cut or joined recording still looks like a signal. A count of -1 (the recorder was stopped) is read from the size. In EDF+ every
data record has the time it begins; where time jumps, the samples between are missing, so that no window straddles the gap.

Sex, and the age on the day of the recording, are read from a header that has them as EDF+ does; date of birth and name are not.
Headers of other tools are read as they are meant: µ and umlauts (UTF-8 or Latin-1), a decimal comma, NUL in place of a space.
Left out on purpose: channels of different rates in one recording, and the texts of annotations.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, join_words
from phoropter.core.storage.foreign_files import refuse_foreign_file
from phoropter.signals.recording import GAPS_NOTE, Recording, check_filled_length, find_channels

_FIXED_BYTES = 256  # before the signals, and again for every signal
_FIELDS = {
    **{"label": 16, "transducer": 80, "unit": 8, "physical_min": 8, "physical_max": 8, "digital_min": 8},
    **{"digital_max": 8, "filter": 80, "count": 8, "reserved": 32},
}  # name → bytes of each signal
_ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
_PATIENT = re.compile(r"\S+ ([MF]|X) (\d\d-[A-Z]{3}-\d{4}|X)(?: .*)?")  # code, sex, date of birth, name
_START = re.compile(r"Startdate (\d\d-[A-Z]{3}-\d{4})(?: .*)?")
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_ONSET = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15[\d.]*)?\x14")
_MAX_SIGNALS = 4096


@dataclass(frozen=True)
class EdfHeader:
    """The header of a file; of the signals, one entry each, annotations included.

    record_count: data records in the file · record_s: length of one in seconds · offsets: of each signal in a record, in samples
    plus:         whether data records have onsets (EDF+) · has_gaps: whether the header says that they do not follow each other
    cut_bytes:    of an unfinished last data record, which is left out where the header has no count
    about:        sex and age in years of the subject, where the header states them
    """

    fields: dict[str, list[str]]
    counts: tuple[int, ...]
    record_count: int
    record_s: float
    sample_bytes: int
    plus: bool
    has_gaps: bool = False
    cut_bytes: int = 0
    about: Mapping[str, float | str | None] = field(default_factory=dict)

    @property
    def header_bytes(self) -> int:
        return _FIXED_BYTES * (len(self.counts) + 1)

    @property
    def labels(self) -> list[str]:
        return self.fields["label"]


def read_edf(path: Path, channels: Sequence[str] | None = None, rate_hz: float | None = None) -> Recording:
    """An EDF or BDF file; id and subject are the file's name. Without `channels` all signals, which must share one rate.

    Raises DataError for a file that contradicts its header, for a channel that is missing or whose name two signals have, and
    for another rate than `rate_hz`.
    """
    header = _read_header(path)
    rows = _choose_signals(path, header.labels, channels)
    rate = _find_rate(path, {header.counts[row] / header.record_s for row in rows}, rate_hz)
    records = _map_records(path, header)
    starts = _record_starts(path, header, records, rate, header.counts[rows[0]])
    length = int(starts[-1]) + header.counts[rows[0]]
    check_filled_length(length, header.record_count * header.counts[rows[0]], str(path), len(rows))
    samples = np.full((len(rows), length), np.nan, np.float32)
    places = (starts[:, None] + np.arange(header.counts[rows[0]])).ravel()
    outside = []
    for channel, row in enumerate(rows):
        samples[channel, places], leaves_range = _physical_samples(path, header, records, row)
        outside += [header.labels[row]] if leaves_range else []
    notes = [GAPS_NOTE] if samples.shape[1] > len(places) else []
    notes += [_OUTSIDE_NOTE.format(channel=name) for name in outside]
    notes += ["its last data record is unfinished and was left out"] if header.cut_bytes else []
    names, units = tuple(header.labels[row] for row in rows), tuple(header.fields["unit"][row] for row in rows)
    return Recording(path.stem, path.stem, samples, names, units, rate, source=path, notes=tuple(notes), about=header.about)


def read_edf_labels(path: Path) -> list[str]:
    """The names of the signals in a file."""
    return [label for label in _read_header(path).labels if label not in _ANNOTATIONS]


# --- the header -------------------------------------------------------------------------------------------------------


def _read_header(path: Path) -> EdfHeader:
    if not path.is_file():
        raise DataError(f"{path}: this file is missing: check the path")
    size = path.stat().st_size
    refuse_foreign_file(path)
    with path.open("rb") as file:
        fixed = file.read(_FIXED_BYTES)
        if len(fixed) < _FIXED_BYTES or not (fixed[:8].strip(b" \0") == b"0" or fixed[:8] == b"\xffBIOSEMI"):
            raise _refusal(path, "it does not begin with the 256 bytes of an EDF or BDF header: it is another kind of file")
        count = int(_parse_number(path, fixed[252:256], "the number of signals", 1, _MAX_SIGNALS))
        block = file.read(_FIXED_BYTES * count)
    if len(block) < _FIXED_BYTES * count:
        raise _refusal(
            path, f"its header of {count} signals has {_FIXED_BYTES * (count + 1)} bytes, the file {size}: it is cut short"
        )
    declared = int(_parse_number(path, fixed[184:192], "the length of the header", 0))
    if declared != _FIXED_BYTES * (count + 1):
        raise _refusal(path, f"its header says it has {declared} bytes, {count} signals need {_FIXED_BYTES * (count + 1)}")
    fields = _split_fields(block, count)
    fields["label"] = [label or f"channel {at + 1}" for at, label in enumerate(fields["label"])]
    counts = tuple(
        int(_parse_number(path, text, f"samples in a data record of signal {name or at + 1}", 1))
        for at, (text, name) in enumerate(zip(fields["count"], fields["label"], strict=True))
    )
    record_s = _parse_number(path, fixed[244:252], "the seconds of a data record", 0)
    if record_s == 0 and set(fields["label"]) - set(_ANNOTATIONS):
        raise _refusal(path, "its data records last 0 s, so its signals have no sampling rate")
    width = 3 if fixed[0] == 0xFF else 2
    records, cut = _count_records(path, size, fixed[236:244], _FIXED_BYTES * (count + 1), sum(counts) * width)
    plus = fixed[192:197].upper() in (b"EDF+C", b"EDF+D", b"BDF+C", b"BDF+D")
    gaps = plus and fixed[196:197].upper() == b"D"
    return EdfHeader(fields, counts, records, record_s, width, plus, gaps, cut, _describe_patient(fixed))


def _describe_patient(fixed: bytes) -> dict[str, float | str | None]:
    """Sex (M, F) and age in whole years on the day of the recording, of a header that states them as EDF+ does."""
    patient = _PATIENT.fullmatch(_decode_text(fixed[8:88]))
    if patient is None:
        return {}
    started, about = _START.fullmatch(_decode_text(fixed[88:168])), dict[str, float | str | None]()
    if patient[1] != "X":
        about["sex"] = patient[1]
    born, on = _parse_date(patient[2]), _parse_date(started[1]) if started else None
    if born and on and born <= on:
        about["age"] = float(on.year - born.year - ((on.month, on.day) < (born.month, born.day)))
    return about


def _parse_date(text: str) -> date | None:
    """`02-MAR-1951` → its date; None where it is none."""
    try:
        return date(int(text[7:]), _MONTHS.index(text[3:6]) + 1, int(text[:2]))
    except ValueError:
        return None


def _split_fields(block: bytes, count: int) -> dict[str, list[str]]:
    fields, at = {}, 0
    for name, width in _FIELDS.items():
        fields[name] = [_decode_text(block[at + i * width : at + (i + 1) * width]) for i in range(count)]
        at += count * width
    return fields


def _count_records(path: Path, size: int, field: bytes, header_bytes: int, record_bytes: int) -> tuple[int, int]:
    """(data records, bytes of an unfinished one) by the file's size. Raises DataError where the header has another count."""
    declared = int(_parse_number(path, field, "the number of data records", -1))
    found, rest = divmod(size - header_bytes, record_bytes)
    if declared >= 0 and (declared, 0) != (found, rest):
        more = f" and {rest} bytes" if rest else ""
        raise _refusal(
            path,
            f"its header says {declared} data records of {record_bytes} bytes, the file holds {found}{more}: it was cut short, "
            "joined or stopped before the header was finished; export it again, or write -1 for the number if what is there is "
            "right",
        )
    if found < 1:
        raise _refusal(path, f"it holds no data record of {record_bytes} bytes behind its header")
    return found, rest


def _decode_text(field: bytes) -> str:
    """UTF-8 where it is that, else Latin-1, the common way to write µ."""
    try:
        text = field.decode("utf-8")
    except UnicodeDecodeError:
        text = field.decode("latin-1")
    return unicodedata.normalize("NFC", text.replace("\0", " ")).strip()


def _parse_number(path: Path, field: bytes | str, what: str, low: float, high: float = 1e12) -> float:
    text = (_decode_text(field) if isinstance(field, bytes) else field).replace(",", ".")
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise _refusal(path, f"its header has {text!r} for {what}")
    return value


def _refusal(path: Path, why: str) -> DataError:
    return DataError(f"{path}: it cannot be read as EDF: {why}")


# --- channels ---------------------------------------------------------------------------------------------------------


def _choose_signals(path: Path, labels: Sequence[str], channels: Sequence[str] | None) -> list[int]:
    """The rows of the wanted signals. A name that two signals have is refused where it is wanted."""
    there = [label for label in labels if label not in _ANNOTATIONS]
    if not there:
        raise _refusal(path, "it holds annotations and no signal")
    rows = [row for row, label in enumerate(labels) if label not in _ANNOTATIONS]
    return [rows[at] for at in find_channels(there, channels, str(path))]


def _find_rate(path: Path, rates: set[float], expected: float | None) -> float:
    if len(rates) != 1:
        came = join_words(f"{rate:g} Hz" for rate in sorted(rates))
        raise DataError(f"{path}: expected channels of one rate, came {came}: name the channels to use")
    if expected is not None and rates != {expected}:
        raise DataError(f"{path}: expected {expected:g} Hz, came {min(rates):g} Hz: this is not the database it was read as")
    return min(rates)


# --- data records -----------------------------------------------------------------------------------------------------


def _map_records(path: Path, header: EdfHeader) -> NDArray[np.uint8]:
    """(records, bytes of a record), not in memory."""
    shape = (header.record_count, sum(header.counts) * header.sample_bytes)
    return np.memmap(path, np.uint8, mode="r", offset=header.header_bytes, shape=shape)


def _signal_bytes(header: EdfHeader, records: NDArray[np.uint8], row: int) -> NDArray[np.uint8]:
    """(records, bytes of the signal in a record)."""
    first = sum(header.counts[:row]) * header.sample_bytes
    return np.ascontiguousarray(records[:, first : first + header.counts[row] * header.sample_bytes])


def _physical_samples(path: Path, header: EdfHeader, records: NDArray[np.uint8], row: int) -> tuple[NDArray[np.float32], bool]:
    """(records × samples,) in the signal's unit, and whether some lie outside the digital range that the header states.

    The order of operations is EDFlib's, so that no last bit differs from it.
    """
    name = header.labels[row]
    low, high = (_parse_number(path, header.fields[f"physical_{end}"][row], f"physical_{end} of {name}", -1e12) for end in _ENDS)
    first, last = (_parse_number(path, header.fields[f"digital_{end}"][row], f"digital_{end} of {name}", -1e9) for end in _ENDS)
    if first >= last or low == high:
        raise _refusal(path, f"signal {name} has the digital range {first:g}..{last:g} and the physical range {low:g}..{high:g}")
    data = _signal_bytes(header, records, row)
    if header.sample_bytes == 2:
        digital = data.view("<i2").ravel().astype(np.float64)
    else:  # three bytes, the last with the sign
        padded = np.zeros((data.size // 3, 4), np.uint8)
        padded[:, 1:] = data.reshape(-1, 3)
        digital = (padded.view("<i4").ravel() >> 8).astype(np.float64)
    scale = (high - low) / (last - first)
    physical = np.asarray(scale * (high / scale - last + digital), np.float32)
    return physical, bool(digital.min() < first or digital.max() > last)


_ENDS = ("min", "max")
# The standard allows none; some recorders mark a missing sample so.
_OUTSIDE_NOTE = "{channel} has samples outside the digital range of the header, and they are kept: is the header right?"


def _record_starts(path: Path, header: EdfHeader, records: NDArray[np.uint8], rate_hz: float, count: int) -> NDArray[np.int64]:
    """(records,) the sample at which each record begins, by the onsets of EDF+ where the file has them."""
    plain = np.arange(header.record_count, dtype=np.int64) * count
    row = next((at for at, label in enumerate(header.labels) if label in _ANNOTATIONS), None)
    if row is None and header.has_gaps and header.record_count > 1:
        raise _refusal(
            path, "its header says that its data records do not follow each other (EDF+D), and no signal of annotations says when"
        )
    if not header.plus or row is None:
        return plain
    onsets = np.empty(header.record_count)
    for at, data in enumerate(_signal_bytes(header, records, row)):
        if (match := _ONSET.match(data.tobytes())) is None:
            raise _refusal(path, f"data record {at + 1} of an EDF+ file should begin with its time, such as +12")
        onsets[at] = float(match[1])
    starts = np.rint((onsets - onsets[0]) * rate_hz).astype(np.int64)
    if (np.abs(starts - plain) <= 1).all():
        return plain  # times are rounded
    early = np.flatnonzero(np.diff(starts) < count - 1)
    if len(early):
        at = int(early[0])
        raise _refusal(
            path,
            f"data record {at + 2} begins at {onsets[at + 1]:g} s, before record {at + 1} of {header.record_s:g} s "
            f"from {onsets[at]:g} s ends",
        )
    gaps = np.diff(starts) - count
    starts = plain + np.concatenate([[0], np.cumsum(np.where(gaps > 1, gaps, 0))])  # a single sample is rounding
    check_filled_length(int(starts[-1]) + count, header.record_count * count, str(path))
    return np.asarray(starts, np.int64)
