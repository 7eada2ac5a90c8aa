"""Recordings in tables: a manifest that lists files, and the CSV, Parquet, WFDB or EDF files it lists.

The manifest is a CSV or Parquet file with one row a recording and these columns; only `path` is required.

    path         the recording's file, relative to the manifest: .csv, .parquet, .hea, .edf or .bdf
    rate_hz      samples a second; required for .csv and .parquet, checked against the header of .hea, .edf and .bdf
    label        the recording's class, or
    spans        a CSV with columns start_s, stop_s, label (or start, stop in samples): the labelled parts
    id           default: the path without its ending
    subject      default: the id
    site         hospital or device
    channels     names of the columns to use, separated by spaces or `;`; default: all number columns but a time column
    unit         of all channels
    outcome.KEY  numbers or text kept with the recording, such as outcome.pH, outcome.Apgar1
    about.KEY    numbers or text about its subject, such as about.sex, about.age: what `data: {subgroups: [sex, age]}` reads

An empty cell is a missing value; a subject or a site is given in every row or in none, and so is a label or spans where classes
are made of them. In a recording's own table an empty cell is a missing sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from phoropter.core.columns import (
    check_filled,
    clean_cell,
    clean_path,
    describe_case_collisions,
    find_columns,
    parse_number,
)
from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.listed_files import ListedFiles
from phoropter.core.text_table import peek_table, read_text_table
from phoropter.signals.readers.edf import read_edf
from phoropter.signals.readers.physionet import read_wfdb
from phoropter.signals.readers.signal_tables import read_signal_table
from phoropter.signals.recording import LoadedRecordings, OnBadInput, Recording, Span, read_recordings

MAX_MANIFEST_BYTES = 256 * 1024**2

_MANIFEST_COLUMNS = ("path", "rate_hz", "label", "spans", "id", "subject", "site", "channels", "unit")
_FACT_PREFIXES = ("outcome.", "about.")
RECORDING_ENDINGS = (".hea", ".edf", ".bdf")  # of files that are recordings whatever is in them; a table may be anything


@dataclass(frozen=True)
class ManifestRow:
    """One line of a manifest; cells are cleaned text, None where empty, but of `path` and `spans`, which are as written."""

    line: str  # "manifest.csv line 3"
    files: ListedFiles
    cells: Mapping[str, str | None]
    decimal_comma: bool = False

    def __str__(self) -> str:
        return self.line

    def find_file(self, column: str) -> Path:
        """The file that a cell names. Raises DataError where there is none, and one whose name differs in case."""
        written = self.cells[column] or ""
        if self.files.find_name(written) is None and (near := self.files.suggest_name(written)):
            raise DataError(f"{self.line}: {clean_path(written)} does not exist{near}")
        return self.files.find_path(written)

    def parse_rate_hz(self, required: bool) -> float | None:
        """The rate in Hz. Raises DataError where it is required and missing, or not a number above zero."""
        text = self.cells.get("rate_hz")
        if text is None and not required:
            return None
        value = parse_number(text or "", self.decimal_comma)
        if not isinstance(value, float) or not math.isfinite(value) or value <= 0:
            raise DataError(f"{self.line}: rate_hz should be a number of Hz above zero, came {text or 'an empty cell'}")
        return value

    def parse_channels(self) -> list[str] | None:
        """Channel names separated by `;`, or by spaces where there is no `;`: one name with spaces ends with it."""
        text = self.cells.get("channels")
        if text is None:
            return None
        names = [name.strip() for name in text.split(";")] if ";" in text else text.split()
        return [name for name in names if name] or None

    def parse_facts(self, prefix: str) -> dict[str, float | str | None]:
        """The cells of the columns `prefix.KEY` by KEY, as numbers where they are numbers."""
        cells = {key.removeprefix(f"{prefix}."): text for key, text in self.cells.items() if key.startswith(f"{prefix}.")}
        values = {key: None if text is None else parse_number(text, self.decimal_comma) for key, text in cells.items()}
        return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def read_manifest(
    path: Path, on_bad_input: OnBadInput = "stop", *, readers: Mapping[str, RowReader] | None = None
) -> LoadedRecordings:
    """Reads the recordings a manifest lists. `readers` (ending → reader) stand for those of this module.

    Raises DataError for a manifest with unknown columns, without rows, or with a subject or site in some rows only, whatever
    `on_bad_input` is. Labels in some rows only are told by `missing_labels`: whether they matter, the reader's user knows.
    """
    table = read_text_table(path, MAX_MANIFEST_BYTES)
    columns = _identify_columns(path, table.header)
    files = ListedFiles(path.parent)
    rows = [
        ManifestRow(f"{path} line {line}", files, _clean_cells(columns, values), table.decimal_comma)
        for line, values in table.rows
    ]
    if not rows:
        raise DataError(f"{path}: it lists no recording")
    for column in ("subject", "site"):
        check_filled([row.cells.get(column) or "" for row in rows], column, lambda at: rows[at].line)
    loaded = read_recordings(rows, lambda row: read_manifest_row(row, readers or ROW_READERS), on_bad_input)
    return replace(loaded, notes=(*loaded.notes, *_describe_rows(rows)), missing_labels=_describe_missing_labels(rows))


def _identify_columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Our name of each column → its position; columns without a name are left out. Raises DataError for unknown ones."""
    known = [_clean_column_name(name) for name in header]
    columns = find_columns(str(path), header, [name for name in known if name])
    if "path" not in columns:
        raise DataError(f"{path}: a manifest needs a column path, there are {join_words(header)}")
    for column, name in zip(known, header, strict=True):
        if name and column not in _MANIFEST_COLUMNS and not column.startswith(_FACT_PREFIXES):
            expected = f"{join_words(_MANIFEST_COLUMNS)}, outcome.KEY or about.KEY{did_you_mean(column, _MANIFEST_COLUMNS)}"
            raise DataError(f"{path}: column {name!r} is unknown; expected {expected}")
    return columns


