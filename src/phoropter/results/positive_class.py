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


def open_results(folder: Path | str, positive: str | None = None) -> Store:
    """The store of a results folder, for reading. positive: of two classes (default: the one that study.json names)."""
    return OrderedStore(folder, positive)


class OrderedStore(Store):
    """A store whose runs have the positive class last; as `Store` where that is so already, and of more than two classes."""

    def __init__(self, folder: Path | str, positive: str | None = None) -> None:
        super().__init__(folder)
        self.positive = positive

    @property
    def study(self) -> dict[str, Any]:
        """study.json, with classes and their counts in the order of the runs."""
        study = super().study
        if not self._is_exchanged(study):
            return study
        dataset = dict(study["dataset"])
        dataset |= {name: dataset[name][::-1] for name in ("classes", "counts") if dataset.get(name)}
        return {**study, "dataset": dataset}

    def run(self, key: str) -> Run:
        found = super().run(key)
        return ExchangedRun(found.folder) if self._is_exchanged(super().study) else found

    def _is_exchanged(self, study: dict[str, Any]) -> bool:
        dataset = study.get("dataset") or {}
        return is_first_of_two(list(dataset.get("classes") or ()), self.positive or dataset.get("positive"))


@dataclass(frozen=True, eq=False)
class ExchangedRun(Run):
    """A run of two classes, read with the first one last."""

    @cached_property
    def record(self) -> dict[str, Any]:
        record = super().record
        return {**record, "classes": record["classes"][::-1]}

    def load_predictions(self, part: str = "predictions") -> Predictions | None:
        found = super().load_predictions(part)
        return None if found is None else exchange_classes(found)


def exchange_classes(found: Predictions) -> Predictions:
    """Predictions of two classes, in the other order."""
    return replace(found, labels=1 - found.labels, logits=np.ascontiguousarray(found.logits[:, ::-1]))


def is_first_of_two(classes: Sequence[str], positive: str | None) -> bool:
    """Whether the positive class must be exchanged with the other one to be the last."""
    return len(classes) == 2 and classes[0] == positive
