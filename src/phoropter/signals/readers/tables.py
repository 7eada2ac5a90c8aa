"""Recordings in tables: a manifest that lists files, and the CSV, Parquet, WFDB or EDF files it lists.

The manifest is a CSV or Parquet file with one row a recording and these columns; only `path` is required.

    path         the recording's file, relative to the manifest: .csv, .parquet, .hea or .edf
    rate_hz      samples a second; required for .csv and .parquet, checked against the header of .hea and .edf
    label        the recording's class, or
    spans        a CSV with columns start_s, stop_s, label (or start, stop in samples): the labelled parts
    id           default: the path without its ending
    subject      default: the id
    site         hospital or device
    channels     names of the columns to use, separated by spaces or `;`; default: all number columns but a time column
    unit         of all channels
    outcome.KEY  numbers or text kept with the recording, such as outcome.pH, outcome.Apgar1

An empty cell is a missing value. In a recording's own table an empty cell is a missing sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.files import format_bytes
from phoropter.signals.readers.edf import read_edf
from phoropter.signals.readers.physionet import read_wfdb
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, Span, check_sampling_rate, read_recordings

if TYPE_CHECKING:
    import pandas as pd

MAX_BYTES = 4 * 1024**3
MAX_MANIFEST_BYTES = 256 * 1024**2
MAX_VALUES = 2**30  # numbers in one recording; a Parquet file can be small and hold many

_MANIFEST_COLUMNS = ("path", "rate_hz", "label", "spans", "id", "subject", "site", "channels", "unit")
_TIME_COLUMNS = ("time", "time_s", "t", "timestamp", "index")


@dataclass(frozen=True)
class ManifestRow:
    """One line of a manifest; cells are text, None where empty."""

    line: str  # "manifest.csv line 3"
    folder: Path
    cells: Mapping[str, str | None]

    def __str__(self) -> str:
        return self.line

    def parse_rate_hz(self, required: bool) -> float | None:
        """The rate in Hz. Raises DataError where it is required and missing, or not a number above zero."""
        text = self.cells.get("rate_hz")
        if text is None and not required:
            return None
        value = _parse_number(text or "")
        if not isinstance(value, float) or not math.isfinite(value) or value <= 0:
            raise DataError(f"{self.line}: rate_hz should be a number of Hz above zero, came {text or 'an empty cell'}")
        return value

    def parse_channels(self) -> list[str] | None:
        """Channel names separated by `;`, or by spaces where there is no `;`."""
        text = self.cells.get("channels")
        if text is None:
            return None
        return [name.strip() for name in text.split(";")] if ";" in text else text.split()

    def parse_outcome(self) -> dict[str, float | str | None]:
        cells = {key.removeprefix("outcome."): text for key, text in self.cells.items() if key.startswith("outcome.")}
        values = {key: None if text is None else _parse_number(text) for key, text in cells.items()}
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def read_manifest(
    path: Path, on_bad_input: OnBadInput = "stop", *, readers: Mapping[str, RowReader] | None = None
) -> LoadedRecordings:
    """Reads the recordings a manifest lists. `readers` (ending → reader) stand for those of this module.

    Raises DataError for a manifest with unknown columns or without rows, whatever `on_bad_input` is.
    """
    table = _read_text_table(path)
    if "path" not in table.columns:
        raise DataError(f"{path}: a manifest needs a column path, there are {join_words(table.columns)}")
    for column in table.columns:
        if column not in _MANIFEST_COLUMNS and not column.startswith("outcome."):
            known = f"{join_words(_MANIFEST_COLUMNS)} or outcome.KEY{did_you_mean(column, _MANIFEST_COLUMNS)}"
            raise DataError(f"{path}: column {column!r} is unknown; expected {known}")
    if not len(table):
        raise DataError(f"{path}: it lists no recording")
    rows = [ManifestRow(f"{path} line {line}", path.parent, cells) for line, cells in enumerate(_table_cells(table), start=2)]
    return read_recordings(rows, lambda row: read_manifest_row(row, readers or ROW_READERS), on_bad_input)


def is_manifest(path: Path) -> bool:
    """Whether a table is a manifest: it has a column `path`. A file that cannot be read is not one."""
    if path.suffix.lower() == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return "path" in parquet.read_schema(path).names
        except (pa.ArrowException, OSError):
            return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return "path" in [word.strip().strip('"') for word in file.readline(1_000_000).split(",")]


def read_manifest_row(row: ManifestRow, readers: Mapping[str, RowReader]) -> Recording:
    """The recording of one manifest line, read by the reader of its file's ending."""
    name, label, spans = row.cells["path"], row.cells.get("label"), row.cells.get("spans")
    if name is None:
        raise DataError(f"{row.line}: the path is empty")
    if label is not None and spans is not None:
        raise DataError(f"{row.line}: it has both a label and a spans file: keep one")
    file = row.folder / name
    if file.suffix.lower() not in readers:
        raise DataError(f"{row.line}: {name} should end in {join_words(readers)}")
    recording = readers[file.suffix.lower()](file, row)
    ident = row.cells.get("id") or str(Path(name).with_suffix(""))
    return replace(
        recording,
        id=ident,
        subject=row.cells.get("subject") or ident,
        site=row.cells.get("site") or "",
        label=label,
        spans=() if spans is None else read_spans(row.folder / spans, recording.rate_hz),
        outcome=row.parse_outcome(),
    )


