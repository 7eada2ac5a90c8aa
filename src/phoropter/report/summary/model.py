"""The results of a study in aggregated form: everything that a report is made of. `collect.py` fills it.

Of the predicted rows only counts (confusion, bins of confidence), values by group, bootstrap replicates and the few most
confident errors are kept. So 1,200 runs of 3,000 rows need no more memory than the runs of one candidate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.language.unit_words import GROUP, ROW, SITE, UnitWord, parse_unit_word
from phoropter.report.summary.unit_scores import UnitScores
from phoropter.results.clinical.calibration_line import CalibrationLine
from phoropter.results.intervals.bootstrap import BootstrapReplicates
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.calibration_error import CalibrationEstimate
from phoropter.results.stats.estimand import Estimand
from phoropter.results.stats.no_information import NoInformation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SplitName = tuple[int, int, int]  # seed, repeat, fold
UNSEEN = "unseen_"  # before the metric of a published figure: on sites that were never trained on


@dataclass(frozen=True, eq=False)
class RunSummary:
    """One finished run.

    test_rows_digest: of the ids of its test rows; runs with equal digests were tested on the same rows
    n_groups:         in its test rows, 0 where rows have none
    n_train:          training rows of the split, including the inner validation part
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
class ExampleAnswer:
    """One of the most confident answers, wrong or right. time_span: seconds in the recording."""

    run: str
    id: str
    true_class: int
    predicted_class: int
    confidence: float
    group: str | None
    time_span: tuple[float, float] | None


@dataclass(frozen=True)
class ExternalTest:
    """The ensemble of all models of a candidate on rows of external sites. site_scores: the ranking metric on each site."""

    n_rows: int
    n_models: int
    metrics: dict[str, float]
    interval: ConfidenceInterval
    site_scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TemperatureScaling:
    """Mean and standard deviation over runs of the fitted temperature, and the calibration of the held-out rows with it.

    positive: of two classes, the calibration of the positive class's probability
    """

    temperature: float
    temperature_std: float
    calibration: CalibrationEstimate
    positive: CalibrationEstimate | None


