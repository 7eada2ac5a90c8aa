"""Who is trained on and who is tested: a ProtocolSpec and a Dataset → Splits.

Rows are put in the order of their ids before anything is drawn, so a partition depends on what is in the dataset, not on the
order it came in. Where the dataset names groups they stay together, unless the study says `allow_group_overlap: true` in so many
words, and then the split's name says it too. A split that could not be learned from or scored is refused with what would work.

How rows are parted is in partitions.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import digest
from phoropter.core.seeds import seed_of
from phoropter.data.dataset import Dataset
from phoropter.data.splits.spec import ProtocolSpec
from phoropter.data.splits.splitters import SPLITTERS, LabelledRows, add_validation_part, raise_on_missing_class

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of a dataset: what is trained on, what is tested, and where asked for the inner validation part and the rows
    of unseen sites. seed, repeat and fold count from 0; name says it in plain words, counting from 1."""

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


def make_splits(dataset: Dataset, spec: ProtocolSpec) -> list[Split]:
    """Every split a protocol asks for: seeds × repeats × folds. Rows without a label are in none of them.

    Raises SplitError, which says what would work, when the dataset cannot be split so.
    """
    pool = LabelledRows.from_dataset(dataset)
    out: list[Split] = []
    for seed in spec.seeds:
        for repeat in range(spec.repeats):
            draw = seed_of(seed if spec.reshuffle else "shared by all seeds", "partition", repeat)
            parts = [add_validation_part(pool, part, spec, draw) for part in SPLITTERS[spec.split](pool, spec, draw)]
            for fold, part in enumerate(parts):
                raise_on_missing_class(pool, part, spec)
                words = [part.name]
                words += [f"fold {fold + 1} of {len(parts)}"] if len(parts) > 1 else []
                words += [f"repeat {repeat + 1} of {spec.repeats}"] if spec.repeats > 1 else []
                name = ", ".join([*words, f"seed {seed}", *pool.notes])
                train, test = pool.to_dataset_rows(part.train), pool.to_dataset_rows(part.test)
                val, external = (None if places is None else pool.to_dataset_rows(places) for places in (part.val, part.external))
                out.append(Split(seed, repeat, fold, len(parts), name, train, test, val, external))
    return out
