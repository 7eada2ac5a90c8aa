"""What the runs of a study said, kept small: everything a report is made of. `reading.py` fills it.

Of the predicted rows only counts stay (confusion, groups, bins of confidence), the replicates of the bootstrap, and the few most
confident mistakes. So 1,200 runs of 3,000 rows need no more memory than the runs of one candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import METRICS
from phoropter.results.metrics.sufficient_sums import N_BINS
from phoropter.results.stats.bootstrap import BootstrapReplicates, ConfidenceInterval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SplitName = tuple[int, int, int]  # seed, repeat, fold


@dataclass(frozen=True, eq=False)
class RunSummary:
    """One finished run: which split, and its numbers.

    rows: a digest of the ids it was tested on, so that equal digests were tested on equal rows · groups: how many it met, 0 where
    rows have none · n_train: of the full split, the inner validation part included
    """

    key: str
    split: SplitName
    test_rows_digest: str
    n_groups: int
    n_train: int
    n_test: int
    metrics: dict[str, float]
    external_metrics: dict[str, float]
    cost: dict[str, float]
    record: dict[str, Any]


@dataclass(frozen=True)
class Mistake:
    """One wrong answer, as confident as few."""

    run: str
    id: str
    true_class: int
    predicted_class: int
    confidence: float
    group: str | None
    time_span: tuple[float, float] | None


@dataclass(frozen=True)
class ExternalTest:
    """All models of a candidate, averaged, on rows of sites none was trained on; `sites`: the first metric on each of them."""

    n_rows: int
    n_models: int
    metrics: dict[str, float]
    interval: ConfidenceInterval
    site_scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TemperatureScaling:
    """Mean and deviation over runs of the fitted temperature, and the mean calibration error it leaves on the held-out rows."""

    temperature: float
    temperature_std: float
    calibration_error: float


@dataclass(eq=False)
class GroupAccuracy:
    """Rows and right answers by name (of a group or a site)."""

    row_counts: dict[str, int] = field(default_factory=dict)
    correct_counts: dict[str, int] = field(default_factory=dict)

    def add_rows(self, names: Sequence[str], member: Ints, right: NDArray[np.bool_]) -> None:
        """names: each once · member (n,), right (n,): which name a row has, and whether its answer is right"""
        rows = np.bincount(member, minlength=len(names)).tolist()
        hits = np.bincount(member, weights=right, minlength=len(names)).astype(np.int64).tolist()
        for name, n, k in zip(names, rows, hits, strict=True):
            self.row_counts[name] = self.row_counts.get(name, 0) + n
            self.correct_counts[name] = self.correct_counts.get(name, 0) + k

    def accuracy_of(self, name: str) -> float:
        return self.correct_counts[name] / self.row_counts[name] if self.row_counts.get(name) else float("nan")


@dataclass(eq=False)
class CandidateResults:
    """One candidate of the study and what its runs said.

    confusion (C, C), row the true class · bins (BINS, 3): rows, summed confidence, right
    history: column → (epochs,) of each run
    """

    name: str
    n_planned: int
    settings: dict[str, Any]
    runs: list[RunSummary] = field(default_factory=list)
    confusion: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    confidence_bins: Floats = field(default_factory=lambda: np.zeros((N_BINS, 3)))
    group_accuracy: GroupAccuracy = field(default_factory=GroupAccuracy)
    site_accuracy: GroupAccuracy = field(default_factory=GroupAccuracy)
    mistakes: list[Mistake] = field(default_factory=list)
    history: dict[str, list[Floats]] = field(default_factory=dict)
    replicates: BootstrapReplicates | None = None
    external_test: ExternalTest | None = None

    @property
    def is_complete(self) -> bool:
        return len(self.runs) == self.n_planned

    @property
    def base_name(self) -> str:
        """Its name without the words of the sweep."""
        return self.name.rpartition(" · ")[0] if self.settings else self.name

    def metric_values(self, metric: str, external: bool = False) -> Floats:
        """(J,) of every run, NaN where undefined."""
        return np.array([(r.external_metrics if external else r.metrics).get(metric, np.nan) for r in self.runs])

    def metric_mean(self, metric: str) -> float:
        return finite_mean(self.metric_values(metric))

    def median_cost(self, name: str) -> float:
        """The median over runs: the first run of a process also pays for starting up."""
        known = [r.cost[name] for r in self.runs if r.cost.get(name) is not None]
        return float(np.median(known)) if known else float("nan")


@dataclass(frozen=True, eq=False)
class StudySummary:
    """A study and its candidates, best first; those with missing runs after the complete ones.

    metrics: first the one candidates are ranked by · grouped: the unit of the intervals is the group, not the row · absent:
    candidates without a finished run
    """

    folder: Path
    study: dict[str, Any]
    candidates: list[CandidateResults]
    metrics: tuple[str, ...]
    classes: tuple[str, ...]
    has_groups: bool
    n_units: int
    failures: dict[str, dict[str, Any]]
    missing_candidates: list[str]

    @property
    def ranking_metric(self) -> MetricRecord:
        return METRICS[self.metrics[0]]

    @property
    def n_finished(self) -> int:
        return sum(len(e.runs) for e in self.candidates)

    @property
    def n_planned(self) -> int:
        return len(self.study["plan"])

    @property
    def study_config(self) -> dict[str, Any]:
        """The study as its author wrote it."""
        return dict(self.study.get("study") or {})

    @property
    def protocol_config(self) -> dict[str, Any]:
        """The protocol; a bare name is its split."""
        written = self.study_config.get("protocol") or {}
        return {"split": written} if isinstance(written, str) else dict(written)


def finite_mean(values: Floats) -> float:
    """Over runs where the metric is defined; NaN where it never is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def finite_std(values: Floats) -> float:
    """ddof 1; NaN of fewer than two."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
