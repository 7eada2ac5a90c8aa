"""Folds kept in a file: a CSV that says which part every row has in every fold, for partitions made elsewhere or to be published.

    id,repeat,fold,part
    img-001,1,1,train
    img-002,1,1,test

id:     as in the dataset · repeat, fold: whole numbers from 1 · part: train, val, test, external (unseen sites) or unused
seed:   a further column where each seed has its own folds; without it all seeds of the protocol share them

Every labelled row must have exactly one part in every fold, so a dataset that changed after the file was written is noticed.
"""

from __future__ import annotations

import csv
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import clean_cell, clean_name, clean_path, find_columns
from phoropter.core.errors import DataError, SplitError, did_you_mean, join_words
from phoropter.core.files import atomic_write
from phoropter.core.storage.csv_cells import escape_formula, unescape_formula
from phoropter.core.text_table import read_text_table
from phoropter.data.dataset import Dataset
from phoropter.data.splits.labelled_rows import LabelledRows, RowPartition

Rows = NDArray[np.int64]
FoldKey = tuple[int, int, int]  # seed (or ANY_SEED), repeat and fold, the last two from 1
ANY_SEED = -1
PARTS = ("train", "val", "test", "external", "unused")
MAX_FILE_BYTES = 500_000_000
_REQUIRED_COLUMNS = ("id", "fold", "part")
_COLUMNS = ("id", "seed", "repeat", "fold", "part")


def read_folds_file(path: Path, pool: LabelledRows, seeds: tuple[int, ...]) -> dict[tuple[int, int], list[RowPartition]]:
    """(seed, repeat from 0) → the partitions of the folds, in order.

    Raises SplitError for a file that is missing or malformed, for ids that the dataset lacks, labelled rows without a part, a row
    with two parts in one fold, an empty training or test part, gaps in the numbers, or other seeds than the protocol's.
    """
    place_of = {str(pool.dataset.ids[row]): place for place, row in enumerate(pool.rows)}
    spelling = {clean_name(name): name for name in place_of}
    parts: dict[FoldKey, NDArray[np.int8]] = {}
    for line, key, written, part in _read_lines(path):
        row_id = _find_id(written, place_of, spelling)
        if row_id not in place_of:
            raise SplitError(_describe_unknown_id(path, line, row_id, pool.dataset))
        codes = parts.setdefault(key, np.full(len(pool.rows), -1, dtype=np.int8))
        if codes[place_of[row_id]] >= 0:
            raise SplitError(f"{path.name}, line {line}: the row '{row_id}' has a second part in one fold; keep one")
        codes[place_of[row_id]] = PARTS.index(part)
    if not parts:
        raise SplitError(f"{path}: the file lists no rows; expected lines of id, repeat, fold, part")
    _check_numbers(path, list(parts), seeds)
    partitions = {key: _to_partition(path, key, codes, pool) for key, codes in sorted(parts.items())}
    shared = {key[0] for key in parts} == {ANY_SEED}
    out: dict[tuple[int, int], list[RowPartition]] = defaultdict(list)
    for seed in seeds:
        for (owner, repeat, _), partition in partitions.items():
            if shared or owner == seed:
                out[seed, repeat - 1].append(partition)
    return dict(out)


