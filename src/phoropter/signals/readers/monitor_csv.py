"""CSV exports of a bedside monitor: a time column, one column a channel, units in the header, labels in a manifest beside them.

    time [s],II [mV],SpO2 (%)            manifest.csv
    0.000,0.12,97                        path,label,subject,site
    0.004,0.15,97                        bed3/0001.csv,stable,p17,ICU-2

The time column is the first with a known name (time_column.py), in seconds (default), in the unit of its header, as clock times
or as dates; separator and decimal comma are found from the first lines. The sampling rate is derived from
the times. Missing lines become missing samples; a clock that runs backwards, or jitters by more than a tenth of a step, is
refused. The units may stand in a line below the header (unit_line.py). A blank cell, "-", "--" or "---" is a missing sample. The
manifest has the columns of a `recordings:` manifest (tables.py); `rate_hz` is not needed.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.delimited import read_text_head, sniff_delimited_text
from phoropter.core.errors import DataError
from phoropter.core.files import format_bytes
from phoropter.core.storage.foreign_files import refuse_foreign_file
from phoropter.core.text_table import peek_table
from phoropter.signals.readers.physionet import select_channels
from phoropter.signals.readers.signal_tables import MAX_SIGNAL_BYTES, MISSING_CELLS, read_parquet_times
from phoropter.signals.readers.tables import ManifestRow, read_manifest
from phoropter.signals.readers.time_column import column_kind, is_clock, parse_clock, read_time_unit, split_unit
from phoropter.signals.readers.unit_line import parse_unit_line, strip_cell_quotes
from phoropter.signals.recording import GAPS_NOTE, LoadedRecordings, OnBadInput, Recording, read_folder

MANIFEST_FILE = "manifest.csv"
MAX_JITTER = 0.1  # of a sampling step
_CLOCKS = ("utc", "gmt", "local", "unix", "epoch", "posix")  # in brackets behind a time, no units
_DATES_S = (7e8, 8e9)  # 1992 and 2223, to which MIMIC shifts its dates: seconds since 1970 that an export may hold
MAX_SAMPLES = 2**28  # of one channel: a damaged date must not ask for years of missing samples


def read_export_folder(root: Path, on_bad_input: OnBadInput = "stop") -> LoadedRecordings:
    """The recordings that a manifest lists; without one every export of the folder, without labels.

    root: a folder, whose manifest is manifest.csv, or a manifest of any name
    """
    manifest = root / MANIFEST_FILE if root.is_dir() else root
    if manifest.is_file():
        return read_manifest(manifest, on_bad_input, readers={".csv": _read_listed_export})
    return read_folder(root, on_bad_input, pattern="*.csv", read_file=read_export)


def read_export(path: Path) -> Recording:
    """A CSV export → its recording; id and subject are the file's name. Raises DataError naming the line that cannot be used."""
    names, units, rows = _read_cells(path)
    at = next((i for i, name in enumerate(names) if column_kind(name) == "time"), None)
    channels = [i for i, name in enumerate(names) if i != at and not column_kind(name, first=i == 0)]  # no count, no date
    if at is None or not channels:
        raise DataError(f"{path}: expected a column called time and at least one channel, there are {', '.join(names)}")
    cell, first = f"{names[at]} [{units[at]}]" if units[at] else names[at], rows[0][1][at]
    if is_clock(first) or not (_is_number(first) or _parse_date(first)):
        seconds = parse_clock([row[at] for _, row in rows], cell, str(path), lambda row: f"line {rows[row][0]}")
    else:
        unit_s = _find_unit(cell, first, path)
        seconds = np.array([_parse_time(row[at], unit_s, f"{path} line {line}") for line, row in rows])
    index, rate_hz = _derive_sampling_grid(seconds, path)
    samples = np.full((len(channels), int(index[-1]) + 1), np.nan, np.float32)
    for place, (line, row) in zip(index.tolist(), rows, strict=True):
        samples[:, place] = [_parse_sample(row[i], f"{path} line {line}, {names[i]}") for i in channels]
    kept = tuple(names[i] for i in channels)
    notes = (GAPS_NOTE,) if samples.shape[1] > len(rows) else ()
    return Recording(path.stem, path.stem, samples, kept, tuple(units[i] for i in channels), rate_hz, source=path, notes=notes)


