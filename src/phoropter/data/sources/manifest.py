"""A CSV or Parquet manifest (path, label, and where known id, group, site, split) → Dataset.

Everything is read as text: a label 01 stays 01, and a class called NA or None stays a class. Paths are relative to the folder of
the manifest. Errors name the line. A DataFrame is read in the same way.
"""

from __future__ import annotations

import csv
import math
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem, did_you_mean, join_words
from phoropter.data.dataset import Dataset, encode_labels
from phoropter.data.source import COLUMNS_OPTION, PathContents, Source, check_column_names
from phoropter.data.sources.folder import normalize_unicode, parse_split_name
from phoropter.data.sources.storage import FilePictures

MANIFEST_COLUMNS = ("path", "label", "id", "group", "site", "split")
REQUIRED_COLUMNS = ("path", "label")
MAX_ROWS = 20_000_000

TextRow = dict[str, str]


def open_manifest(
    path: Path, *, columns: Mapping[str, str] | None = None, on_bad_input: str = "stop", name: str | None = None
) -> Dataset:
    """A manifest → Dataset; ids are the paths as written, or the column `id`.

    columns: our name → the file's name, where they differ
    Raises DataError for a missing column, a repeated id, an unknown split, or a missing picture (listed with "skip").
    """
    rows = _read_manifest(path, dict(columns or {}))
    return _build_dataset(rows, path.parent, on_bad_input, name or path.stem)


def from_dataframe(
    frame: Any,
    folder: Path | str = ".",
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_input: str = "stop",
    name: str = "dataframe",
) -> Dataset:
    """A pandas DataFrame with the columns path and label, and where known id, group, site and split → Dataset.

    folder:  where relative paths start
    columns: our name → the frame's name, where they differ
    Raises DataError as `open_manifest` does; rows are counted from 0.

    >>> from_dataframe(pd.read_excel("cells.xlsx"), "~/cells", columns={"label": "diagnosis"})      # doctest: +SKIP
    """
    header = [str(column) for column in frame.columns]
    body = enumerate([_format_cell(value) for value in values] for values in frame.itertuples(index=False))
    rows = _select_columns(_ManifestRows(name, "row"), header, body, dict(columns or {}))
    return _build_dataset(rows, Path(folder).expanduser().absolute(), on_bad_input, name)


@dataclass(frozen=True)
class _ManifestRows:
    """Rows by our column names. place: of the table · unit: what its rows are called · numbers: where each row stood"""

    place: str
    unit: str = "line"
    rows: list[TextRow] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def locate(self, row: int) -> str:
        """`cells.csv, line 7`."""
        return f"{self.place}, {self.unit} {self.numbers[row]}"

    def select(self, rows: list[int]) -> _ManifestRows:
        """Only these rows."""
        return replace(self, rows=[self.rows[i] for i in rows], numbers=[self.numbers[i] for i in rows])


def _build_dataset(rows: _ManifestRows, folder: Path, on_bad_input: str, name: str) -> Dataset:
    kept, missing = _split_by_existence(folder, rows.rows)
    problems = [InputProblem(rows.locate(i), f"{rows.rows[i]['path'] or 'an empty path'} does not exist") for i in missing]
    if problems and on_bad_input == "stop":
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{problems[0]} in {folder}{more}; correct it, or set on_bad_input: skip")
    rows = rows.select(kept)
    ids = [normalize_unicode(row.get("id") or posixpath.normpath(row["path"])) for row in rows.rows]
    _check_unique_ids(rows, ids)
    labels, classes = encode_labels([normalize_unicode(row["label"]) or None for row in rows.rows])
    return Dataset(
        name=name,
        ids=np.array(ids, dtype=np.str_),
        labels=labels,
        classes=classes,
        pictures=FilePictures(folder, [row["path"] for row in rows.rows]),
        groups=_extract_column(rows, "group"),
        sites=_extract_column(rows, "site"),
        parts=_parse_splits(rows),
        problems=tuple(problems),
    )


