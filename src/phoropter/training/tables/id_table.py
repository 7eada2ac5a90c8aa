"""A file with an id for each row (CSV, Parquet or npz) → its columns, matched by id with the rows of a dataset. No torch here."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import find_columns, parse_number
from phoropter.core.errors import DataError, cut_message, join_words
from phoropter.core.files import digest_file
from phoropter.core.text_table import read_text_table
from phoropter.data.dataset import Dataset
from phoropter.training.candidates.table_spec import TableSpec


@dataclass(frozen=True, eq=False)
class IdTable:
    """place: its name in messages · ids: (n,) text · columns: name → (n,) or (n, D) values · decimal_comma: as of TextTable"""

    place: str
    ids: NDArray[np.str_]
    columns: dict[str, NDArray[Any]]
    decimal_comma: bool = False

    def find(self, name: str, renamed: Mapping[str, str]) -> NDArray[Any] | None:
        """A column by our name, or by theirs in `renamed`; None where it is not there. Raises DataError for a renamed one."""
        header = list(self.columns)
        own = {k: v for k, v in renamed.items() if k == name}
        at = find_columns(self.place, header, (name,), own).get(name)
        return None if at is None else self.columns[header[at]]

    def parse_numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """(n, D) of the named columns, side by side; an empty cell is NaN. Raises DataError for text that is no number."""
        parts = []
        for name in names:
            column = self.columns[name]
            if column.dtype.kind in "fiub":
                parts.append(column.reshape(len(column), -1).astype(np.float64))
                continue
            values = [parse_number(text, self.decimal_comma) if text else float("nan") for text in column.tolist()]
            if (wrong := next((v for v in values if isinstance(v, str)), None)) is not None:
                raise DataError(f"{self.place}: column '{name}' has the cell '{wrong[:40]}', expected numbers; mend the file")
            parts.append(np.array(values, dtype=np.float64)[:, None])
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(self.ids), 0))


def find_table_file(table: TableSpec, base: Path | None) -> Path:
    """The path of the file of a candidate, which starts from the study's folder."""
    return (base or Path()) / Path(table.file or "").expanduser()


def digest_table_file(table: TableSpec, name: str, base: Path | None) -> TableSpec:
    """The same with the digest of its file. Raises DataError where the file is missing. name: of the candidate"""
    if table.file is None:
        return table
    path = find_table_file(table, base)
    if not path.is_file():
        raise DataError(f"candidate '{name}': {path}: this file is missing: check the path, which starts from the study's folder")
    return table.model_copy(update={"digest": digest_file(path)})


def read_id_table(path: Path, renamed: Mapping[str, str]) -> IdTable:
    """A CSV, Parquet or npz file with a column `id` (or what `renamed` calls it). Raises DataError for any other."""
    if path.suffix.lower() == ".npz":
        columns = _read_npz_columns(path)
        decimal_comma = False
    else:
        text = read_text_table(path)
        rows = [values for _, values in text.rows]
        columns = {name: np.array([row[at] for row in rows], dtype=np.str_) for at, name in enumerate(text.header)}
        decimal_comma = text.decimal_comma
    own = {k: v for k, v in renamed.items() if k == "id"}
    at = find_columns(path.name, list(columns), ("id",), own, required=("id",))["id"]
    name = list(columns)[at]
    ids = np.array([str(v) for v in columns.pop(name).tolist()], dtype=np.str_)
    uneven = next((n for n, c in columns.items() if c.shape[:1] != ids.shape and n != "classes"), None)
    if uneven is not None:
        raise DataError(f"{path.name}: '{uneven}' has the shape {columns[uneven].shape}, expected {len(ids)} rows as of '{name}'")
    if not len(ids):
        raise DataError(f"{path.name} has no rows; expected one for each row of the dataset")
    return IdTable(path.name, ids, columns, decimal_comma)


def _read_npz_columns(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = cut_message(error)
        raise DataError(f"{path.name} is no npz file of plain arrays ({reason}); write it with numpy.savez") from None


def match_ids(ids: NDArray[np.str_], dataset: Dataset, place: str) -> NDArray[np.int64]:
    """(n,) ids of a file → (n,) rows of the dataset. Raises DataError for ids that the dataset does not have."""
    known = {name: row for row, name in enumerate(dataset.ids.tolist())}
    unknown = [name for name in ids.tolist() if name not in known]
    if unknown:
        raise DataError(
            f"{place}: {len(unknown):,} of {len(ids):,} ids are not in the dataset ({join_words(unknown, 3)}), whose ids are "
            f"like {dataset.ids[0]}; write its ids (`phoropter folds` lists them)"
        )
    return np.array([known[name] for name in ids.tolist()], dtype=np.int64)


def compare_labels(labels: Sequence[str], rows: NDArray[np.int64], dataset: Dataset, place: str) -> None:
    """Raises DataError where the file's labels are not those of the dataset, with their count. rows: of the dataset, (n,)"""
    ours = [dataset.classes[k] for k in dataset.labels[rows]]
    wrong = [(i, mine, theirs) for i, (mine, theirs) in enumerate(zip(ours, labels, strict=True)) if mine != theirs]
    if wrong:
        at, mine, theirs = wrong[0]
        raise DataError(
            f"{place}: {len(wrong):,} of {len(labels):,} labels differ from the dataset's (row {dataset.ids[rows[at]]}: "
            f"'{theirs}' instead of '{mine}'); write the study's class names, or name the column with columns: {{label: NAME}}"
        )
