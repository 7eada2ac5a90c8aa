"""The labelled rows of a dataset, sorted by id, as splitters see them; and a partition of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SplitError
from phoropter.data.dataset import Dataset, count_classes, count_classes_by_group
from phoropter.data.splits.spec import ProtocolSpec

Rows = NDArray[np.int64]


class RowPartition(NamedTuple):
    """One partition: positions in a LabelledRows, and its name in words."""

    name: str
    train: Rows
    test: Rows
    val: Rows | None = None
    external: Rows | None = None


@dataclass(frozen=True, eq=False)
class LabelledRows:
    """The labelled rows, sorted by id.

    rows: their numbers in the dataset · labels: (n,) int64, or (n, C) of a multi-label dataset · groups: integer codes, or None
    """

    dataset: Dataset
    rows: Rows
    labels: Rows
    groups: Rows | None
    notes: tuple[str, ...] = ()

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> LabelledRows:
        """All labelled rows. Raises SplitError when there are none."""
        by_id = np.argsort(dataset.ids, kind="stable")
        rows = by_id[dataset.labelled[by_id]].astype(np.int64)
        if not rows.size:
            raise SplitError(f"{dataset.name} has no labelled rows to split")
        dropped = len(dataset) - len(rows)
        groups = None if dataset.groups is None else np.unique(dataset.groups[rows], return_inverse=True)[1].astype(np.int64)
        return cls(dataset, rows, dataset.labels[rows], groups, (f"{dropped} unlabelled rows left out",) if dropped else ())

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return self.dataset.name

    def get_column(self, name: str) -> NDArray[np.str_] | None:
        """`sites`, `parts`, `groups` or `recordings` of these rows."""
        values: NDArray[np.str_] | None = getattr(self.dataset, name)
        return None if values is None else values[self.rows]

    def select_rows(self, places: Rows) -> LabelledRows:
        """Only these positions."""
        return LabelledRows(
            self.dataset, self.rows[places], self.labels[places], None if self.groups is None else self.groups[places]
        )

    def to_dataset_rows(self, places: Rows) -> Rows:
        """Positions → row numbers of the dataset, sorted."""
        return np.sort(self.rows[places])

    def group_names(self, groups: Rows) -> list[str]:
        """Group numbers → their names."""
        assert self.dataset.groups is not None and self.groups is not None
        return sorted({str(name) for name in self.dataset.groups[self.rows[np.isin(self.groups, groups)]]})

    def class_counts(self) -> Rows:
        """(C,) rows of each class."""
        return count_classes(self.labels, len(self.dataset.classes))

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have several labels."""
        return self.dataset.is_multi_label

    def count_by_group(self, stratified: bool) -> tuple[Rows, Rows]:
        """((G, C) rows of each class, or (G, 1) rows, in each of the G groups; (n,) the group of each row)."""
        assert self.groups is not None
        names, index = np.unique(self.groups, return_inverse=True)
        if not stratified:
            return np.bincount(index)[:, None], index.astype(np.int64)
        counts = count_classes_by_group(self.labels, index, (len(names), len(self.dataset.classes)))
        return counts[:, counts.any(axis=0)], index.astype(np.int64)

    def keeps_groups(self, spec: ProtocolSpec) -> bool:
        """Whether rows of one group stay on one side."""
        return self.groups is not None and not spec.allow_group_overlap

    def describe_groups(self, spec: ProtocolSpec) -> str:
        """How groups are treated, for the name of a split."""
        kept = " with groups kept together" if self.keeps_groups(spec) else " with groups on both sides"
        return "" if self.groups is None else kept