def write_folds_rows(path: Path, dataset: Dataset, folds: list[tuple[FoldKey, dict[str, Rows]]]) -> None:
    """Writes the file. folds: seed (ANY_SEED leaves the column out), repeat and fold from 1, and the dataset rows of each part.

    Rows are sorted by id within a fold; labelled rows in no part are written as unused. Raises DiskError.
    """
    by_id = np.argsort(dataset.ids, kind="stable")
    labelled = by_id[dataset.labelled[by_id]]
    seeded = any(key[0] != ANY_SEED for key, _ in folds)
    with atomic_write(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        cells = {row: escape_formula(str(dataset.ids[row])) for row in labelled.tolist()}
        writer.writerow([name for name in _COLUMNS if seeded or name != "seed"])
        for (seed, repeat, fold), rows_of_part in folds:
            names = np.full(len(dataset), "unused", dtype="<U8")
            for part, rows in rows_of_part.items():
                names[rows] = part
            prefix = [seed] if seeded else []
            writer.writerows([cell, *prefix, repeat, fold, names[row]] for row, cell in cells.items())


def _read_lines(path: Path) -> Iterator[tuple[int, FoldKey, str, str]]:
    """(line number, fold, id as written, part) of each line."""
    if not path.exists():
        raise SplitError(f"{path}: there is no such file; name it in protocol.folds_file, or write it with `phoropter folds`")
    try:
        table = read_text_table(path, MAX_FILE_BYTES)
        columns = _check_header(path, table.header)
        for line, values in table.rows:
            row = {name: values[at] if name == "id" else clean_cell(values[at]) for name, at in columns.items()}
            yield line, _parse_fold(path, line, row), row["id"], _parse_part(path, line, row)
    except DataError as error:
        raise SplitError(str(error)) from None


def _find_id(written: str, known: Mapping[str, int], spelling: Mapping[str, str]) -> str:
    """An id as written → as the dataset spells it: 1.0 is the id 1, and a path may be written as on Windows.

    spelling: cleaned id → id
    """
    path = posixpath.normpath(clean_path(written) or ".")
    readings = (written, unescape_formula(written), clean_name(written), clean_cell(written), path)
    cleaned = clean_name(written)
    return next((reading for reading in readings if reading in known), spelling.get(cleaned, cleaned))


def _check_header(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Our name of each column → its position; a column without a name (an index) is left out."""
    for name in names:
        if name and name.casefold() not in _COLUMNS:
            raise SplitError(
                f"{path.name}: unknown column '{name}'{did_you_mean(name, _COLUMNS)}; known are {join_words(_COLUMNS)}"
            )
    columns = find_columns(path.name, names, _COLUMNS)
    if missing := [name for name in _REQUIRED_COLUMNS if name not in columns]:
        raise SplitError(f"{path.name}: the first line has no column '{missing[0]}'; expected id, repeat, fold, part")
    return columns


def _parse_fold(path: Path, line: int, row: dict[str, str]) -> FoldKey:
    values = [row.get("seed", str(ANY_SEED)), row.get("repeat", "1"), row["fold"]]
    try:
        seed, repeat, fold = (int(value) for value in values)
    except ValueError:
        raise SplitError(f"{path.name}, line {line}: seed, repeat and fold must be whole numbers, not {values[-3:]}") from None
    if repeat < 1 or fold < 1 or ("seed" in row and seed < 0):
        raise SplitError(
            f"{path.name}, line {line}: repeat and fold count from 1 and seed from 0, not {repeat}, {fold} and {seed}"
        )
    return seed, repeat, fold


def _parse_part(path: Path, line: int, row: dict[str, str]) -> str:
    if row["part"] not in PARTS:
        hint = did_you_mean(row["part"], PARTS)
        raise SplitError(f"{path.name}, line {line}: part is '{row['part']}', expected {join_words(PARTS)}{hint}")
    return row["part"]


def _describe_unknown_id(path: Path, line: int, row_id: str, dataset: Dataset) -> str:
    if row_id in dataset.ids:
        return f"{path.name}, line {line}: the row '{row_id}' of {dataset.name} has no label; remove the line"
    hint = did_you_mean(row_id, map(str, dataset.ids[:2000])) or f"; its ids are like '{dataset.ids[0]}'"
    return f"{path.name}, line {line}: {dataset.name} has no row '{row_id}'{hint}"


def _check_numbers(path: Path, keys: list[FoldKey], seeds: tuple[int, ...]) -> None:
    """Repeats and folds count from 1 without a gap; the seeds are the protocol's."""
    found = sorted({key[0] for key in keys})
    if found != [ANY_SEED] and found != sorted(seeds):
        raise SplitError(
            f"{path.name} has folds for the seeds {join_words(map(str, found))}, and the protocol asks for "
            f"{join_words(map(str, sorted(seeds)))}: name the same ones in 'seeds'"
        )
    numbers: dict[tuple[int, ...], set[int]] = defaultdict(set)
    for seed, repeat, fold in keys:
        numbers[seed,].add(repeat)
        numbers[seed, repeat].add(fold)
    for owner, values in numbers.items():
        if values != set(range(1, len(values) + 1)):
            word = "repeats" if len(owner) == 1 else "folds"
            raise SplitError(f"{path.name}: the {word} are numbered {sorted(values)}; expected 1 to {len(values)} without a gap")


def _to_partition(path: Path, key: FoldKey, codes: NDArray[np.int8], pool: LabelledRows) -> RowPartition:
    where = f"{path.name}, repeat {key[1]}, fold {key[2]}"
    missing = np.flatnonzero(codes < 0)
    if missing.size:
        example = pool.dataset.ids[pool.rows[missing[0]]]
        raise SplitError(
            f"{where}: {missing.size:,} of {len(codes):,} labelled rows of {pool.name} have no part, for example '{example}'; "
            "give each one of train, val, test, external or unused"
        )
    train, val, test, external, _ = (np.flatnonzero(codes == code) for code in range(len(PARTS)))
    for part, places in (("train", train), ("test", test)):
        if not places.size:
            raise SplitError(f"{where}: no row has the part {part}; expected at least one")
    return RowPartition(f"folds of {path.name}", train, test, val if val.size else None, external if external.size else None)
