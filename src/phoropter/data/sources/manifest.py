"""A CSV or Parquet manifest (path, label, and where known id, group, site, split) → Dataset.

Everything is read as text (core/text_table, core/columns): a label 01 stays 01, and a class called NA or None stays a class.
Paths are relative to the folder of the manifest. Errors name the line. A DataFrame is read in the same way.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import (
    check_filled,
    clean_cell,
    clean_path,
    describe_unread_groups,
    describe_unread_parts,
    find_columns,
)
from phoropter.core.errors import DataError, InputProblem
from phoropter.core.listed_files import ListedFiles
from phoropter.core.storage.foreign_files import PARQUET
from phoropter.core.text_table import PARQUET_ENDINGS, TextTable, read_parquet_header, read_text_table, table_of_frame
from phoropter.data.dataset import Dataset, encode_labels
from phoropter.data.dicom_file import may_be_dicom
from phoropter.data.folders.layout import parse_split_name
from phoropter.data.labels.label_sets import LabelSets
from phoropter.data.source import COLUMNS_OPTION, FILE_OPTIONS, PathContents, Source, check_column_names
from phoropter.data.sources.arrays import check_labels, describe_columns
from phoropter.data.sources.dicom_names import hide_identifiers
from phoropter.data.sources.storage import FilePictures
from phoropter.results.exclusions import make_step

MANIFEST_COLUMNS = ("path", "label", "id", "group", "site", "split")
REQUIRED_COLUMNS = ("path", "label")
MAX_ROWS = 20_000_000

TextRow = dict[str, str]


def open_manifest(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    multi_label: LabelSets | None = None,
    on_bad_input: str = "stop",
    name: str | None = None,
) -> Dataset:
    """A manifest → Dataset; ids are the paths as written, or the column `id`.

    columns: our name → the file's name, where they differ
    multi_label: how several labels a row are written, where rows have several
    Raises DataError for a missing column, a repeated id, an unknown split, a missing picture (listed with "skip"), or a label in
    some rows only (kept without one with "skip").
    """
    rows = _read_manifest(path, dict(columns or {}), multi_label)
    return _build_dataset(rows, path.parent, on_bad_input, name or path.stem)


def from_dataframe(
    frame: Any,
    folder: Path | str = ".",
    *,
    columns: Mapping[str, str] | None = None,
    multi_label: LabelSets | None = None,
    on_bad_input: str = "stop",
    name: str = "dataframe",
) -> Dataset:
    """A pandas DataFrame with the columns path and label, and where known id, group, site and split → Dataset.

    folder:  where relative paths start
    columns: our name → the frame's name, where they differ
    multi_label: how several labels a row are written, where rows have several
    Raises DataError as `open_manifest` does; rows are counted from 0.

    >>> from_dataframe(pd.read_excel("cells.xlsx"), "~/cells", columns={"label": "diagnosis"})      # doctest: +SKIP
    """
    rows = _select_columns(table_of_frame(frame, name), dict(columns or {}), multi_label)
    return _build_dataset(rows, Path(folder).expanduser().absolute(), on_bad_input, name)


@dataclass(frozen=True)
class _ManifestRows:
    """Rows by our column names. place: of the table · unit: what its rows are called · numbers: where each row stood

    unread: columns that none of ours is · multi_label: how several labels a row are written
    """

    place: str
    unit: str = "line"
    rows: list[TextRow] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    unread: tuple[str, ...] = ()
    multi_label: LabelSets | None = None

    def locate(self, row: int) -> str:
        """`cells.csv, line 7`."""
        return f"{self.place}, {self.unit} {self.numbers[row]}"

    @cached_property
    def holds_dicom(self) -> bool:
        """Whether a picture may be DICOM, so that its name must not be told."""
        return any(may_be_dicom(clean_path(row["path"])) for row in self.rows)

    def select(self, rows: list[int]) -> _ManifestRows:
        """Only these rows."""
        return replace(self, rows=[self.rows[i] for i in rows], numbers=[self.numbers[i] for i in rows])


def _build_dataset(rows: _ManifestRows, folder: Path, on_bad_input: str, name: str) -> Dataset:
    files = ListedFiles(folder)
    names = [files.find_name(row["path"]) for row in rows.rows]
    missing = [i for i, found in enumerate(names) if found is None]
    problems = [_describe_missing_picture(rows, i, files) for i in missing[: 1 if on_bad_input == "stop" else None]]
    if problems and (on_bad_input == "stop" or len(missing) == len(names)):
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        way_out = "" if len(missing) == len(names) else ", or set on_bad_input: skip"
        raise DataError(f"{problems[0]} in {folder}{more}; correct it{way_out}")
    columns = {column: _extract_column(rows, column) for column in ("group", "site")}  # before rows are left out
    kept = [i for i, found in enumerate(names) if found is not None]
    rows = rows.select(kept)
    ids = [make_row_id(row.get("id", ""), row["path"]) for row in rows.rows]
    _check_unique_ids(rows, ids)
    labels, classes, cells = _encode_rows(rows)
    groups, sites = (None if values is None else values[kept] for values in columns.values())
    parts = _parse_splits(rows)
    check_labels(cells, parts, rows.locate, on_bad_input)
    n_groups = None if groups is None else len(np.unique(groups))
    dataset = Dataset(
        name=name,
        ids=np.array(ids, dtype=np.str_),
        labels=labels,
        classes=classes,
        pictures=FilePictures(folder, [name for name in names if name is not None]),
        groups=groups,
        sites=sites,
        parts=parts,
        problems=tuple(problems),
        exclusions=(make_step("pictures", len(kept), {"the file is missing": len(missing)}, n_groups),) if missing else (),
        notes=(
            *describe_columns(labels, classes, *((None, None) if rows.holds_dicom else (groups, sites)), parts),
            *(describe_unread_groups(rows.unread) if groups is None else ()),
            *(describe_unread_parts(rows.unread) if parts is None else ()),
        ),
    )
    return hide_identifiers(dataset, on_bad_input)


def _encode_rows(rows: _ManifestRows) -> tuple[NDArray[np.int64], tuple[str, ...], list[str]]:
    """(labels, classes, what tells of each row whether it has a label)."""
    written = rows.multi_label
    if written is not None and written.columns is not None:
        cells = ["".join(row[name] for name in written.columns) for row in rows.rows]
        return *written.encode_columns(rows.rows, rows.locate), cells
    cells = [clean_cell(row["label"]) for row in rows.rows]
    if written is not None:
        return *written.encode_cells(cells, rows.locate), cells
    return *encode_labels([cell or None for cell in cells]), cells


def make_row_id(id_cell: str, path_cell: str) -> str:
    """The id of a row of a manifest: its own where it has one, else its path as the manifest writes it, tidied."""
    return clean_cell(id_cell) or posixpath.normpath(clean_path(path_cell))


def _describe_missing_picture(rows: _ManifestRows, row: int, files: ListedFiles) -> InputProblem:
    path = clean_path(rows.rows[row]["path"])
    ending = files.find_ending(path)
    hint = f" (a file of this name with the ending {ending} does: write the names with their endings)" if ending else ""
    if rows.holds_dicom:
        return InputProblem(rows.locate(row), f"the picture does not exist{hint}")
    return InputProblem(rows.locate(row), f"{path or 'an empty path'} does not exist{hint or files.suggest_name(path)}")


def _read_manifest(path: Path, columns: dict[str, str], multi_label: LabelSets | None) -> _ManifestRows:
    if not path.is_file():
        raise DataError(f"{path}: there is no such manifest; a CSV or Parquet file with the columns path and label is expected")
    return _select_columns(read_text_table(path), columns, multi_label)


def _select_columns(table: TextTable, columns: dict[str, str], multi_label: LabelSets | None) -> _ManifestRows:
    """The rows by our column names, and by the names of the labels that have columns of their own."""
    label_columns = (multi_label.columns if multi_label else None) or ()
    if both := [name for name in label_columns if name in MANIFEST_COLUMNS]:
        raise DataError(f"{table.place}: the label '{both[0]}' has the name of a column of a manifest: rename the column")
    required = ("path", *label_columns) if label_columns else REQUIRED_COLUMNS
    known = tuple(name for name in MANIFEST_COLUMNS if not (label_columns and name == "label"))
    theirs = find_columns(table.place, table.header, (*known, *label_columns), columns, required)
    unread = tuple(name for at, name in enumerate(table.header) if at not in theirs.values())
    out = _ManifestRows(table.place, table.unit, unread=unread, multi_label=multi_label)
    for number, values in table.rows:
        if len(out.rows) >= MAX_ROWS:
            raise DataError(f"{table.place}: more than {MAX_ROWS:,} rows")
        out.rows.append({ours: values[at] for ours, at in theirs.items()})
        out.numbers.append(number)
    return out


def _check_unique_ids(rows: _ManifestRows, ids: list[str]) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in first:
            shown = "this picture" if rows.holds_dicom else f"'{name}'"
            raise DataError(
                f"{rows.locate(row)}: {shown} came already on {rows.unit} {rows.numbers[first[name]]}; remove one, or give each "
                "row its own id"
            )
        first[name] = row


def _extract_column(rows: _ManifestRows, column: str) -> NDArray[np.str_] | None:
    """A column, None where it is empty. Raises DataError for one that is given in part: rows without a group would make one."""
    values = [clean_cell(row.get(column, "")) for row in rows.rows]
    return np.array(values, dtype=np.str_) if check_filled(values, column, rows.locate) else None


def _parse_splits(rows: _ManifestRows) -> NDArray[np.str_] | None:
    words = [clean_cell(row.get("split", "")) for row in rows.rows]
    if not any(words):
        return None
    parts = [parse_split_name(word) if word else "" for word in words]
    if None in parts:
        at = parts.index(None)
        raise DataError(f"{rows.locate(at)}: the split is '{words[at]}'; expected train, val or test")
    return np.array(parts, dtype=np.str_)


def _is_parquet_manifest(contents: PathContents) -> bool:
    if not contents.is_file_like(*PARQUET_ENDINGS):
        return False
    names = {name.casefold() for name in read_parquet_header(contents.path)}
    return "path" in names and "image" not in names


MANIFEST_SOURCE = Source(
    "manifest",
    lambda request: open_manifest(
        request.path,
        columns=request.option("columns"),
        multi_label=request.option("multi_label"),
        on_bad_input=request.on_bad_input,
        name=request.name,
    ),
    "a CSV or Parquet file with the columns path and label, and where known id, group, site and split",
    options=(COLUMNS_OPTION,),
    uses=(*FILE_OPTIONS, "multi_label"),
    typed_by_hand=True,
    check=check_column_names(MANIFEST_COLUMNS),
    formats=(PARQUET,),
    detect=lambda contents: contents.is_file_like(".csv", ".tsv") or _is_parquet_manifest(contents),
)