def _clean_column_name(name: str) -> str:
    """In small letters, but for the KEY of a fact."""
    prefix = next((p for p in _FACT_PREFIXES if name.casefold().startswith(p)), None)
    return name.casefold() if prefix is None else prefix + name[len(prefix) :]


def _clean_cells(columns: Mapping[str, int], values: Sequence[str]) -> dict[str, str | None]:
    cells = {name: values[at] if name in ("path", "spans") else clean_cell(values[at]) for name, at in columns.items()}
    return {name: text if text.strip() else None for name, text in cells.items()}


def _find_unlabelled(rows: Sequence[ManifestRow]) -> list[ManifestRow]:
    """Rows with neither a label nor spans, where others have one."""
    found = [row for row in rows if row.cells.get("label") is None and row.cells.get("spans") is None]
    return found if len(found) < len(rows) else []


def _describe_missing_labels(rows: Sequence[ManifestRow]) -> str:
    if not (unlabelled := _find_unlabelled(rows)):
        return ""
    count = f"{len(unlabelled):,} of {len(rows):,} recordings have none"
    return f"{unlabelled[0].line}: the label is empty here and given elsewhere ({count})"


def _describe_rows(rows: Sequence[ManifestRow]) -> tuple[str, ...]:
    """Notes on rows without a label where others have one, and on names that differ in case only."""
    unlabelled = len(_find_unlabelled(rows))
    return (
        *((f"{unlabelled:,} of {len(rows):,} recordings have no label",) if unlabelled else ()),
        *describe_case_collisions([row.cells.get("label") or "" for row in rows], "labels"),
        *describe_case_collisions([row.cells.get("subject") or "" for row in rows], "subjects"),
        *describe_case_collisions([row.cells.get("site") or "" for row in rows], "sites"),
    )


def is_manifest(path: Path) -> bool:
    """Whether a table is a manifest: it has a column `path`. A file that cannot be read is not one."""
    return "path" in (name.casefold() for name in peek_table(path)[0])


def read_manifest_row(row: ManifestRow, readers: Mapping[str, RowReader]) -> Recording:
    """The recording of one manifest line, read by the reader of its file's ending."""
    written, label, spans = row.cells["path"], row.cells.get("label"), row.cells.get("spans")
    if written is None:
        raise DataError(f"{row.line}: the path is empty")
    if label is not None and spans is not None:
        raise DataError(f"{row.line}: it has both a label and a spans file: keep one")
    name = Path(clean_path(written))
    if name.suffix.lower() not in readers:
        raise DataError(f"{row.line}: {name} should end in {join_words(readers)}")
    recording = readers[name.suffix.lower()](row.find_file("path"), row)
    ident = row.cells.get("id") or str(name.with_suffix(""))
    return replace(
        recording,
        id=ident,
        subject=row.cells.get("subject") or ident,
        site=row.cells.get("site") or "",
        label=label,
        spans=() if spans is None else read_spans(row.find_file("spans"), recording.rate_hz),
        outcome=row.parse_facts("outcome"),
        about={**recording.about, **row.parse_facts("about")},
    )


def read_spans(path: Path, rate_hz: float) -> tuple[Span, ...]:
    """A CSV of labelled intervals → spans in samples, in order of time."""
    table = read_text_table(path, MAX_MANIFEST_BYTES)
    columns = find_columns(str(path), table.header, ("start_s", "stop_s", "start", "stop", "label"))
    in_seconds = {"start_s", "stop_s"} <= set(columns)
    names = ("start_s", "stop_s", "label") if in_seconds else ("start", "stop", "label")
    if missing := [name for name in names if name not in columns]:
        there = join_words(table.header)
        raise DataError(f"{path}: column {missing[0]!r} is missing; expected start_s, stop_s and label, there are {there}")
    spans = []
    for line, values in table.rows:
        first, last, label = (clean_cell(values[columns[name]]) or None for name in names)
        start, stop = (parse_number(text or "", table.decimal_comma) for text in (first, last))
        if not isinstance(start, float) or not isinstance(stop, float) or not math.isfinite(start + stop) or label is None:
            raise DataError(f"{path} line {line}: expected two times and a label, came {first}, {last}, {label}")
        scale = rate_hz if in_seconds else 1.0
        spans.append(Span(round(start * scale), round(stop * scale), label))
    return tuple(sorted(spans))


def _read_table_row(file: Path, row: ManifestRow) -> Recording:
    return read_signal_table(file, row.parse_rate_hz(required=True) or 0.0, row.parse_channels(), row.cells.get("unit") or "")


def _read_edf_row(file: Path, row: ManifestRow) -> Recording:
    recording, expected = read_edf(file, row.parse_channels()), row.parse_rate_hz(required=False)
    if expected is not None and expected != recording.rate_hz:
        raise DataError(f"{row.line}: rate_hz is {expected:g}, the header of {file.name} says {recording.rate_hz:g} Hz")
    return recording


RowReader = Callable[[Path, ManifestRow], Recording]
ROW_READERS: dict[str, RowReader] = {
    ".csv": _read_table_row,
    ".parquet": _read_table_row,
    ".hea": lambda file, row: read_wfdb(file, row.parse_channels(), row.parse_rate_hz(required=False)),
    ".edf": _read_edf_row,
    ".bdf": _read_edf_row,
}
