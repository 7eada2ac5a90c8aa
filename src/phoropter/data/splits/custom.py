"""Splits made by a function of the user's own: `Protocol("mine", make_splits=f)`, checked like those of every other protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SplitError
from phoropter.data.dataset import Dataset
from phoropter.data.splits.labelled_rows import LabelledRows, RowPartition
from phoropter.data.splits.spec import Protocol

Rows = NDArray[np.int64]
_PART_NAMES = ("train", "test", "val")


def make_custom_partitions(pool: LabelledRows, protocol: Protocol, seed: int) -> list[RowPartition]:
    """What `protocol.make_splits(dataset, seed)` returns, as partitions of the labelled rows.

    Raises SplitError for anything but (train, test) or (train, test, val), ids or row numbers that the dataset lacks, rows
    without a label, an empty part, or a row given twice.
    """
    place_of = np.full(len(pool.dataset), -1, dtype=np.int64)
    place_of[pool.rows] = np.arange(len(pool.rows))
    out = []
    for fold, given in enumerate(protocol.make_splits(pool.dataset, seed)):
        where = f"protocol '{protocol.name}', seed {seed}, split {fold + 1}"
        if not isinstance(given, Sequence) or len(given) not in (2, 3):
            raise SplitError(f"{where}: expected (train, test) or (train, test, val), got {type(given).__name__}")
        rows = [_to_rows(values, pool.dataset, f"{where}, {name}") for name, values in zip(_PART_NAMES, given, strict=False)]
        joined = np.concatenate(rows)
        if len(np.unique(joined)) < len(joined):
            values, counts = np.unique(joined, return_counts=True)
            raise SplitError(f"{where}: the row '{pool.dataset.ids[values[counts > 1][0]]}' is given twice; put it in one part")
        out.append(RowPartition(protocol.name, *(place_of[part] for part in rows)))
    if not out:
        raise SplitError(f"protocol '{protocol.name}': make_splits returned no split for seed {seed}; expected at least one")
    return out


def _to_rows(values: Any, dataset: Dataset, where: str) -> Rows:
    """Ids or row numbers → row numbers of labelled rows."""
    given = np.asarray(values)
    if given.ndim != 1 or not given.size:
        raise SplitError(f"{where}: expected a list of ids or row numbers with at least one entry, got shape {given.shape}")
    if given.dtype.kind in "iu":
        if given.min() < 0 or given.max() >= len(dataset):
            raise SplitError(
                f"{where}: row numbers run from {given.min()} to {given.max()}, and {dataset.name} has {len(dataset)} rows"
            )
        rows = given.astype(np.int64)
    elif given.dtype.kind in "UO":
        order = np.argsort(dataset.ids, kind="stable")
        position = np.minimum(np.searchsorted(dataset.ids[order], given.astype(np.str_)), len(dataset) - 1)
        rows = order[position].astype(np.int64)
        unknown = np.flatnonzero(dataset.ids[rows] != given.astype(np.str_))
        if unknown.size:
            raise SplitError(f"{where}: {dataset.name} has no row '{given[unknown[0]]}'; give ids of the dataset, or row numbers")
    else:
        raise SplitError(f"{where}: expected ids (str) or row numbers (int), got {given.dtype}")
    unlabelled = rows[~dataset.labelled[rows]]
    if unlabelled.size:
        raise SplitError(f"{where}: the row '{dataset.ids[unlabelled[0]]}' has no label; leave rows without one out")
    return rows
