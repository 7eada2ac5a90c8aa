"""A results folder → ClinicalResults, from a second reading of its predictions, one candidate at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from phoropter.core.language.unit_words import GROUP, PICTURE, RECORDING, UnitWord
from phoropter.core.spec import SourceMap, validate_as
from phoropter.report.summary.candidate_reader import SharedBootstrap
from phoropter.report.summary.clinical.model import NO_CLINICAL_RESULTS, CandidateAtLevel, ClinicalResults, LevelResults
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.clinical.aggregation import describe_rule
from phoropter.results.clinical.decision_curves import compute_decision_curve, mean_precision_by_recall
from phoropter.results.clinical.levels import Aggregation, LevelName, find_levels
from phoropter.results.clinical.operating_points import GOALS, CrossFitting, Goal, OperatingPoint, ScoredRows
from phoropter.results.clinical.spec import ClinicalSpec
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.estimand import Estimand, choose_estimand, compute_values
from phoropter.results.stats.held_out_rows import HeldOutRows, Round, join_answers
from phoropter.results.store import Predictions, Store

WINDOW = UnitWord("window", "windows")


def collect_clinical_results(store: Store, summary: StudySummary) -> ClinicalResults:
    """Nothing where the study has neither a positive class nor recordings or people with several rows."""
    if summary.is_multi_label:
        return NO_CLINICAL_RESULTS
    positive, stated = find_positive_column(summary)
    most = max(summary.candidates, key=lambda c: len(c.runs))
    parts = _load_parts(store, most)
    levels, missing = find_levels(parts)
    if positive is None:
        levels = levels[1:]
    config = summary.study_config
    spec, rule = read_clinical_spec(summary), str(config.get("aggregate") or "mean")
    if not levels:
        return ClinicalResults(missing=missing) if missing else NO_CLINICAL_RESULTS
    results = ClinicalResults((), missing, positive, stated, spec)
    readers = [_LevelReader(store, Aggregation(level, rule, positive), results.goal) for level in levels]
    for reader in readers:
        reader.choose_estimands(summary, parts, [line.split[:2] for line in most.runs])
    found: dict[str, list[CandidateAtLevel]] = {level: [] for level in levels}
    for candidate in summary.candidates:
        loaded = parts if candidate is most else _load_parts(store, candidate)
        for reader in readers:
            found[reader.aggregation.level].append(reader.read_candidate(candidate, loaded))
    words = name_levels(summary, parts)
    described = [
        LevelResults(
            reader.aggregation.level,
            words[reader.aggregation.level],
            describe_rule(rule),
            reader.estimands,
            reader.supports,
            tuple(found[reader.aggregation.level]),
        )
        for reader in readers
    ]
    return ClinicalResults(tuple(described), missing, positive, stated, spec)


def read_clinical_spec(summary: StudySummary) -> ClinicalSpec:
    """As the study states it. Raises SpecError for a study.json that was changed into something else."""
    source = SourceMap(str(summary.folder / "study.json"))
    return validate_as(ClinicalSpec, summary.study_config.get("clinical") or {}, source, ("study", "clinical"))


def find_positive_column(summary: StudySummary) -> tuple[int | None, bool]:
    """The column of the positive class, and whether the study names it; of two classes without a name the last."""
    name = (summary.study.get("dataset") or {}).get("positive")
    if name in summary.classes:
        return summary.classes.index(str(name)), True
    return (1, False) if len(summary.classes) == 2 else (None, False)


def _load_parts(store: Store, candidate: CandidateResults) -> list[Predictions]:
    found = [store.run(line.key).load_predictions() for line in candidate.runs]
    return [part for part in found if part is not None]


def name_levels(summary: StudySummary, parts: Sequence[Predictions]) -> dict[LevelName, UnitWord]:
    """Where every group has one row, a row is called by the word of the groups that the data have: births, and not windows."""
    row = PICTURE if parts[0].spans is None else WINDOW
    alone = all(p.groups is not None and len(np.unique(p.groups)) == len(p.ids) for p in parts)
    if alone and summary.group_word != GROUP:
        row = summary.group_word
    return {"row": row, "recording": RECORDING, "group": summary.group_word}


@dataclass(eq=False)
class _LevelReader:
    """Reads the candidates of a study at one level. goal: of the study"""

    store: Store
    aggregation: Aggregation
    goal: Goal
    estimands: Mapping[str, Estimand] = field(default_factory=dict)
    supports: tuple[int, ...] = ()
    _resamples: SharedBootstrap = field(default_factory=SharedBootstrap)

    def choose_estimands(self, summary: StudySummary, parts: Sequence[Predictions], rounds: Sequence[Round]) -> None:
        """From the labels of every split at this level, as for the rows."""
        n_classes = len(summary.classes)
        supports = [np.bincount(self.aggregation.labels_of(part), minlength=n_classes) for part in parts]
        n_rounds = len(set(rounds))
        names = [name for name in summary.metrics if not METRICS[name].unavailable]
        self.estimands = {name: choose_estimand(name, supports, n_rounds) for name in names}
        self.supports = tuple(np.rint(np.sum(supports, axis=0) / n_rounds).astype(int).tolist())

    def read_candidate(self, candidate: CandidateResults, parts: Sequence[Predictions]) -> CandidateAtLevel:
        rounds = [line.split[:2] for line in candidate.runs]
        rows, _ = join_answers([self.aggregation.apply_to(part) for part in parts], rounds)
        values: dict[str, float] = {}
        interval = None
        if self.aggregation.level != "row":  # the leaderboard has those
            values, interval = compute_values(list(self.estimands.values()), rows), self._estimate_interval(rows)
        if self.aggregation.positive is None:
            return CandidateAtLevel(candidate.name, values, interval)
        column = self.aggregation.positive
        return CandidateAtLevel(
            candidate.name,
            values,
            interval,
            tuple(self._judge_points(rows, candidate, rounds)),
            mean_precision_by_recall(rows, column),
            compute_decision_curve(rows, column),
        )

    def _estimate_interval(self, rows: HeldOutRows) -> ConfidenceInterval | None:
        """Of the ranking metric, with the same resamples for all candidates that were tested on the same rows."""
        first = next(iter(self.estimands.values()), None)
        if first is None:
            return None
        bootstrap = self._resamples.find_or_make(first, rows, len(rows.units))
        return bootstrap.compute_replicates(first.metric, rows.probabilities).confidence_interval()

    def _judge_points(self, rows: HeldOutRows, candidate: CandidateResults, rounds: Sequence[Round]) -> list[OperatingPoint]:
        column = self.aggregation.positive
        assert column is not None
        goals: list[Goal | None] = [None, *dict.fromkeys([self.goal, *GOALS])]
        alone = len(set(rounds)) == len(rounds)  # each round has one split, whose threshold comes from inner validation rows
        validation = self._score_validation(candidate, column) if alone else {}
        fitting = CrossFitting(rows, column, validation)
        return [point for goal in goals if (point := fitting.judge_goal(goal)) is not None]

    def _score_validation(self, candidate: CandidateResults, column: int) -> dict[int, ScoredRows]:
        found = {}
        for number, line in enumerate(candidate.runs):
            inner = self.store.run(line.key).load_predictions("validation")
            if inner is not None and len(inner.labels):
                answers = self.aggregation.apply_to(inner)
                found[number] = ScoredRows.from_probabilities(answers.labels, answers.probabilities, column)
        return found
