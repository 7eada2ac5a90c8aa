"""A recording in a CSV or Parquet file: one column per channel, one line per sample, and perhaps a time column.

A CSV may be separated by commas, semicolons, tabs or bars, have decimal commas where its separator is none, begin with a byte
order mark or Excel's line `sep=;`, and be in UTF-8, UTF-16 or Windows-1252. Every line must have as many cells as the header.
The line below the header may hold units (`unit_line.py`).

A time column (`time_column.py`) is held against the sampling rate and against the order of the lines. Where time jumps, the
samples between are missing, so that no window straddles the gap; the recording's notes say so.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.delimited import DelimitedFormat, read_text_head, sniff_delimited_text
from phoropter.core.errors import DataError, cut_message
from phoropter.core.files import format_bytes
from phoropter.core.storage.foreign_files import PARQUET, refuse_foreign_file
from phoropter.signals.readers.time_column import (
    column_kind,
    find_time_column,
    parse_time_column,
    place_lines,
    rises_evenly,
    rises_like_times,
)
from phoropter.signals.readers.unit_line import parse_unit_line, strip_cell_quotes
from phoropter.signals.recording import GAPS_NOTE, Recording, check_filled_length, check_sampling_rate, find_channels

if TYPE_CHECKING:
    import pandas as pd

MAX_SIGNAL_BYTES = 4 * 1024**3
MAX_VALUES = 2**30  # numbers in one recording; a Parquet file can be small and hold many
_LOOKED_AT = 1000  # cells of a column of text
MISSING_CELLS = ("", "-", "--", "---")
_NUMBER = re.compile(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?")
# Numbers that no program reads as such: 1.005,5 and 1'005.5, 97 %, a typographic minus.
_WRITTEN_NUMBER = re.compile(r"[-+−–]?(\d{1,3}([.,'’\s]\d{3})*|\d+)([.,]\d+)?\s*%?")
_CLOCK_OR_DATE = re.compile(r"[\d.:/\-T ]*\d:\d\d[\d.:,Z+ ]*(?:[ap]\.?m\.?)?", re.IGNORECASE)


@dataclass(frozen=True)
class _Table:
    """Columns by position, since two may have one name.

    first_line: number of the first line of samples in the file · units: of each column, from the line below the header
    """

    header: tuple[str, ...]
    frame: pd.DataFrame
    first_line: int
    decimal: str = "."
    units: tuple[str, ...] = ()

    def name_line(self, row: int) -> str:
        """`line 3`, as a person counts the lines of the file."""
        return f"line {self.first_line + row}"

    def unit(self, at: int) -> str:
        """The unit of a column, "" where its own line says none."""
        return self.units[at] if self.units else ""

    def to_numbers(self, at: int) -> pd.Series[Any]:
        """A column of text as numbers, NaN where a cell is none."""
        import pandas as pd

        return pd.to_numeric(self.frame.iloc[:, at].astype("string").str.strip().str.replace(self.decimal, "."), errors="coerce")

    def share_of_numbers(self, at: int) -> float:
        """The share of a column's filled cells that are numbers, 0 to 1."""
        filled = int(self.frame.iloc[:, at].notna().sum())
        return float(self.to_numbers(at).notna().sum()) / filled if filled else 0.0

    def share_of_written_numbers(self, at: int) -> float:
        """The share of a column's first filled cells that a person reads as numbers, 0 to 1."""
        cells = self.frame.iloc[:, at].dropna().head(_LOOKED_AT).astype("string").str.strip()
        return float(cells.str.fullmatch(_WRITTEN_NUMBER.pattern).mean()) if len(cells) else 0.0