def read_rate_hz(path: Path) -> float:
    """The rate that the times of a CSV or Parquet table give. Raises DataError where they give none."""
    if path.suffix.lower() == ".csv":
        return read_export(path).rate_hz
    seconds = read_parquet_times(path)
    if len(seconds) < 2:
        raise DataError(f"{path}: expected at least two lines of samples, came {len(seconds)}")
    return _derive_sampling_grid(seconds, path)[1]


def is_export_folder(folder: Path, names: Sequence[str]) -> bool:
    """Whether a folder has a manifest, and beside it an export with a time column.

    The export must also have units in its header or the channels FHR and UC, or the manifest list CSV files.
    """
    exports = sorted(name for name in names if name.lower().endswith(".csv") and name != MANIFEST_FILE)
    if MANIFEST_FILE not in names or not exports:
        return False
    try:
        header = strip_cell_quotes(sniff_delimited_text(read_text_head(folder / exports[0])[0]).header)
    except (OSError, ValueError):
        return False
    if not any(column_kind(cell) == "time" for cell in header):
        return False
    if any(split_unit(cell)[1] for cell in header) or {"fhr", "uc"} <= {cell.casefold() for cell in header}:
        return True
    names_of_columns, first = peek_table(folder / MANIFEST_FILE)
    lists_tables = any(cell.strip().lower().endswith(".csv") for cell in first)
    return lists_tables and "path" in (name.casefold() for name in names_of_columns)


def _read_listed_export(file: Path, row: ManifestRow) -> Recording:
    recording, expected = read_export(file), row.parse_rate_hz(required=False)
    if expected is not None and not math.isclose(expected, recording.rate_hz, rel_tol=1e-3):
        raise DataError(f"{row.line}: rate_hz is {expected:g}, the times of {file.name} give {recording.rate_hz:g} Hz")
    channels = row.parse_channels()
    recording = recording if channels is None else select_channels(recording, channels)
    unit = row.cells.get("unit")
    return replace(recording, units=(unit,) * len(recording.units)) if unit else recording


def _read_cells(path: Path) -> tuple[list[str], list[str], list[tuple[int, list[str]]]]:
    """Names and units of the columns, and the lines that are not blank with their numbers."""
    if not path.is_file():
        raise DataError(f"{path}: this file is missing: check the path")
    if (size := path.stat().st_size) > MAX_SIGNAL_BYTES:
        raise DataError(
            f"{path}: {format_bytes(size)} are more than the {format_bytes(MAX_SIGNAL_BYTES)} that are read: split it"
        )
    refuse_foreign_file(path)
    try:
        head, encoding = read_text_head(path)
        known = sniff_delimited_text(head)
        with path.open(newline="", encoding=encoding) as file:
            reader = csv.reader(islice(file, known.lines_before_header, None), delimiter=known.separator)
            cells_of = enumerate(reader, start=known.lines_before_header + 1)
            lines = [(number, [cell.strip() for cell in line]) for number, line in cells_of if line]
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}: it cannot be read as CSV ({error}): save it as CSV in UTF-8") from error
    if len(lines) < 3:
        raise DataError(f"{path}: expected a header and at least two lines of samples, came {len(lines)} lines")
    header = [split_unit(cell) for cell in strip_cell_quotes(known.header)]
    if len(lines[1][1]) == len(header) and (own := parse_unit_line(lines[1][1])):
        header = [(name, unit or own[at]) for at, (name, unit) in enumerate(header)]
        del lines[1]
    if known.decimal == ",":
        lines = [(number, [cell.replace(",", ".") for cell in line]) for number, line in lines]
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise DataError(f"{path} line {number}: expected {len(header)} cells as in the header, came {len(cells)}")
    return [name for name, _ in header], [unit for _, unit in header], lines[1:]