def read_signal_table(path: Path, rate_hz: float, channels: list[str] | None = None, unit: str = "") -> Recording:
    """A CSV or Parquet file with one column per channel and one line per sample; id and subject are the file's name."""
    check_sampling_rate(rate_hz, str(path))
    table = _read_bounded_table(path, MAX_BYTES, skip_blank_lines=False)  # a blank line of a single column is a missing sample
    there = {name: _is_numeric(table[name]) for name in table.columns}
    names = channels if channels is not None else [n for n, number in there.items() if number and n.lower() not in _TIME_COLUMNS]
    for name in names:
        if name not in there:
            raise DataError(f"{path}: channel {name!r} is missing, there are {join_words(there)}{did_you_mean(name, there)}")
        if not there[name]:
            raise DataError(f"{path}: channel {name!r} should hold numbers, came {_first_text(table[name])!r}")
    if not names or not len(table):
        raise DataError(f"{path}: expected at least one column of numbers and one line of samples")
    samples = np.array(table[names].to_numpy(np.float32, na_value=np.nan).T, order="C")
    samples[np.isinf(samples)] = np.nan
    return Recording(path.stem, path.stem, samples, tuple(names), (unit,) * len(names), rate_hz, source=path)


def read_spans(path: Path, rate_hz: float) -> tuple[Span, ...]:
    """A CSV of labelled intervals → spans in samples, in order of time."""
    table = _read_text_table(path)
    in_seconds = {"start_s", "stop_s"} <= set(table.columns)
    first, last, scale = ("start_s", "stop_s", rate_hz) if in_seconds else ("start", "stop", 1.0)
    for name in (first, last, "label"):
        if name not in table.columns:
            there = join_words(table.columns)
            raise DataError(f"{path}: column {name!r} is missing; expected start_s, stop_s and label, there are {there}")
    spans = []
    for line, cells in enumerate(_table_cells(table), start=2):
        start, stop, label = _parse_number(cells[first] or ""), _parse_number(cells[last] or ""), cells["label"]
        if not isinstance(start, float) or not isinstance(stop, float) or not math.isfinite(start + stop) or label is None:
            raise DataError(f"{path} line {line}: expected two times and a label, came {cells[first]}, {cells[last]}, {label}")
        spans.append(Span(round(start * scale), round(stop * scale), label))
    return tuple(sorted(spans))


# --- cells ------------------------------------------------------------------------------------------------------------


def _read_bounded_table(path: Path, limit: int, **options: Any) -> pd.DataFrame:
    """Reads a CSV or Parquet file of at most `limit` bytes and strips column names; `options` go to read_csv."""
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path}: this file is missing: check the path")
    if (size := path.stat().st_size) > limit:
        raise DataError(f"{path}: {format_bytes(size)} are more than the {format_bytes(limit)} that are read: split it")
    try:
        if path.suffix.lower() == ".parquet":
            _check_parquet(path)
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, encoding="utf-8-sig", skipinitialspace=True, **options)
    except DataError:
        raise
    except Exception as error:  # pandas and pyarrow raise of every kind on a damaged table
        complaint = str(error).strip().splitlines()
        reason = complaint[0] if complaint else type(error).__name__
        raise DataError(f"{path}: it cannot be read as a table ({reason})") from error
    table.columns = [str(column).strip() for column in table.columns]
    return table


def _read_text_table(path: Path) -> pd.DataFrame:
    """Reads a manifest or list of spans as text, so that subject 007 keeps its zeros and site NA its name."""
    return _read_bounded_table(path, MAX_MANIFEST_BYTES, dtype=str, keep_default_na=False)


def _table_cells(table: pd.DataFrame) -> list[dict[str, str | None]]:
    columns = list(table.columns)
    return [dict(zip(columns, map(_cell_text, row), strict=True)) for row in table.itertuples(index=False, name=None)]


def _cell_text(value: Any) -> str | None:
    """A cell as text, None where empty; Parquet's 4.0 becomes 4."""
    if value is None or value is not value or str(value) == "<NA>":
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip() or None


def _parse_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _check_parquet(path: Path) -> None:
    import pyarrow.parquet as pq

    known = pq.read_metadata(path)
    if known.num_rows * known.num_columns > MAX_VALUES:
        held = f"{known.num_rows} lines of {known.num_columns} columns"
        raise DataError(f"{path}: {held} are more than the {MAX_VALUES} numbers that are read: split it")


def _is_numeric(column: pd.Series[Any]) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column) and not is_bool_dtype(column))


def _first_text(column: pd.Series[Any]) -> str:
    """The first cell that is not a number, for a message."""
    return next((str(value) for value in column if isinstance(_parse_number(str(value)), str)), str(column.dtype))


def _read_table_row(file: Path, row: ManifestRow) -> Recording:
    return read_signal_table(file, row.parse_rate_hz(required=True) or 0.0, row.parse_channels(), row.cells.get("unit") or "")


RowReader = Callable[[Path, ManifestRow], Recording]
ROW_READERS: dict[str, RowReader] = {
    ".csv": _read_table_row,
    ".parquet": _read_table_row,
    ".hea": lambda file, row: read_wfdb(file, row.parse_channels(), row.parse_rate_hz(required=False)),
    ".edf": lambda file, row: read_edf(file, row.parse_channels(), row.parse_rate_hz(required=False)),
}