def read_signal_table(path: Path, rate_hz: float, channels: Sequence[str] | None = None, unit: str = "") -> Recording:
    """A CSV or Parquet file → its recording; id and subject are the file's name.

    channels: default: all columns of numbers but times, dates and counters
    unit:     of all channels; default: those of a line of units
    Raises DataError for a table that contradicts its header or `rate_hz`, and for a channel that is missing, has two columns or
    holds something else than numbers.
    """
    check_sampling_rate(rate_hz, str(path))
    table = _read_table(path)
    times, kind, told = _find_times(table, rate_hz)
    columns, notes = _choose_columns(path, table, channels, times)
    if not columns or not len(table.frame):
        text = f" ({notes[0]})" if notes and len(table.frame) else ""
        raise DataError(f"{path}: expected at least one column of numbers and one line of samples{text}")
    with np.errstate(over="ignore"):  # a number beyond float32 is no sample
        samples = np.array(table.frame.iloc[:, columns].to_numpy(np.float32, na_value=np.nan).T, order="C")
    samples[np.isinf(samples)] = np.nan
    if times is not None and times not in columns:
        samples, gaps = _place_samples(path, table, times, kind, rate_hz, samples)
        notes = (*notes, *told, *gaps)
    elif times is None:
        notes = (*notes, *told)
    names = tuple(table.header[at] for at in columns)
    units = tuple(unit or table.unit(at) for at in columns)
    return Recording(path.stem, path.stem, samples, names, units, rate_hz, source=path, notes=notes)


def is_signal_schema(schema: Any) -> bool:
    """Whether a Parquet file of this schema has times, as a column or as the index of its data frame, and numbers beside them,
    but no pictures or lists."""
    from pyarrow import types

    index = (schema.pandas_metadata or {}).get("index_columns", [])
    times = {f.name for f in schema if column_kind(f.name) == "time" or (f.name in index and types.is_temporal(f.type))}
    others = [f for f in schema if f.name not in times and f.name not in index]
    packed = any(types.is_nested(f.type) or types.is_binary(f.type) or types.is_large_binary(f.type) for f in others)
    return bool(times) and not packed and any(types.is_integer(f.type) or types.is_floating(f.type) for f in others)


def read_parquet_times(path: Path) -> NDArray[np.float64]:
    """(N,) seconds of the time column of a Parquet file. Raises DataError where it has none."""
    table = _read_table(path)
    at = find_time_column(table.header)
    if at is None or column_kind(table.header[at]) != "time":
        raise DataError(f"{path}: expected a column called time, there are {', '.join(table.header)}")
    return parse_time_column(table.frame.iloc[:, at], table.header[at], str(path), table.name_line)


def _find_times(table: _Table, rate_hz: float) -> tuple[int | None, str, tuple[str, ...]]:
    """(the column of times by its name, else by its numbers; `time` or `counter`; a note where its numbers told)."""
    if (at := find_time_column(table.header)) is not None:
        return at, column_kind(table.header[at], first=at == 0), ()
    for at, name in enumerate(table.header):
        if not column_kind(name) and (kind := rises_like_times(table.frame.iloc[:, at], rate_hz)):
            what = "samples" if kind == "counter" else "time"
            return at, kind, (f"the column {name!r} counts {what} and is no channel",)
    return None, "", tuple(_describe_even_columns(table, rate_hz))


def _describe_even_columns(table: _Table, rate_hz: float) -> Iterator[str]:
    """A note on each column that rises as times of another rate would: what it is, its name does not say."""
    for at, name in enumerate(table.header):
        if not column_kind(name) and (step := rises_evenly(table.frame.iloc[:, at])) is not None:
            yield (
                f"WARNING: the column {name!r} rises by {step:.6g} from line to line, as times do, which is no step of "
                f"{rate_hz:g} Hz: if it holds times, call it time, with its unit, as in time [ms]"
            )