def _derive_sampling_grid(seconds: NDArray[np.float64], path: Path) -> tuple[NDArray[np.int64], float]:
    """(N,) times in seconds → the place of each line on a regular grid, and the grid's rate in Hz.

    The step is the mean of the intervals that are about as long as the median one, so that times rounded to milliseconds
    give 240 Hz and not 250.
    """
    steps = np.diff(seconds)
    if (steps == 0).any() and not (steps < 0).any():
        repeated = float(seconds[int(np.flatnonzero(steps == 0)[0])])
        raise DataError(
            f"{path}: several lines have the time {repeated:.12g} s, so that no rate follows: export finer times, or list the "
            "files in a manifest of `recordings` with their rate_hz"
        )
    if (steps <= 0).any():
        line = int(np.flatnonzero(steps <= 0)[0])
        raise DataError(
            f"{path}: times should increase, but {seconds[line + 1]:.12g} s follows {seconds[line]:.12g} s: sort the export, or "
            "split it where the clock was set back"
        )
    median = float(np.median(steps))
    usual = steps[np.abs(steps - median) <= 0.5 * median]
    step = float(usual.mean())
    gaps = np.rint(steps / step)
    worst = float(np.abs(steps - gaps * step).max())
    tolerance = max(MAX_JITTER * step, min(1e-3, step / 4))  # times may have been rounded to milliseconds
    if worst > tolerance or (gaps < 1).any():
        raise DataError(
            f"{path}: its times are irregular (off a step of {step:g} s by up to {worst:g} s): resample the export, or, "
            "where lines are late or early, list the files in a manifest of `recordings` with their rate_hz"
        )
    index = np.concatenate([[0.0], np.cumsum(gaps)]).astype(np.int64)
    if index[-1] >= MAX_SAMPLES:
        raise DataError(f"{path}: its times span {index[-1]} samples, more than the {MAX_SAMPLES} that are read: check the dates")
    return index, float(f"{1 / step:.4g}")  # rounded, so that all files of one device have one rate


def _find_unit(cell: str, first: str, path: Path) -> float:
    """Seconds in one unit of numbers of times: as the header states; else seconds, or of times since 1970 what they are in.

    Raises DataError for another unit in the header, and for numbers that are neither: the rate would follow from a guess.
    """
    if (stated := read_time_unit(cell)) is not None:
        return stated
    if not _is_number(first):  # a date
        return 1.0
    if (unit := split_unit(cell)[1]) and unit.strip().casefold() not in _CLOCKS:
        raise DataError(f"{path}: its times are in {unit!r}, expected s, ms, us, ns, min or h in the header {cell!r}: correct it")
    if (value := float(first)) < _DATES_S[1]:
        return 1.0
    if (scale := next((scale for scale in (1e-3, 1e-6, 1e-9) if _DATES_S[0] < value * scale < _DATES_S[1]), None)) is None:
        raise DataError(  # 20240501101502, 100 ns since 1601, or nanoseconds since the device was switched on
            f"{path}: its times begin at {first}, which are no seconds, nor since 1970 in ms, us or ns: state their unit in the "
            "header, as in time [ns], or write dates as 2024-05-01 10:15:02"
        )
    return scale


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _parse_date(text: str) -> datetime | None:
    """An ISO 8601 date; None for other texts."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)  # UTC has no change of the clocks


def _parse_time(text: str, unit_s: float, where: str) -> float:
    """A number in units of `unit_s`, or an ISO 8601 date → seconds."""
    try:
        value = float(text) * unit_s
    except ValueError:
        if (date := _parse_date(text)) is None:
            raise DataError(f"{where}: expected a time as a number or an ISO 8601 date, came {text!r}") from None
        return date.timestamp()
    if not math.isfinite(value):
        raise DataError(f"{where}: expected a finite time, came {text!r}")
    return value


def _parse_sample(text: str, where: str) -> float:
    if text in MISSING_CELLS:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: expected a number or a blank cell, came {text!r}") from None
    return value if math.isfinite(value) else math.nan
