"""From a ProtocolSpec and a Dataset to Splits: which rows are trained on and which are tested.

Rows are sorted by id before anything is drawn, so a partition depends on the contents of the dataset, not on the order of its
rows. Groups stay together where the dataset names them, unless the study says `allow_group_overlap: true`; the name of the split
then says so. A split that cannot be learned from or scored is refused, with what would work.

How rows are partitioned is in splitters.py; splits from a file are in folds_file.py, splits of a user's function in custom.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SplitError
from phoropter.core.files import digest
from phoropter.core.seeds import seed_of
from phoropter.data.dataset import Dataset
from phoropter.data.splits.custom import make_custom_partitions
from phoropter.data.splits.folds_file import ANY_SEED, FoldKey, read_folds_file, write_folds_rows
from phoropter.data.splits.labelled_rows import LabelledRows, RowPartition
from phoropter.data.splits.spec import Protocol, ProtocolSpec
from phoropter.data.splits.splitters import SPLITTERS, add_validation_part, raise_on_missing_class

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of a dataset, one array a part.

    train, test: always there · val: inner validation · external: rows of unseen sites
    seed, repeat, fold: count from 0 · folds: how many there are in this repeat · name: in words, counting from 1
    """

    seed: int
    repeat: int
    fold: int
    folds: int
    name: str
    train: Rows
    test: Rows
    val: Rows | None = None
    external: Rows | None = None

    def content_key(self, dataset: Dataset) -> str:
        """A digest of the ids in each part, whatever their order."""
        parts = (self.train, self.test, self.val, self.external)
        return digest([None if rows is None else sorted(dataset.ids[rows].tolist()) for rows in parts])


def make_splits(dataset: Dataset, spec: ProtocolSpec, base: Path | None = None) -> list[Split]:
    """Every split of a protocol: seeds × repeats × folds. Rows without a label are in none of them.

    base: the folder that a relative `folds_file` starts from (default: the current one)
    Raises SplitError, which says what would work, when the dataset cannot be split so.
    """
    pool = LabelledRows.from_dataset(dataset)
    out: list[Split] = []
    for seed, repeat, repeats, parts in _make_partitions(pool, spec, base):
        for fold, part in enumerate(parts):
            raise_on_missing_class(pool, part, spec)
            words = [part.name]
            words += [f"fold {fold + 1} of {len(parts)}"] if len(parts) > 1 else []
            words += [f"repeat {repeat + 1} of {repeats}"] if repeats > 1 else []
            name = ", ".join([*words, f"seed {seed}", *pool.notes])
            train, test = pool.to_dataset_rows(part.train), pool.to_dataset_rows(part.test)
            val, external = (None if places is None else pool.to_dataset_rows(places) for places in (part.val, part.external))
            out.append(Split(seed, repeat, fold, len(parts), name, train, test, val, external))
    return out


def write_folds_file(dataset: Dataset, spec: ProtocolSpec, path: Path, base: Path | None = None) -> int:
    """Writes the splits of a protocol as a folds file (folds_file.py); how many splits it holds.

    `protocol: {split: file, folds_file: PATH}` with the same `seeds` then gives the same splits, and so the same run keys. The
    column `seed` is written where seeds have partitions of their own. Raises SplitError as `make_splits` does.
    """
    if spec.split == "test-only":
        raise SplitError("split: test-only trains on nothing, and a folds file needs a training part in every fold")
    splits = make_splits(dataset, spec, base)
    by_seed = {seed: [replace(s, seed=0).content_key(dataset) for s in splits if s.seed == seed] for seed in spec.seeds}
    shared = all(keys == by_seed[spec.seeds[0]] for keys in by_seed.values())
    folds: list[tuple[FoldKey, dict[str, Rows]]] = []
    for split in splits:
        if shared and split.seed != spec.seeds[0]:
            continue
        parts = {"train": split.train, "val": split.val, "test": split.test, "external": split.external}
        key = (ANY_SEED if shared else split.seed, split.repeat + 1, split.fold + 1)
        folds.append((key, {name: rows for name, rows in parts.items() if rows is not None}))
    write_folds_rows(path, dataset, folds)
    return len(splits)


def _make_partitions(
    pool: LabelledRows, spec: ProtocolSpec, base: Path | None
) -> Iterator[tuple[int, int, int, list[RowPartition]]]:
    """(seed, repeat, number of repeats, the folds of that repeat)."""
    if spec.split == "file":
        assert spec.folds_file is not None  # ProtocolSpec requires it
        folds = read_folds_file((base or Path()) / spec.folds_file.expanduser(), pool, spec.seeds)
        repeats = 1 + max(repeat for _, repeat in folds)
        yield from ((seed, repeat, repeats, parts) for (seed, repeat), parts in folds.items())
        return
    for seed in spec.seeds:
        if isinstance(spec.split, Protocol):
            yield seed, 0, 1, make_custom_partitions(pool, spec.split, seed)
            continue
        for repeat in range(spec.repeats):
            draw = seed_of(seed if spec.reshuffle else "shared by all seeds", "partition", repeat)
            parts = [add_validation_part(pool, part, spec, draw) for part in SPLITTERS[spec.split](pool, spec, draw)]
            yield seed, repeat, spec.repeats, parts
