"""The stored answers on corrupted test rows → curves: the ranking metric of each candidate at each level, and what it loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from phoropter.report.summary.candidate_reader import SharedBootstrap
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.positive_class import ReorderedRun, reorder_classes
from phoropter.results.run_folder import Predictions, Run
from phoropter.results.shift.answer_file import load_shift_answers
from phoropter.results.shift.corruption_kinds import KINDS, Corruption
from phoropter.results.shift.curves import ShiftLoss, measure_losses
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Store

MAX_CANDIDATES = 12  # whose answers are read: each level is resampled as often as the rows as they are


@dataclass(frozen=True)
class CandidateShift:
    """clean: the ranking metric of the rows as they are · losses: key of a corruption → what it loses, where all runs have
    answers · n_missing: runs that lack some answer
    """

    name: str
    clean: ConfidenceInterval
    losses: Mapping[str, ShiftLoss]
    n_missing: int = 0


@dataclass(frozen=True)
class ShiftResults:
    """corruptions: that the study asks for, by kind, from harmless to harmful · candidates: with answers, best first
    tables: names of candidates whose answers do not follow from the rows · n_left_out: candidates that were not read
    """

    corruptions: tuple[Corruption, ...]
    candidates: tuple[CandidateShift, ...]
    tables: tuple[str, ...]
    n_left_out: int

    @property
    def by_kind(self) -> dict[str, list[Corruption]]:
        """Kind → its corruptions, from harmless to harmful."""
        found: dict[str, list[Corruption]] = {}
        for corruption in self.corruptions:
            found.setdefault(corruption.kind, []).append(corruption)
        return found


def collect_shift_results(store: Store, summary: StudySummary) -> ShiftResults | None:
    """None for a study that asks for no corruption, and for a metric that cannot be computed here. Raises StoreError."""
    asked = _read_corruptions(summary.study)
    if not asked or summary.ranking_metric.unavailable:
        return None
    bootstrap = SharedBootstrap()
    read = summary.candidates[:MAX_CANDIDATES]
    found = [_measure_candidate(store, summary, candidate, asked, bootstrap) for candidate in read]
    without = [c.name for c in found if not c.losses]
    tables = [c.name for c in read if c.table_kind in ("features", "imported") and c.name in without]
    kept = tuple(c for c in found if c.name not in tables)
    return ShiftResults(asked, kept, tuple(tables), len(summary.candidates) - len(read))


def _read_corruptions(study: Mapping[str, Any]) -> tuple[Corruption, ...]:
    """As study.json names them, by kind, each from harmless to harmful; kinds that are not known here are left out."""
    written = [Corruption(**row) for row in study.get("shift") or () if row.get("kind") in KINDS]
    found: list[Corruption] = []
    for kind, record in KINDS.items():
        levels = record.order_levels({c.level for c in written if c.kind == kind})[0]
        found += [c for level in levels for c in written if (c.kind, c.level) == (kind, level)]
    return tuple(found)


def _measure_candidate(
    store: Store, summary: StudySummary, candidate: CandidateResults, asked: Sequence[Corruption], shared: SharedBootstrap
) -> CandidateShift:
    clean: list[Predictions] = []
    answers: list[dict[str, Predictions]] = []
    for line in candidate.runs:
        run = store.run(line.key)
        own, given = _read_answers(store, run)
        clean.append(own)
        answers.append(given)
    rounds = [line.split[:2] for line in candidate.runs]
    complete = [c.key for c in asked if all(c.key in given for given in answers)]
    estimand = summary.estimands[summary.metrics[0]]
    rows = HeldOutRows.from_predictions(clean, rounds)
    shifted = {key: HeldOutRows.from_predictions([given[key] for given in answers], rounds).probabilities for key in complete}
    bootstrap = shared.find_or_make(estimand, rows, summary.n_units)
    before, losses = measure_losses(estimand.metric, bootstrap, rows.probabilities, shifted)
    missing = sum(any(c.key not in given for c in asked) for given in answers)
    return CandidateShift(candidate.name, before, losses, missing)


def _read_answers(store: Store, run: Run) -> tuple[Predictions, dict[str, Predictions]]:
    """A run's predictions, and those at each corruption, with the classes in the order of the report."""
    stored = Predictions.load(run.folder / "predictions.npz")
    given = load_shift_answers(store.folder, run.key, stored.logits)
    answers = {key: replace(stored, logits=logits, features=None) for key, logits in given.items()}
    if isinstance(run, ReorderedRun):
        answers = {key: reorder_classes(found, run.order) for key, found in answers.items()}
        stored = reorder_classes(stored, run.order)
    return stored, answers
