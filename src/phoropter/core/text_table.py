"""Tables as text: a CSV in any usual dialect, a Parquet file or a DataFrame → its column names and its rows of text cells.

A CSV may be written in any way that core/delimited tells apart, in UTF-8 or UTF-16. Nothing is guessed about a cell: 01 stays 01,
and a name such as NA stays a name.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.columns import clean_cell, clean_name
from phoropter.core.delimited import read_text_head, sniff_delimited_text
from phoropter.core.errors import DataError, cut_message
from phoropter.core.files import format_bytes
from phoropter.core.storage.foreign_files import PARQUET, refuse_foreign_file

MAX_TABLE_BYTES = 2 * 1024**3
PARQUET_ENDINGS = (".parquet", ".pq")
_OTHER_ENDINGS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers", ".feather", ".arrow", ".dta", ".sav", ".sas7bdat")


@dataclass(frozen=True)
class TextTable:
    """A table whose rows are read once, in order.

    place:  its name in messages · unit: what its rows are called
    header: cleaned column names
    rows:   (number of the row as a person counts it, one text for each column)
    decimal_comma: whether numbers may be written 0,5
    """

    place: str
    header: list[str]
    rows: Iterable[tuple[int, list[str]]]
    unit: str = "line"
    decimal_comma: bool = False


def read_text_table(path: Path, max_bytes: int = MAX_TABLE_BYTES) -> TextTable:
    """A CSV or Parquet file → TextTable. Raises DataError for a file that is missing, too large, damaged, in another encoding or
    called as a workbook, and, while its rows are read, for a line with more or fewer values than columns."""
    if not path.is_file():
        raise DataError(f"{path}: this file is missing: check the path")
    if (size := path.stat().st_size) > max_bytes:
        raise DataError(f"{path}: {format_bytes(size)} are more than the {format_bytes(max_bytes)} that are read: split it")
    parquet = path.suffix.lower() in PARQUET_ENDINGS
    refuse_foreign_file(path, (PARQUET,) if parquet else ())
    if path.suffix.lower() in _OTHER_ENDINGS:  # damaged, or text under a wrong name, of which lines might be read as a table
        raise DataError(
            f"{path} is no table that is read here; save it as CSV in UTF-8, with the ending .csv, and name that file"
        )
    if parquet:
        return _read_parquet(path)
    layout = _detect_layout(path)
    return TextTable(path.name, layout.header, _read_csv_rows(path, layout), decimal_comma=layout.decimal == ",")


def table_of_frame(frame: Any, place: str) -> TextTable:
    """A pandas DataFrame → TextTable; rows are counted from 0."""
    rows = ((number, [clean_cell(v) for v in values]) for number, values in enumerate(frame.itertuples(index=False, name=None)))
    return TextTable(place, [clean_name(str(column)) for column in frame.columns], rows, unit="row")


def peek_table(path: Path) -> tuple[list[str], list[str]]:
    """Cleaned column names and the first row of a CSV, or the column names of a Parquet file; nothing where it is no table."""
    try:
        if path.suffix.lower() in PARQUET_ENDINGS:
            return read_parquet_header(path), []
        layout = _detect_layout(path)
        return layout.header, next(_read_csv_rows(path, layout), (0, []))[1]
    except DataError:
        return [], []


# --- CSV ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _CsvLayout:
    """How a CSV is written. skipped: lines before the header · header: cleaned column names"""

    encoding: str
    separator: str
    decimal: str
    skipped: int
    header: list[str]


def _detect_layout(path: Path) -> _CsvLayout:
    """Encoding, separator and header of a CSV; no column where it is empty.

    Raises DataError for another encoding than UTF-8 and UTF-16: names would be read wrong.
    """
    try:
        text, encoding = read_text_head(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    if encoding == "cp1252":
        raise DataError(f"{path.name} is not UTF-8 text; save it as CSV in UTF-8")
    try:
        found = sniff_delimited_text(text)
    except ValueError:
        return _CsvLayout(encoding, ",", ".", 0, [])
    header = list(found.header)
    while header and not header[-1]:  # Excel ends lines with separators
        header.pop()
    return _CsvLayout(encoding, found.separator, found.decimal, found.lines_before_header, header)


def _read_csv_rows(path: Path, layout: _CsvLayout) -> Iterator[tuple[int, list[str]]]:
    width = len(layout.header)
    try:
        with path.open(encoding=layout.encoding, newline="") as file:
            for _ in range(layout.skipped):
                file.readline()
            reader = csv.reader(file, delimiter=layout.separator, skipinitialspace=True)
            next(reader, None)
            for values in reader:
                while len(values) > width and not values[-1].strip():  # Excel ends lines with separators
                    values.pop()
                if not any(value.strip() for value in values):
                    continue
                line = reader.line_num + layout.skipped
                if len(values) != width:
                    raise DataError(
                        f"{path.name}, line {line}: {len(values)} values came, expected one for each of the {width} columns "
                        f"({', '.join(layout.header)}); put quotes around a value that holds the separator"
                    )
                _check_closed_quotes(path, layout, values, line)
                yield line, values
    except UnicodeError:
        raise DataError(f"{path.name} is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path.name} is not readable as CSV: {error}") from None


def _check_closed_quotes(path: Path, layout: _CsvLayout, values: list[str], line: int) -> None:
    """Raises DataError for a cell that has swallowed the lines below it, because a quote in it is not closed."""
    for value in values:
        swallowed = value.splitlines()[1:]
        if any(text.count(layout.separator) == len(layout.header) - 1 for text in swallowed) and len(layout.header) > 1:
            raise DataError(
                f"{path.name}, line {line - len(swallowed)}: a quote that begins here is closed {len(swallowed)} lines below, "
                "and these look like rows of their own; remove it, or close it in its line"
            )


# --- Parquet -----------------------------------------------------------------------------------------------------------------


@contextmanager
def report_parquet_damage(name: str) -> Iterator[None]:
    """Errors of pyarrow in its body → DataError in one line. name: of the file"""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{name} is damaged or no Parquet file ({cut_message(error)})") from None


def read_parquet_header(path: Path) -> list[str]:
    """Cleaned column names of a Parquet file. Raises DataError for a damaged one."""
    from pyarrow import parquet

    with report_parquet_damage(path.name):
        return [clean_name(name) for name in parquet.read_schema(path).names]


def _read_parquet(path: Path) -> TextTable:
    """Columns of simple types; nested and binary ones hold no names."""
    import pyarrow as pa
    from pyarrow import parquet

    with report_parquet_damage(path.name), parquet.ParquetFile(path, page_checksum_verification=True) as file:
        simple = [f.name for f in file.schema_arrow if not pa.types.is_nested(f.type) and not pa.types.is_binary(f.type)]
        table = file.read(columns=simple)
        texts = [[clean_cell(value) for value in column.to_pylist()] for column in table.columns]
    header = [clean_name(name) for name in table.column_names]
    return TextTable(path.name, header, list(enumerate(map(list, zip(*texts, strict=True)), start=1)))