@dataclass(eq=False)
class CandidateResults:
    """One candidate of the study and the results of its runs.

    values:          metric → its value by the estimand of the study · spreads: metric → standard deviation over splits, NaN where
                     single splits cannot carry it
    within_splits:   of metrics whose pooled value ranks scores of different models together → the mean over the splits that can
                     carry it, their number, and that of all
    confusion:       (C, C) counts over all runs, row the true class; of several labels a row zeros, and no example answers
    calibration:     of the most likely class, or of the probabilities of all labels
    positive_calibration: of two classes, of the positive class's probability ·
                     calibration_line: slope and intercept, of two classes, with bounds
    group_scores:    the ranking metric by group · site_scores: by site
    mistakes:        the most confident wrong answers · right_answers: the most confident right ones, of several classes
    confused:        the most confident wrong answers of each frequent confusion, (true class, predicted class) → answers
    history:         column → (epochs,) of each run
    replicates:      bootstrap replicates of the ranking metric
    not_converged:   why it counts as not trained to the end, in words that follow its name (convergence.py)
    no_information:  value of the ranking metric without information, for the answers of this candidate
    """

    name: str
    n_planned: int
    settings: dict[str, Any]
    runs: list[RunSummary] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    spreads: dict[str, float] = field(default_factory=dict)
    within_splits: dict[str, tuple[float, int, int]] = field(default_factory=dict)
    confusion: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    calibration: CalibrationEstimate | None = None
    positive_calibration: CalibrationEstimate | None = None
    calibration_line: CalibrationLine | None = None
    group_scores: UnitScores = field(default_factory=UnitScores)
    site_scores: UnitScores = field(default_factory=UnitScores)
    mistakes: list[ExampleAnswer] = field(default_factory=list)
    right_answers: list[ExampleAnswer] = field(default_factory=list)
    confused: dict[tuple[int, int], list[ExampleAnswer]] = field(default_factory=dict)
    history: dict[str, list[Floats]] = field(default_factory=dict)
    replicates: BootstrapReplicates | None = None
    no_information: NoInformation | None = None
    external_test: ExternalTest | None = None
    not_converged: str | None = None

    @property
    def is_complete(self) -> bool:
        return len(self.runs) == self.n_planned

    @property
    def member_names(self) -> tuple[str, ...]:
        """Of an average, the candidates that it is made of, by their names without what a sweep adds."""
        described = (self.runs[0].record.get("candidate") or {}) if self.runs else {}
        return tuple(described.get("members") or ())

    @property
    def base_name(self) -> str:
        """The name without the suffix that a sweep adds."""
        return self.name.rpartition(" · ")[0] if self.settings else self.name

    @property
    def joins_networks(self) -> bool:
        """Whether it is a fusion, or an average of several candidates."""
        described = (self.runs[0].record.get("candidate") or {}) if self.runs else {}
        return max(len(described.get("backbones") or ()), len(self.member_names)) > 1

    @property
    def table_kind(self) -> str:
        """`baseline`, `features`, `imported` or `metadata` of a candidate without a network of pictures; empty of one with."""
        kinds = {"baseline": "baseline", "features": "features", "predictions": "imported", "metadata": "metadata"}
        return next((kind for key, kind in kinds.items() if self._written_table.get(key)), "")

    @property
    def reads_samples(self) -> bool:
        """Whether it is a network on the samples of windows, which counts as a baseline."""
        return self._written_table.get("baseline") == "signal-1d"

    @property
    def _written_table(self) -> dict[str, Any]:
        return (self.runs[0].record.get("candidate") or {}).get("table") or {} if self.runs else {}

    def metric_values(self, metric: str, external: bool = False) -> Floats:
        """(J,) the metric of each run, NaN where it is undefined."""
        return np.array([(r.external_metrics if external else r.metrics).get(metric, np.nan) for r in self.runs])

    def metric_mean(self, metric: str) -> float:
        """The value by the estimand of the study, averaged over its splits or rounds; NaN where it is undefined."""
        return self.values.get(metric, float("nan"))

    def median_cost(self, name: str) -> float:
        """Median over runs, because the first run of a process includes start-up costs; NaN if unknown."""
        known = [r.cost[name] for r in self.runs if r.cost.get(name) is not None]
        return float(np.median(known)) if known else float("nan")


@dataclass(frozen=True, eq=False)
class StudySummary:
    """A study and its candidates, best first; candidates with missing runs follow the complete ones.

    metrics:            the ranking metric first · estimands: what each of them estimates here, the same for all candidates
    baseline:           the frequencies of the classes as the answer to every row, so always the commonest class: scored as a
                        candidate, on the rows of the candidate with the most runs
    has_groups:         the unit of the intervals is the group instead of the row
    missing_candidates: those without a finished run
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
    estimands: Mapping[str, Estimand]
    baseline: CandidateResults

    @property
    def group_word(self) -> UnitWord:
        """What a group is called in sentences: person, birth, patient …"""
        return self._unit_word("group_word", GROUP)

    @property
    def site_word(self) -> UnitWord:
        """What a site is called: hospital, camera …"""
        return self._unit_word("site_word", SITE)

    @property
    def unit_word(self) -> UnitWord:
        """What the intervals take as independent: the group, else the row."""
        return self.group_word if self.has_groups else ROW

    def _unit_word(self, key: str, otherwise: UnitWord) -> UnitWord:
        written = (self.study.get("dataset") or {}).get(key)
        return otherwise if not written else parse_unit_word(str(written))

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have several labels, which are then the classes."""
        return (self.study.get("dataset") or {}).get("task") == "multi-label"

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
        """The study specification as it was written."""
        return dict(self.study.get("study") or {})

    @property
    def protocol_config(self) -> dict[str, Any]:
        """The protocol as written; a bare name becomes its split."""
        written = self.study_config.get("protocol") or {}
        return {"split": written} if isinstance(written, str) else dict(written)


def finite_mean(values: Floats) -> float:
    """Mean of the finite values; NaN if there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def finite_std(values: Floats) -> float:
    """Standard deviation of the finite values (ddof 1); NaN of fewer than two."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else float("nan")
