"""What commands found → the documents that `--json` writes (json_shapes.py)."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import phoropter
from phoropter.commands.json_shapes import (
    BackbonesDocument,
    BackboneShape,
    CandidateState,
    ClassCounts,
    DoctorDocument,
    EstimateShape,
    FailedRun,
    FindingShape,
    GroupSizes,
    InputProblemShape,
    InspectDocument,
    LeaderboardColumn,
    PlannedCandidateShape,
    PlannedPart,
    PredictDocument,
    PredictedAnswer,
    ReportDocument,
    RunningRun,
    ShippedStudy,
    StatusDocument,
    StudiesDocument,
    StudyPartShape,
)
from phoropter.core.cpu_count import count_usable_cores
from phoropter.core.errors import InputProblem, StoreError
from phoropter.core.files import cache_dir
from phoropter.data.dataset import Dataset
from phoropter.data.inspect import DatasetSummary
from phoropter.data.leakage.audit import Finding
from phoropter.models import catalog
from phoropter.results.store import Store
from phoropter.study.cost import ResourceEstimate
from phoropter.study.forecasts.memory_forecast import estimate_peak_memory
from phoropter.study.plan import Plan
from phoropter.study.progress import count_run_states, describe_damaged_runs
from phoropter.study.spec import list_shipped_studies, read_study

_VERSION = {"phoropter": phoropter.__version__}


def describe_planned_part(
    planned: Plan, store: Store, cost: ResourceEstimate, findings: Iterable[Finding], refused: StoreError | None
) -> PlannedPart:
    """A plan, what is known of its cost and its leaks, and why `run` would refuse its folder."""
    study, dataset = planned.study, planned.image_sets[0].dataset
    candidates, counts = [], planned.count_runs(store)
    for candidate in planned.candidates:
        runs, done = counts[candidate.name]
        seconds = None if candidate.is_ensemble and not candidate.selects else cost.by_candidate.get(candidate.name, 0.0)
        candidates.append(PlannedCandidateShape(name=candidate.name, how=candidate.how, runs=runs, done=done, seconds=seconds))
    return PlannedPart(
        name=study.name,
        folder=str(store.folder),
        data=_count_classes(dataset),
        splits=len(planned.splits),
        runs=len(planned.runs),
        missing=len(planned.missing_runs(store)),
        candidates=tuple(candidates),
        estimate=EstimateShape(
            seconds=cost.seconds,
            hardware=cost.hardware,
            measured=cost.measured,
            feature_seconds=cost.feature_seconds,
            pixel_bytes=cost.pixel_bytes,
            feature_bytes=cost.feature_bytes,
            memory_bytes=estimate_peak_memory(planned),
        ),
        questions=tuple(f"{c.role}: {c.title}, by {c.metric}" for c in planned.contrasts),
        findings=tuple(FindingShape(kind=f.kind, severity=f.severity, words=f.words) for f in findings),
        notes=(*dataset.notes, *study.context.settled_defaults),
        smoke_changes=study.context.smoke_changes,
        refused=None if refused is None else str(refused),
    )


def _count_classes(dataset: Dataset) -> ClassCounts:
    groups, sites = (None if names is None else len(set(names.tolist())) for names in (dataset.groups, dataset.sites))
    counts = {name: int(count) for name, count in zip(dataset.classes, dataset.class_counts, strict=True)}
    return ClassCounts(name=dataset.name, rows=len(dataset), classes=counts, groups=groups, sites=sites)


def make_status_document(folder: Path, preparing: str | None, is_planned: bool) -> StatusDocument:
    """The state of a results folder. is_planned: whether its runs are listed yet"""
    common: dict[str, Any] = {**_VERSION, "folder": str(folder), "preparing": preparing}
    empty = {"study": None, "runs": 0, "done": 0, "candidates": (), "running": (), "failed": (), "notes": ()}
    if not is_planned:
        return StatusDocument(**common, **empty)
    store = Store(folder)
    states = ("done", "running", "failed", "missing")
    counts = count_run_states(store)
    notes, failures = store.read_progress_notes().values(), store.read_failures().values()
    running = [{key: note[key] for key in ("candidate", "split", "epoch", "epochs")} for note in notes]
    failed = [{key: str(note[key]) for key in ("candidate", "split", "error")} for note in failures]
    return StatusDocument(
        **common,
        study=store.study["name"],
        runs=len(store.planned_rows),
        done=sum(count["done"] for count in counts.values()),
        candidates=tuple(CandidateState(name=name, **{s: count[s] for s in states}) for name, count in counts.items()),
        running=tuple(RunningRun(**each) for each in running),
        failed=tuple(FailedRun(**each) for each in failed),
        notes=tuple(describe_damaged_runs(store)),
    )


def make_inspect_document(source: str, summary: DatasetSummary) -> InspectDocument:
    """The summary of a dataset. source: the key under `data:` that reads it"""
    keys = ("name", "rows", "unlabelled", "classes", "parts", "sites", "sampled", "unreadable", "duplicates", "notes")
    groups = dict(zip(("count", "fewest", "median", "most"), summary.groups, strict=True)) if summary.groups else None
    return InspectDocument(
        **_VERSION,
        source=source,
        **{key: getattr(summary, key) for key in keys},
        groups=GroupSizes(**groups) if groups else None,
        sizes={f"{width}x{height}": count for (width, height), count in summary.sizes.items()},
        bytes=summary.byte_count,
        problems=_list_problems(summary.problems),
        recordings=tuple(make_plain(recording) for recording in summary.recordings),
    )


def _list_problems(problems: Iterable[InputProblem]) -> tuple[InputProblemShape, ...]:
    return tuple(InputProblemShape(where=problem.where, why=problem.what) for problem in problems)


def make_backbones_document(names: Iterable[str]) -> BackbonesDocument:
    """The catalogue's entries of some names."""
    entries = (catalog.find_architecture(name) for name in names)
    return BackbonesDocument(
        **_VERSION,
        backbones=tuple(
            BackboneShape(
                name=name,
                parameters=entry.parameters,
                multiply_adds=entry.estimate_macs(entry.side),
                side=entry.side,
                width=entry.num_features,
                weights=entry.tags,
            )
            for name, entry in zip(names, entries, strict=True)
        ),
    )


