"""What runs took together: a pass of a frozen backbone that many runs share is counted once, and an average not again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from phoropter.report.summary.model import CandidateResults, RunSummary, StudySummary

SHARED_PASSES = (
    "A frozen backbone sees each image once, in a pass that all runs share; training, prediction and images/s of a run include "
    "that pass over its own rows, as if it were alone, and totals count the pass once."
)


def sum_training_seconds(runs: Iterable[RunSummary]) -> float:
    """Seconds that training took: of each run without its share of passes, and of each pass once."""
    listed = list(runs)
    own = sum(own_training_seconds(r) for r in listed)
    passes: dict[str, Mapping[str, Any]] = {}
    for run in listed:
        passes |= run.record.get("feature_passes") or {}
    return own + sum(float(p.get("seconds") or 0.0) for p in passes.values())


def own_training_seconds(run: RunSummary) -> float:
    """Seconds of a run's training without its share of the passes of frozen backbones."""
    return _cost(run, "train_seconds") - _cost(run, "train_pass_seconds")


def sum_study_seconds(summary: StudySummary) -> float:
    """Seconds of training and prediction of a study.

    An average of finished runs adds nothing to its members but the fits by which it chose among them.
    """
    runs = [r for c in summary.candidates for r in c.runs if not (r.record.get("digests") or {}).get("members")]
    choice = sum(float((r.record.get("selection") or {}).get("seconds") or 0.0) for c in summary.candidates for r in c.runs)
    predicting = sum(_cost(r, "predict_seconds") - _cost(r, "predict_pass_seconds") for r in runs)
    return sum_training_seconds(runs) + predicting + choice


def shares_passes(candidates: Iterable[CandidateResults]) -> bool:
    """Whether the seconds of some candidate include passes of frozen backbones."""
    return any(_cost(r, "train_pass_seconds") + _cost(r, "predict_pass_seconds") > 0 for c in candidates for r in c.runs)


def describe_shown_size(summary: StudySummary) -> str:
    """At which sizes images are stored and shown to the networks, where these differ; else empty."""
    stored = (summary.study.get("dataset") or {}).get("size")
    shown: dict[int, list[str]] = {}
    for candidate in summary.candidates:
        for side in candidate.runs[0].record.get("shown_at") or ():
            names = shown.setdefault(int(side), [])
            names += [candidate.name] if candidate.name not in names else []
    shown.pop(int(stored or 0), None)
    if not stored or not shown:
        return ""
    parts = []
    for side, names in sorted(shown.items()):
        others = " and others" if len(names) > 3 else ""
        parts.append(f"shown at {side} to {', '.join(names[:3])}{others}")
    return f"Images are stored at {stored} pixels and {'; '.join(parts)}."


def _cost(run: RunSummary, name: str) -> float:
    return float(run.cost.get(name) or 0.0)
