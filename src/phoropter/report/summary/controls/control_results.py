"""The negative controls of a study: each is a results folder, whose figures are computed as those of any study."""

from __future__ import annotations

from dataclasses import dataclass

from phoropter.core.errors import StoreError
from phoropter.data.controls.control_kinds import NEW_PICTURES, SHORTCUTS
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import infer_design
from phoropter.report.summary.guessing import find_uninformed
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.control_folder import open_controls
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.positive_class import open_results
from phoropter.results.store import Store


@dataclass(frozen=True)
class ControlResult:
    """One negative control.

    kind:      as the study names it · candidate: whose control it is · n_classes: that were told apart
    metric, interval: its figure; None where nothing of it is known, and `problem` says why
    guessing:  the value without information for its answers; None where it is unknown
    is_above:  whether it is clearly better than guessing, by the rule that candidates of a study are held to
    own_value: of the candidate in the study itself, by the same metric; None where that is another question
    notes:     what is recorded of its rows and not of those of the study, in sentences; none of pictures that it made itself
    n_runs, n_planned: finished runs, and all · problem: why it is not complete, in words; empty where it is
    """

    kind: str
    candidate: str
    n_classes: int
    metric: MetricRecord | None
    interval: ConfidenceInterval | None
    guessing: float | None
    is_above: bool
    own_value: float | None
    n_runs: int
    n_planned: int
    problem: str = ""
    notes: tuple[str, ...] = ()


def collect_controls(store: Store, summary: StudySummary) -> tuple[ControlResult, ...]:
    """The controls that a study asks for, in its order; empty where it asks for none."""
    kinds = tuple(map(str, (summary.study_config.get("controls") or {}).get("kinds") or ()))
    begun = open_controls(store, kinds)
    return tuple(_read_control(kind, begun.get(kind), summary) for kind in kinds)


def _read_control(kind: str, store: Store | None, summary: StudySummary) -> ControlResult:
    if store is None:
        return _missing(kind, "it has not been run: run the study again")
    try:
        own = collect_summary(open_results(store.folder))
    except StoreError as error:
        return _missing(kind, str(error))
    failed = next(iter(own.failures.values()), None)
    problem = f"a run failed: {failed['error']}" if failed else "runs are missing"
    candidate = _find_controlled(own)
    if candidate is None:
        return _missing(kind, problem)
    metric = own.ranking_metric
    interval = None if candidate.replicates is None else candidate.replicates.confidence_interval(0.95)
    above = bool(candidate.replicates and candidate.no_information) and candidate not in find_uninformed(own, infer_design(own))
    return ControlResult(
        kind,
        candidate.name,
        len(own.classes),
        metric,
        interval,
        None if candidate.no_information is None else candidate.no_information.value,
        above,
        None if kind in SHORTCUTS else _find_own_value(summary, candidate.name, metric.name),
        len(candidate.runs),
        candidate.n_planned,
        problem if failed or not candidate.is_complete else "",
        () if kind in NEW_PICTURES else tuple(note for note in _list_notes(own) if note not in _list_notes(summary)),
    )


def _list_notes(summary: StudySummary) -> list[str]:
    """What is recorded of the rows of a study."""
    return list(map(str, (summary.study.get("dataset") or {}).get("notes") or ()))


def _missing(kind: str, problem: str) -> ControlResult:
    return ControlResult(kind, "", 0, None, None, None, False, None, 0, 0, problem)


def _find_controlled(summary: StudySummary) -> CandidateResults | None:
    """The candidate planned last, after its members or its teacher; None where none of its runs is finished."""
    last = str(summary.study["plan"][-1]["candidate"])
    return next((c for c in summary.candidates if c.name == last), None)


def _find_own_value(summary: StudySummary, name: str, metric: str) -> float | None:
    """Of the candidate of that name; a sweep may have lengthened it, and then its best is taken."""
    values = [c.values[metric] for c in summary.candidates if name in (c.name, c.base_name) and metric in c.values]
    return values[0] if values else None
