"""Why a candidate counts as not trained to the end: what most of its runs recorded; fusions that learnt less than a part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from phoropter.report.summary.model import CandidateResults, finite_mean

MEMBER_MARGIN = 0.05  # of training accuracy by which a fusion may stay below its best member


def find_not_converged(candidate: CandidateResults, candidates: Sequence[CandidateResults]) -> str | None:
    """Why the candidate was not trained to the end, in words that follow its name; None where nothing speaks for that.

    candidates: all of the study, among which the members of a fusion are found: single networks with one of its backbones, frozen
    or trained as it is. Runs without a record of their convergence speak for nothing.
    """
    reasons = Counter(reason for run in candidate.runs if (reason := _recorded(run.record).get("not_converged")))
    count = sum(reasons.values())
    if count and 2 * count >= len(candidate.runs):
        where = "" if count == len(candidate.runs) else f" in {count} of {len(candidate.runs)} runs"
        return f"{reasons.most_common(1)[0][0]}{where}"
    return _compare_with_members(candidate, candidates)


def _recorded(record: dict[str, Any]) -> dict[str, Any]:
    return dict(record.get("convergence") or {})


def mean_train_accuracy(candidate: CandidateResults) -> float:
    """Mean over runs of the recorded accuracy of the trained network on training rows; NaN where none recorded it."""
    return finite_mean(np.array([_recorded(run.record).get("train_accuracy", np.nan) for run in candidate.runs], dtype=float))


def _compare_with_members(candidate: CandidateResults, candidates: Sequence[CandidateResults]) -> str | None:
    written = _written(candidate)
    if not written.get("fusion") or candidate.runs[0].record.get("logistic"):  # a solved head is where it can be
        return None
    parts = [_name_backbone(b) for b in written["backbones"]]
    accuracies = {c.name: mean_train_accuracy(c) for c in candidates if _is_member(_written(c), parts, bool(written["frozen"]))}
    best = max(accuracies, key=lambda name: accuracies[name], default=None)
    if best is None or not mean_train_accuracy(candidate) < accuracies[best] - MEMBER_MARGIN:
        return None
    return f"on the training rows it is less accurate than '{best}', a part of it"


def _written(candidate: CandidateResults) -> dict[str, Any]:
    return dict(candidate.runs[0].record.get("candidate") or {}) if candidate.runs else {}


def _name_backbone(backbone: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(backbone.get(key) for key in ("name", "weights", "size", "seed"))


def _is_member(written: dict[str, Any], parts: list[tuple[Any, ...]], frozen: bool) -> bool:
    if not written.get("backbones") or written.get("fusion") or written.get("distillation"):
        return False
    return bool(written.get("frozen")) == frozen and _name_backbone(written["backbones"][0]) in parts
