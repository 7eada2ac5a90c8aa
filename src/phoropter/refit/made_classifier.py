"""A classifier made after a study, with what its bundle says of it, and the kept models of a study that one is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.models.classifier import Classifier, average_classifiers
from phoropter.results.store import Run, Store
from phoropter.study.plan import PlannedRun
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.candidates.refit_record import FoldModels


@dataclass(frozen=True, eq=False)
class MadeClassifier:
    """A classifier for use.

    run:         a run of its candidate, which says what its images are and where they come from
    candidates:  of `model.members`, the candidate that each was trained as
    seen_rows:   rows of the study that some of its models has met, ascending
    epochs:      candidate that was trained → epochs
    fold_models: of an average of the study's own models, where they come from
    """

    run: PlannedRun
    model: Classifier
    candidates: tuple[Candidate, ...]
    seen_rows: NDArray[np.int64]
    epochs: dict[str, int] = field(default_factory=dict)
    fold_models: FoldModels | None = None

    @property
    def member_candidates(self) -> tuple[Candidate, ...]:
        """Of an average, the candidate of each member; else empty."""
        return self.candidates if self.model.member_specs else ()


def average_models(models: Sequence[Classifier], weights: Sequence[float] = ()) -> Classifier:
    """One model as it is, several as the average of their probabilities. weights: of each, empty where all are equal"""
    return models[0] if len(models) == 1 else average_classifiers(models, weights)


def read_member_weights(run: Run) -> dict[str, float]:
    """Of a run that chose among its members, those with weight, by key; empty for any other run. Raises StoreError."""
    selection = run.record.get("selection")
    if selection is None:
        return {}
    try:
        weights = {str(each["name"]): float(each["weight"]) for each in selection["members"]}
        named = zip(run.record["needs"], run.record["candidate"]["members"], strict=True)
        return {str(key): weights[name] for key, name in named if weights[name] > 0}
    except (KeyError, TypeError, ValueError):
        file = run.folder / "record.json"
        raise StoreError(f"{file} is damaged: selection; delete that folder and run the study again") from None


def list_answering_runs(run: Run) -> list[str]:
    """The keys of the runs whose models answer in a run: its own, or of an average its members', those with weight."""
    is_average = bool(run.record["digests"].get("members"))
    return list(read_member_weights(run) or map(str, run.record["needs"])) if is_average else [run.key]


def find_kept_folders(store: Store, runs: Iterable[tuple[str, Sequence[str]]]) -> tuple[str, list[tuple[str, Path]]] | None:
    """The first run whose model was kept: its key, and of each of its parts the key and the bundle's folder. None where none was.

    runs: key → the keys of the runs whose models answer together: those of an average's members, else its own alone
    """
    for key, parts in runs:
        kept = [(part, folder) for part in parts if (folder := store.run(part).bundle_folder) is not None]
        if len(kept) == len(parts):
            return key, kept
    return None
