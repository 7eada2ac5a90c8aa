"""A CSV or Parquet manifest (path, label, and where known id, group, site, split) → Dataset.

Everything is read as text: a label 01 stays 01, and a class called NA or None stays a class. Paths are relative to the
manifest's own folder. Errors name the line.
"""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem, did_you_mean, join_words
from phoropter.data.dataset import Dataset, encode_labels
from phoropter.data.sources.folder import normalize_unicode, parse_split_name
from phoropter.data.sources.storage import FilePictures

KNOWN_COLUMNS = ("path", "label", "id", "group", "site", "split")
REQUIRED_COLUMNS = ("path", "label")
MAX_ROWS = 20_000_000

TextRow = dict[str, str]


def open_manifest(
    path: Path, *, columns: Mapping[str, str] | None = None, on_bad_input: str = "stop", name: str | None = None
) -> Dataset:
    """A manifest → Dataset; ids are the paths as written, or the column `id`.

    columns: our name → the file's name, for those that differ
    Raises DataError for a missing column, a repeated id, an unknown split, or pictures that are not there (listed with "skip").
    """
    place = path.name
    rows, lines = _read_manifest(path, dict(columns or {}))
    kept, gone = _split_by_existence(path, rows)
    if gone and on_bad_input == "stop":
        more = f" (and {len(gone) - 1} more)" if len(gone) > 1 else ""
        line = lines[gone[0]]
        raise DataError(
            f"{place}, line {line}: {rows[gone[0]]['path'] or 'an empty path'} does not exist in {path.parent}{more}; "
            "correct the manifest, or say on_bad_input: skip"
        )
    problems = tuple(
        InputProblem(f"{place}, line {lines[i]}", f"{rows[i]['path'] or 'an empty path'} does not exist") for i in gone
    )
    rows, lines = [rows[i] for i in kept], [lines[i] for i in kept]
    ids = [normalize_unicode(row.get("id") or posixpath.normpath(row["path"])) for row in rows]
    _check_unique_ids(place, ids, lines)
    labels, classes = encode_labels([normalize_unicode(row["label"]) or None for row in rows])
    return Dataset(
        name=name or path.stem,
        ids=np.array(ids, dtype=np.str_),
        labels=labels,
        classes=classes,
        pictures=FilePictures(path.parent, [row["path"] for row in rows]),
        groups=_extract_column(place, rows, lines, "group"),
        sites=_extract_column(place, rows, lines, "site"),
        parts=_parse_splits(place, rows, lines),
        problems=problems,
    )


def _read_manifest(path: Path, columns: dict[str, str]) -> tuple[list[TextRow], list[int]]:
    """Rows by our column names, and the line each stood on."""
    if not path.is_file():
        raise DataError(f"{path}: there is no such manifest; a CSV or Parquet file with the columns path and label is expected")
    reader = _read_parquet if path.suffix.lower() in (".parquet", ".pq") else _read_csv
    header, body = reader(path)
    theirs = _resolve_columns(path.name, header, columns)
    rows: list[TextRow] = []
    lines: list[int] = []
    for line, values in body:
        if len(rows) >= MAX_ROWS:
            raise DataError(f"{path.name}: more than {MAX_ROWS:,} rows")
        row = {ours: values[at].strip() for ours, at in theirs.items()}
        rows.append(row | {"path": row["path"].replace("\\", "/")})  # written on Windows, read anywhere
        lines.append(line)
    return rows, lines


def _read_csv(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max(",;\t", key=first.count))
            header = [word.strip() for word in next(reader, [])]
            body = []
            for values in reader:
                if not any(values):
                    continue
                if len(values) != len(header):
                    raise DataError(
                        f"{path.name}, line {reader.line_num}: {len(values)} values came, expected one for each of "
                        f"the {len(header)} columns ({', '.join(header)}); put quotes around a value that holds the separator"
                    )
                body.append((reader.line_num, values))
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise DataError(f"{path.name} is not readable as CSV: {error}") from None
    return header, body


def _read_parquet(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path.name} is not readable as Parquet: {error}") from None
    simple = [field.name for field in table.schema if not pa.types.is_nested(field.type) and not pa.types.is_binary(field.type)]
    texts = [["" if value is None else _format_cell(value) for value in table[column].to_pylist()] for column in simple]
    return simple, [(row, list(values)) for row, values in enumerate(zip(*texts, strict=True), start=1)]


def _format_cell(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _resolve_columns(place: str, header: list[str], columns: dict[str, str]) -> dict[str, int]:
    """Our column name → position in the file. Raises DataError for one that is required or asked for and not there."""
    lower = {word.lower(): at for at, word in enumerate(header)}
    found = {ours: lower[ours] for ours in KNOWN_COLUMNS if ours in lower and ours not in columns}
    for ours, theirs in columns.items():
        if theirs not in header:
            raise DataError(
                f"{place} has no column '{theirs}' (columns.{ours}){did_you_mean(theirs, header)}; it has {join_words(header)}"
            )
        found[ours] = header.index(theirs)
    for ours in REQUIRED_COLUMNS:
        if ours not in found:
            raise DataError(
                f"{place} has no column '{ours}'{did_you_mean(ours, header)}; it has {join_words(header)}; "
                f"name the right one with columns: {{{ours}: NAME}}"
            )
    return found


def _split_by_existence(path: Path, rows: list[TextRow]) -> tuple[list[int], list[int]]:
    kept: list[int] = []
    gone: list[int] = []
    for at, row in enumerate(rows):
        there = bool(row["path"]) and "\0" not in row["path"] and (path.parent / row["path"]).is_file()
        (kept if there else gone).append(at)
    return kept, gone


def _check_unique_ids(place: str, ids: Iterable[str], lines: list[int]) -> None:
    first: dict[str, int] = {}
    for name, line in zip(ids, lines, strict=True):
        if name in first:
            raise DataError(
                f"{place}, line {line}: '{name}' came already on line {first[name]}; remove one, or give each row its own id"
            )
        first[name] = line


def _extract_column(place: str, rows: list[TextRow], lines: list[int], column: str) -> NDArray[np.str_] | None:
    """A column that is all there or all empty: half a group column would put strangers into one group."""
    values = [normalize_unicode(row.get(column, "")) for row in rows]
    if not any(values):
        return None
    if "" in values:
        raise DataError(
            f"{place}, line {lines[values.index('')]}: the {column} is empty here and given elsewhere; "
            f"give every row a {column} (a unique one where it is alone)"
        )
    return np.array(values, dtype=np.str_)


def _parse_splits(place: str, rows: list[TextRow], lines: list[int]) -> NDArray[np.str_] | None:
    words = [row.get("split", "") for row in rows]
    if not any(words):
        return None
    parts = [parse_split_name(word) if word else "" for word in words]
    if None in parts:
        at = parts.index(None)
        raise DataError(f"{place}, line {lines[at]}: the split is '{words[at]}'; expected train, val or test")
    return np.array(parts, dtype=np.str_)