def _place_samples(
    path: Path, table: _Table, times: int, kind: str, rate_hz: float, samples: NDArray[np.float32]
) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Samples on the grid of their times, and the note on gaps. Blank lines at the end are no samples."""
    column = table.frame.iloc[:, times]
    used = np.flatnonzero(column.notna().to_numpy() | np.isfinite(samples).any(axis=0))
    count = int(used[-1]) + 1 if len(used) else 0
    cell = f"{table.header[times]} [{table.unit(times)}]" if table.unit(times) else table.header[times]
    places = place_lines(column[:count], cell, rate_hz, str(path), table.name_line, kind)
    if not len(places) or places[-1] + 1 == count:
        return samples[:, :count], ()
    check_filled_length(int(places[-1]) + 1, count, str(path), len(samples))
    filled = np.full((len(samples), int(places[-1]) + 1), np.nan, np.float32)
    filled[:, places] = samples[:, :count]
    return filled, (GAPS_NOTE,)


# --- columns ----------------------------------------------------------------------------------------------------------


def _choose_columns(
    path: Path, table: _Table, channels: Sequence[str] | None, times: int | None
) -> tuple[list[int], tuple[str, ...]]:
    """Positions of the channels, and a note on columns of text that were left out. times: the column of times, which is none"""
    if channels is not None:
        columns = [_find_channel(path, table.header, name) for name in channels]
        for at in columns:
            _check_numbers(path, table, at)
        return columns, ()
    candidates = [at for at, cell in enumerate(table.header) if at != times and not column_kind(cell, first=at == 0)]
    text = [at for at in candidates if not _is_numeric(table.frame.iloc[:, at])]
    for at in text:
        if table.share_of_numbers(at) >= 0.5 or table.share_of_written_numbers(at) >= 0.5:
            _check_numbers(path, table, at)
    columns = [at for at in candidates if at not in text and not (not table.header[at] and table.frame.iloc[:, at].isna().all())]
    for at in columns:
        _find_channel(path, table.header, table.header[at])
    left_out = [table.header[at] for at in text if table.header[at]]
    return columns, (f"columns of text were left out: {', '.join(left_out)}",) if left_out else ()


def _find_channel(path: Path, header: Sequence[str], name: str) -> int:
    if not name:
        raise DataError(f"{path}: column {header.index(name) + 1} has no name in the header: give it one")
    return find_channels(header, [name], str(path))[0]


def _check_numbers(path: Path, table: _Table, at: int) -> None:
    """Raises DataError, naming the first cell that is none, unless a column holds numbers."""
    column = table.frame.iloc[:, at]
    if _is_numeric(column):
        return
    bad = np.flatnonzero(column.notna().to_numpy() & table.to_numbers(at).isna().to_numpy())
    where = f"{path} {table.name_line(int(bad[0]))}" if len(bad) else f"{path}"
    came = repr(str(column.iloc[int(bad[0])])) if len(bad) else str(column.dtype)
    raise DataError(f"{where}: channel {table.header[at]!r} should hold numbers, came {came}")


def _is_numeric(column: pd.Series[Any]) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return bool(is_numeric_dtype(column) and not is_bool_dtype(column))


# --- files ------------------------------------------------------------------------------------------------------------


def _read_table(path: Path) -> _Table:
    if not path.is_file():
        raise DataError(f"{path}: this file is missing: check the path")
    if (size := path.stat().st_size) > MAX_SIGNAL_BYTES:
        raise DataError(
            f"{path}: {format_bytes(size)} are more than the {format_bytes(MAX_SIGNAL_BYTES)} that are read: split it"
        )
    parquet = path.suffix.lower() == ".parquet"
    refuse_foreign_file(path, (PARQUET,) if parquet else ())
    try:
        return _read_parquet_table(path) if parquet else _read_csv_table(path)
    except DataError:
        raise
    except Exception as error:  # pandas and pyarrow raise of every kind on a damaged table
        raise DataError(f"{path}: it cannot be read as a table ({cut_message(error)})") from error


def _read_parquet_table(path: Path) -> _Table:
    import pandas as pd
    import pyarrow.parquet as pq

    known = pq.read_metadata(path)
    if known.num_rows * known.num_columns > MAX_VALUES:
        size = f"{known.num_rows} lines of {known.num_columns} columns"
        raise DataError(f"{path}: {size} are more than the {MAX_VALUES} numbers that are read: split it")
    frame = pd.read_parquet(path, page_checksum_verification=True)  # where the file has checksums
    name = _name_index(frame.index)
    if name and not frame.index.name:
        _check_index(path, frame.index)
    frame = frame.reset_index(names=name) if name and name not in frame.columns else frame
    return _Table(tuple(str(column).strip() for column in frame.columns), frame, 1)


def _name_index(index: pd.Index[Any]) -> str:
    """What pandas' index is called as a column of times or of a count of samples; "" for one that says nothing of time."""
    import pandas as pd

    name = str(index.name or "")
    if isinstance(index, pd.MultiIndex) or (isinstance(index, pd.RangeIndex) and not name):
        return ""
    if isinstance(index, (pd.DatetimeIndex, pd.TimedeltaIndex)):
        return "time"
    if name:
        return name if column_kind(name) in ("time", "counter") else ""
    counts = index.dtype.kind in "iuf" and len(index) > 1 and float(np.median(np.diff(index.to_numpy(np.float64)))) == 1
    return "index" if counts else "time" if index.dtype.kind == "f" else ""


