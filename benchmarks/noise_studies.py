"""How often a page calls a candidate ahead in studies of noise: python -m benchmarks.noise_studies [--studies 100]

Labels are drawn without regard to the features; each candidate is a nearest-centroid rule on features of its own, so that all are
exchangeable and none knows anything. Its predictions go through the same collection, tests and conclusion as those of a results
folder, held in memory. A study counts where the conclusion says that somebody is ahead of somebody; beside it, where the table
of pairs says so of the leader, on new rows and trained again.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from phoropter.core.seeds import named_generator
from phoropter.report.conclusion import write_conclusion
from phoropter.report.summary import collect
from phoropter.report.summary.compare import compare_candidates
from phoropter.results.store import Predictions, Store

METRICS = ("accuracy", "macro_f1", "roc_auc", "average_precision", "log_loss", "mcc")
COUNTS = (2, 8, 40)
FEATURES, USED = 48, 12
AHEAD = re.compile(r"\b(?:is|are) ahead of\b")


@dataclass(frozen=True)
class NoiseDesign:
    """rows: of the study · groups: 0 for none · folds: as many as groups leaves one out at a time · positive: share of class 1"""

    name: str
    rows: int
    groups: int
    folds: int
    positive: float


DESIGNS = [
    NoiseDesign("5 folds, balanced", 120, 0, 5, 0.5),
    NoiseDesign("5 folds, 3 %", 400, 0, 5, 0.03),
    NoiseDesign("5 folds of 20 groups, balanced", 120, 20, 5, 0.5),
    NoiseDesign("5 folds of 20 groups, 3 %", 400, 20, 5, 0.03),
    NoiseDesign("15 groups left out, balanced", 120, 15, 15, 0.5),
    NoiseDesign("15 groups left out, 3 %", 405, 15, 15, 0.03),
]


@dataclass
class MemoryRun:
    """One run as a store gives it."""

    key: str
    record: dict[str, Any]
    predictions: Predictions
    history: Any = None
    folder: Path = Path("memory")

    def load_predictions(self, name: str = "predictions") -> Predictions | None:
        return self.predictions if name == "predictions" else None


class MemoryStore:
    """A store whose runs are in memory."""

    folder = Path("memory")

    def __init__(self, study: dict[str, Any], runs: dict[str, MemoryRun]) -> None:
        self.study, self.runs = study, runs

    def run(self, key: str) -> MemoryRun:
        return self.runs[key]

    def __contains__(self, key: str) -> bool:
        return key in self.runs

    def read_failures(self) -> dict[str, dict[str, Any]]:
        return {}


def draw_noise(design: NoiseDesign, number: int, candidates: int) -> list[MemoryRun]:
    """The runs of candidates that learn from labels without meaning."""
    draw = named_generator(0, "noise", design.name, number)
    positives = max(2, round(design.rows * design.positive))
    labels = draw.permutation((np.arange(design.rows) < positives).astype(np.int64))
    groups = np.arange(design.rows) % design.groups if design.groups else None
    features = draw.normal(size=(design.rows, FEATURES))
    if groups is not None:
        features += draw.normal(size=(design.groups, FEATURES))[groups]
    fold_of = assign_folds(design, labels, groups, draw)
    names = np.array([f"r{i:04d}" for i in range(design.rows)])
    owners = None if groups is None else np.array([f"g{g:02d}" for g in groups])
    runs = []
    for candidate in range(candidates):
        own = features[:, draw.choice(FEATURES, USED, replace=False)]
        for fold in range(design.folds):
            test = np.flatnonzero(fold_of == fold)
            logits = centroid_logits(own, labels, fold_of != fold, test)
            split = {"repeat": 0, "fold": fold, "folds": design.folds, "n_train": design.rows - len(test), "n_test": len(test)}
            record = {"candidate": {"name": f"net {candidate}"}, "seed": 0, "split": split, "classes": ["a", "b"], "cost": {}}
            sheet = Predictions(names[test], labels[test], logits, None if owners is None else owners[test])
            runs.append(MemoryRun(f"{candidate}-{fold}", record | {"metrics": {}}, sheet))
    return runs


def assign_folds(design: NoiseDesign, labels: Any, groups: Any, draw: np.random.Generator) -> Any:
    """(rows,) the fold of each row: groups together, else stratified by class."""
    if groups is not None:
        return (draw.permutation(np.arange(design.groups)) % design.folds)[groups]
    fold_of = np.zeros(design.rows, dtype=np.int64)
    for label in (0, 1):
        members = draw.permutation(np.flatnonzero(labels == label))
        fold_of[members] = np.arange(len(members)) % design.folds
    return fold_of


def centroid_logits(features: Any, labels: Any, train: NDArray[np.bool_], test: Any) -> NDArray[np.float32]:
    """Two logits a row: a tenth of the squared distances to the classes' means, and the logarithm of their shares."""
    shares = np.maximum(np.bincount(labels[train], minlength=2), 0.5) / train.sum()
    centres = [
        features[train & (labels == k)].mean(axis=0) if (train & (labels == k)).any() else features.mean(0) for k in (0, 1)
    ]
    distances = ((features[test][:, None] - np.stack(centres)) ** 2).sum(axis=2)
    return (np.log(shares) - 0.1 * distances).astype(np.float32)


def conclude_noise(runs: list[MemoryRun], metric: str) -> tuple[bool, bool, bool]:
    """Whether the conclusion, and the leader's pairs on new rows and trained again, call somebody ahead."""
    kept = {r.key: r for r in runs}
    plan = [
        {"key": r.key, "candidate": r.record["candidate"]["name"], "seed": 0, "split": "s", "settings": {}, **r.record["split"]}
        for r in kept.values()
    ]
    study = {"study": {"protocol": "stratified-k-fold", "metrics": [metric]}, "plan": plan}
    store = cast(Store, MemoryStore(study, kept))
    summary = collect.collect_summary(store)
    found = compare_candidates(store, summary)
    words = " ".join(write_conclusion(summary, found)[0])
    on_rows = any(c.rows.verdict == "ahead" for c in found.leader_pairs)
    return bool(AHEAD.search(words)), on_rows, any(c.training.verdict == "ahead" for c in found.leader_pairs)


def noise_cells(studies: int, counts_of_candidates: Sequence[int]) -> Iterator[str]:
    """A row for each design and number of candidates: of 100 studies, by metric, conclusion / rows / training."""
    for candidates in counts_of_candidates:
        for design in DESIGNS:
            counts = {m: np.zeros(3) for m in METRICS}
            for number in range(studies):
                runs = draw_noise(design, number, candidates)
                for metric, total in counts.items():
                    total += conclude_noise(runs, metric)
            cells = [" / ".join(f"{v / studies * 100:.0f}" for v in counts[m]) for m in METRICS]
            yield f"| {design.name} | {candidates} | {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--candidates", type=int, nargs="*", default=COUNTS)
    given = parser.parse_args(arguments)
    vars(collect).update(DEFAULT_METRICS=("accuracy",), MAX_RANKED_CLASSES=0)  # only the ranking metric matters here
    print(f"| design | candidates | {' | '.join(METRICS)} |\n|---|---:|{'---:|' * len(METRICS)}")
    for line in noise_cells(given.studies, given.candidates):
        print(line, flush=True)


if __name__ == "__main__":
    main()