def _read_manifest(path: Path, columns: dict[str, str]) -> _ManifestRows:
    if not path.is_file():
        raise DataError(f"{path}: there is no such manifest; a CSV or Parquet file with the columns path and label is expected")
    reader = _read_parquet if path.suffix.lower() in (".parquet", ".pq") else _read_csv
    header, body = reader(path)
    return _select_columns(_ManifestRows(path.name), header, body, columns)


def _select_columns(
    table: _ManifestRows, header: list[str], body: Iterable[tuple[int, list[str]]], columns: dict[str, str]
) -> _ManifestRows:
    """Fills an empty table with rows by our column names."""
    theirs = _resolve_columns(table.place, header, columns)
    for number, values in body:
        if len(table.rows) >= MAX_ROWS:
            raise DataError(f"{table.place}: more than {MAX_ROWS:,} rows")
        row = {ours: values[at].strip() for ours, at in theirs.items()}
        table.rows.append(row | {"path": row["path"].replace("\\", "/")})  # written on Windows, read anywhere
        table.numbers.append(number)
    return table


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
    texts = [[_format_cell(value) for value in table[column].to_pylist()] for column in simple]
    return simple, [(row, list(values)) for row, values in enumerate(zip(*texts, strict=True), start=1)]


def _format_cell(value: Any) -> str:
    """A cell as a CSV file would hold it: nothing for None, NaN and pandas' NA, no `.0` after a whole number."""
    if value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value)):
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _resolve_columns(place: str, header: list[str], columns: dict[str, str]) -> dict[str, int]:
    """Our column name → position in the file. Raises DataError for a missing column that is required or named in `columns`."""
    lower = {word.lower(): at for at, word in enumerate(header)}
    found = {ours: lower[ours] for ours in MANIFEST_COLUMNS if ours in lower and ours not in columns}
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


def _split_by_existence(folder: Path, rows: list[TextRow]) -> tuple[list[int], list[int]]:
    """(rows whose picture exists, the others)."""
    exists = [bool(row["path"]) and "\0" not in row["path"] and (folder / row["path"]).is_file() for row in rows]
    return [i for i, kept in enumerate(exists) if kept], [i for i, kept in enumerate(exists) if not kept]


def _check_unique_ids(rows: _ManifestRows, ids: list[str]) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in first:
            raise DataError(
                f"{rows.locate(row)}: '{name}' came already on {rows.unit} {rows.numbers[first[name]]}; remove one, or give each "
                "row its own id"
            )
        first[name] = row


def _extract_column(rows: _ManifestRows, column: str) -> NDArray[np.str_] | None:
    """A column, None where it is empty. Raises DataError for one that is given in part: rows without a group would make one."""
    values = [normalize_unicode(row.get(column, "")) for row in rows.rows]
    if not any(values):
        return None
    if "" in values:
        raise DataError(
            f"{rows.locate(values.index(''))}: the {column} is empty here and given elsewhere; give every row a {column} "
            "(one of its own where it stands alone)"
        )
    return np.array(values, dtype=np.str_)


def _parse_splits(rows: _ManifestRows) -> NDArray[np.str_] | None:
    words = [row.get("split", "") for row in rows.rows]
    if not any(words):
        return None
    parts = [parse_split_name(word) if word else "" for word in words]
    if None in parts:
        at = parts.index(None)
        raise DataError(f"{rows.locate(at)}: the split is '{words[at]}'; expected train, val or test")
    return np.array(parts, dtype=np.str_)


def _is_parquet_manifest(contents: PathContents) -> bool:
    if not contents.is_file_like(".parquet", ".pq"):
        return False
    import pyarrow as pa
    from pyarrow import parquet

    try:
        names = {name.lower() for name in parquet.read_schema(contents.path).names}
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{contents.path} is damaged or no Parquet file ({error})") from None
    return "path" in names and "image" not in names


MANIFEST_SOURCE = Source(
    "manifest",
    lambda request: open_manifest(
        request.path, columns=request.option("columns"), on_bad_input=request.on_bad_input, name=request.name
    ),
    "a CSV or Parquet file with the columns path and label, and where known id, group, site and split",
    options=(COLUMNS_OPTION,),
    typed_by_hand=True,
    check=check_column_names(MANIFEST_COLUMNS),
    detect=lambda contents: contents.is_file_like(".csv", ".tsv") or _is_parquet_manifest(contents),
)