def _check_index(path: Path, index: pd.Index[Any]) -> None:
    """Raises DataError where an index without a name goes back, as where frames were joined: it is no column to look for."""
    back = np.flatnonzero(np.asarray(index[1:] < index[:-1]))
    if len(back):
        row = int(back[0])
        raise DataError(
            f"{path} line {row + 2}: the index of its data frame goes back from {index[row]} to {index[row + 1]}, as where "
            "frames were joined: split the file where a new recording begins, or write it with index=False if its lines go on"
        )


def _read_csv_table(path: Path) -> _Table:
    import pandas as pd

    head, encoding = read_text_head(path)
    if "\0" in head:
        raise ValueError("it holds bytes that are no text")
    known = sniff_delimited_text(head)
    first = next(iter(head.split("\n", known.first_data_line)[known.first_data_line - 1 :]), "")  # below the header
    units = _read_units(first, known)
    _check_header(path, known, first)
    _check_widths(path, known, encoding)
    frame = pd.read_csv(
        path,
        sep=known.separator,
        decimal=known.decimal,
        encoding=encoding,
        header=None,
        skiprows=known.lines_before_header + 1 + bool(units),
        names=range(len(known.header)),
        index_col=False,
        skip_blank_lines=False,  # a blank line of a single column is a missing sample
        skipinitialspace=True,
        na_values=list(MISSING_CELLS),
        low_memory=False,
    )
    return _Table(strip_cell_quotes(known.header), frame, known.first_data_line + bool(units), known.decimal, units)


def _read_units(first: str, known: DelimitedFormat) -> tuple[str, ...]:
    """The units in the line below the header; nothing where that is a line of samples."""
    cells = next(csv.reader([first], delimiter=known.separator, skipinitialspace=True), [])
    return (parse_unit_line(cells) or ()) if len(cells) == len(known.header) else ()


def _check_header(path: Path, known: DelimitedFormat, first: str) -> None:
    """Raises DataError for a header that is a line of samples, and for cells that are separated by spaces."""
    if len(known.header) == 1 and len(first.split()) > 1 and all(_NUMBER.fullmatch(cell) for cell in first.split()):
        raise DataError(
            f"{path} line {known.first_data_line}: its cells are separated by spaces ({' '.join(first.split()[:3])}), expected "
            "commas, semicolons, tabs or bars: replace the spaces (rdsamp writes commas with -c)"
        )
    filled = [cell for cell in known.header if cell]
    if filled and all(_NUMBER.fullmatch(cell) or _CLOCK_OR_DATE.fullmatch(cell) for cell in filled):
        line = known.lines_before_header + 1
        raise DataError(
            f"{path} line {line}: expected the names of the channels in the first line, came numbers ({', '.join(filled[:3])}): "
            "add a header such as time,ECG"
        )


def _check_widths(path: Path, known: DelimitedFormat, encoding: str) -> None:
    """Raises DataError for the first line that has more or fewer cells than the header; pandas would shift or fill its cells."""
    width = len(known.header)
    with path.open(encoding=encoding, newline=None) as file:
        for number, line in enumerate(file, start=1):
            if number <= known.lines_before_header + 1 or line.count(known.separator) == width - 1 or not line.strip():
                continue
            cells = len(next(csv.reader([line], delimiter=known.separator))) if '"' in line else line.count(known.separator) + 1
            if cells != width:
                hint = (
                    " (numbers with a decimal comma need another separator)" if known.separator == "," and cells > width else ""
                )
                names = ", ".join(known.header[:5])
                raise DataError(f"{path} line {number}: expected {width} cells as in the header ({names}), came {cells}{hint}")