def make_studies_document() -> StudiesDocument:
    """The shipped studies."""
    studies = []
    for name in list_shipped_studies():
        parts = read_study(name)
        about = parts[0].about
        words = {key: "" if about is None else getattr(about, key) for key in ("source", "expect", "time", "data")}
        shapes = tuple(StudyPartShape(name=p.name, candidates=tuple(c.name for c in p.parsed_candidates)) for p in parts)
        studies.append(ShippedStudy(name=name, **words, parts=shapes))
    return StudiesDocument(**_VERSION, studies=tuple(studies))


def make_doctor_document(installation: dict[str, str], devices: tuple[str, ...]) -> DoctorDocument:
    """The installation: its versions, what it can compute on, and where it keeps things."""
    notes = {name: words for name, words in installation.items() if " " in name}
    versions = {name: words for name, words in installation.items() if name not in notes}
    return DoctorDocument(
        **_VERSION,
        versions={"python": platform.python_version(), **versions},
        devices=devices,
        cores=count_usable_cores(),
        cache=str(cache_dir()),
        weights_folder=os.environ.get("PHOROPTER_WEIGHTS"),
        notes=notes,
    )


def make_predict_document(bundle: Path, predictions: Any, files: Iterable[Path]) -> PredictDocument:
    """The answers of a bundle. predictions: a BundlePredictions"""
    dataset, classes = predictions.dataset, predictions.classes
    decided = predictions.decide_rows() or [None] * len(dataset)
    rows = []
    for row, (p, decision) in enumerate(zip(predictions.probabilities, decided, strict=True)):
        more: dict[str, Any] = {}
        if dataset.recordings is not None and dataset.spans is not None:
            start, stop = dataset.spans[row].tolist()
            more = {"recording": str(dataset.recordings[row]), "start_s": start, "stop_s": stop}
        if (label := dataset.describe_label(row)) is not None:
            more["label"] = label
        rows.append(_make_answer(str(dataset.ids[row]), predictions, p, decision, **more))
    means, recordings = predictions.average_by_recording(), []
    if means is not None:
        for (name, count, p), decision in zip(
            zip(*means, strict=True), predictions.decide_recordings() or [None] * len(means.names), strict=True
        ):
            recordings.append(_make_answer(name, predictions, p, decision, windows=int(count)))
    return PredictDocument(
        **_VERSION,
        bundle=str(bundle),
        classes=classes,
        rows=tuple(rows),
        recordings=tuple(recordings),
        left_out=_list_problems(predictions.problems),
        notes=predictions.notes,
        files=tuple(map(str, files)),
    )


def _make_answer(name: str, predictions: Any, p: Any, decision: str | None, **more: Any) -> PredictedAnswer:
    from phoropter.deploy.decision import name_answer

    classes = predictions.classes
    answer = name_answer(p, classes, predictions.multi_label)
    probabilities = {each: min(1.0, max(0.0, float(value))) for each, value in zip(classes, p, strict=True)}
    return PredictedAnswer(id=name, answer=answer, decision=decision, probabilities=probabilities, **more)


def make_report_document(report: Any) -> ReportDocument:
    """A report that was written. report: a WrittenReport"""
    board = report.leaderboard
    return ReportDocument(
        **_VERSION,
        page=str(report.page),
        conclusion=report.conclusion,
        columns=tuple(LeaderboardColumn(name=c.name, kind=c.kind, unit=c.unit_text) for c in board.columns),
        leaderboard=tuple(tuple(make_plain(value) for value in row.values) for row in board.rows),
    )


def make_plain(value: Any) -> Any:
    """A value as JSON has it: a named tuple as an object, a set as a sorted list; NaN and infinity are no value."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: make_plain(each) for key, each in value._asdict().items()}
    if isinstance(value, dict):
        return {str(key): make_plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [make_plain(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
