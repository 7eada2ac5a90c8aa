"""A results folder as its readers see it: of two classes, the one that is looked for comes last, so that it counts as positive.

Every metric and curve of two classes takes the last class as the positive one. Which class that is, is a question of the reader,
not of the runs: `data: {positive: NAME}` is written into study.json, and the columns of stored logits are exchanged when they are
read. So naming another class needs no new run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from phoropter.results.run_folder import Predictions, Run
from phoropter.results.store import Store


def open_results(folder: Path | str, positive: str | None = None, classes: Sequence[str] = ()) -> Store:
    """The store of a results folder, for reading.

    positive: of two classes (default: the one that study.json names) · classes: the folder's own, in the order in which they are
    wanted, whatever is positive; of another set of classes the folder's own order stays
    """
    return OrderedStore(folder, positive, classes)


class OrderedStore(Store):
    """A store whose runs have the positive class last, or the classes in a stated order; as `Store` where that is so already."""

    def __init__(self, folder: Path | str, positive: str | None = None, classes: Sequence[str] = ()) -> None:
        super().__init__(folder)
        self.positive, self.classes = positive, tuple(classes)

    @property
    def study(self) -> dict[str, Any]:
        """study.json, with classes and their counts in the order of the runs."""
        study = super().study
        order = self._find_order(study)
        if not order:
            return study
        dataset = dict(study["dataset"])
        dataset |= {name: [dataset[name][k] for k in order] for name in ("classes", "counts") if dataset.get(name)}
        return {**study, "dataset": dataset}

    def run(self, key: str) -> Run:
        found, order = super().run(key), self._find_order(super().study)
        return ReorderedRun(found.folder, found.planned_name, order) if order else found

    def _find_order(self, study: dict[str, Any]) -> tuple[int, ...]:
        """Of each class in the order wanted, its place in the order of the files; empty where the two are the same."""
        dataset = study.get("dataset") or {}
        stored = list(dataset.get("classes") or ())
        if sorted(stored) == sorted(self.classes):
            order = tuple(stored.index(name) for name in self.classes)
            return () if order == tuple(range(len(stored))) else order
        return (1, 0) if is_first_of_two(stored, self.positive or dataset.get("positive")) else ()


@dataclass(frozen=True, eq=False)
class ReorderedRun(Run):
    """A run whose classes are read in another order. order: of each class, its place in the files"""

    order: tuple[int, ...] = ()

    @cached_property
    def record(self) -> dict[str, Any]:
        record = super().record
        return {**record, "classes": [record["classes"][k] for k in self.order]}

    def load_predictions(self, part: str = "predictions") -> Predictions | None:
        found = super().load_predictions(part)
        return None if found is None else reorder_classes(found, self.order)


def reorder_classes(found: Predictions, order: Sequence[int]) -> Predictions:
    """Predictions with their classes in another order. order: of each class, its place in `found`"""
    places = np.argsort(np.asarray(order))  # of each class of `found`, its new place
    labels = np.ascontiguousarray(found.labels[:, list(order)]) if found.is_multi_label else places[found.labels]
    return replace(found, labels=labels, logits=np.ascontiguousarray(found.logits[:, list(order)]))


def is_first_of_two(classes: Sequence[str], positive: str | None) -> bool:
    """Whether the positive class must be exchanged with the other one to be the last."""
    return len(classes) == 2 and classes[0] == positive
