"""Features that were computed elsewhere: an id and D numbers for each row of a dataset, from CSV, Parquet or npz (no torch)."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, join_words
from phoropter.data.dataset import Dataset
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.id_table import compare_labels, find_table_file, match_ids, read_id_table

_INDEX_COLUMN = re.compile(r"(?:__index_level_\d+__|Unnamed: \d+)?")  # the index of a data frame
_NOT_FEATURES = ("label", "seed", "repeat", "fold", "group", "site", "classes")


def read_features(table: TableSpec, dataset: Dataset, base: Path | None) -> tuple[NDArray[np.float32], list[str]]:
    """((N, D) features in the order of the dataset, their names); NaN where a cell is empty.

    Every column of numbers that has a name is a feature, but for `label`, `seed`, `repeat`, `fold`, `group`, `site` and an index
    of pandas; of an npz an array (n, D) too. A label is held against the dataset's. Raises DataError for ids that are unknown,
    missing or there twice.
    """
    path = find_table_file(table, base)
    found = read_id_table(path, table.columns)
    rows = match_ids(found.ids, dataset, found.place)
    if (labels := found.find("label", table.columns)) is not None:
        compare_labels([str(v) for v in labels.tolist()], rows, dataset, found.place)
    counts = np.bincount(rows, minlength=len(dataset))
    for wrong, words in ((counts == 0, "have no features"), (counts > 1, "come more than once")):
        if wrong.any():
            ids = dataset.ids[wrong].tolist()
            raise DataError(f"{found.place}: {len(ids):,} of {len(dataset):,} rows {words} ({join_words(ids, 3)}); mend the file")
    left_out = {table.columns.get(name, name).casefold() for name in _NOT_FEATURES}
    names = [n for n in found.columns if n.casefold() not in left_out and not _INDEX_COLUMN.fullmatch(n)]
    values = np.empty((len(dataset), 0), np.float64)
    if names:
        values = np.empty_like(by_file := found.parse_numbers(names))
        values[rows] = by_file
    if not values.shape[1] or np.isinf(values).any():
        what = "an infinite number" if values.shape[1] else "no column of numbers"
        raise DataError(f"{found.place}: {what} came, expected features of each row; mend the file")
    return values.astype(np.float32), names
