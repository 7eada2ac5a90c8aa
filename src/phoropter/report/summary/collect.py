"""A results folder → StudySummary. Each predictions file is read once, one candidate at a time, or two by two processes.

Before that, the labels of every split are counted, because they decide what each metric estimates in this study
(results/stats/estimand.py). The few candidates whose curves are drawn are read a second time (curves.py), which costs less than
ranking the scores of all candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from phoropter.core.errors import StoreError
from phoropter.core.processes.side_by_side import call_side_by_side
from phoropter.report.summary.candidate_reader import CandidateReader, ReadProgress, read_checked_predictions
from phoropter.report.summary.convergence import find_not_converged
from phoropter.report.summary.majority_class import read_baseline
from phoropter.report.summary.model import UNSEEN, CandidateResults, Ints, StudySummary
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import METRICS, list_metrics, metric_names, register_stored_metric
from phoropter.results.metrics.sufficient_sums import count_answers, count_rows
from phoropter.results.stats.estimand import Estimand, choose_estimand
from phoropter.results.stats.pairs.unit_contributions import ContributionReader, UnitContributions
from phoropter.results.store import Run, Store

DEFAULT_METRICS = ("accuracy", "macro_f1", "log_loss", "brier", "ece")
LABEL_METRICS = ("average_precision", "macro_f1", "micro_f1", "micro_roc_auc", "hamming_loss", "log_loss", "brier", "ece")
# The area under the ROC curve sorts once per class and run: with more classes or scores, it is computed only on request.
MAX_RANKED_CLASSES, MAX_RANKED_SCORES = 20, 15_000_000
MIN_SHARED_ROWS = 200_000  # predictions from which a second process is worth its fork and the way back


def collect_summary(store: Store, progress: ReadProgress | None = None) -> StudySummary:
    """Reads a results folder, by two processes where that is safe and pays, and where no `progress` is told.

    Raises StoreError when it holds no finished run, or a run with unreadable files.
    """
    return _read_study(store, progress, contributing=False)[0]


def collect_with_contributions(
    store: Store, progress: ReadProgress | None = None
) -> tuple[StudySummary, dict[str, UnitContributions]]:
    """The same, and what the units of each candidate contribute to the ranking metric by its estimand, where it has derivatives:
    what pairs are compared by. Each file is read once for both.
    """
    return _read_study(store, progress, contributing=True)


def _read_study(
    store: Store, progress: ReadProgress | None, contributing: bool
) -> tuple[StudySummary, dict[str, UnitContributions]]:
    study = store.study
    for described in study.get("custom_metrics", ()):
        register_stored_metric(described)
    planned: dict[str, list[Mapping[str, Any]]] = {}
    for item in study["plan"]:
        planned.setdefault(str(item["candidate"]), []).append(item)
    runs = [(name, store.run(str(i["key"]))) for name, items in planned.items() for i in items if str(i["key"]) in store]
    if not runs:
        raise _no_runs_error(store)
    classes = tuple(map(str, runs[0][1].record["classes"]))
    supports = _count_labels([run for _, run in runs], len(classes))
    of_candidate = {name: [run for owner, run in runs if owner == name] for name in planned}
    most = max(of_candidate.values(), key=len)
    estimands = _choose_estimands(_choose_metrics(study, len(classes)), supports)
    reader = CandidateReader(estimands, classes, len(runs), progress)
    ranked = estimands[reader.metrics[0]]
    if contributing and not METRICS[ranked.metric].unavailable:
        reader.contributions = ContributionReader(ranked.metric, ranked.kind == "pooled")
    baseline = read_baseline(reader, most, [supports[_split_name(run)] for run in most])
    tasks = [
        partial(reader.read_candidate, name, len(planned[name]), dict(planned[name][0].get("settings") or {}), finished)
        for name, finished in of_candidate.items()
        if finished
    ]
    # The baseline has numbered all units where its runs have all splits: the numbers do not depend on who reads what then.
    shares = progress is None and len(most) == len(supports) and _count_rows(runs, supports) >= MIN_SHARED_ROWS
    read = call_side_by_side(tasks) if shares else [task() for task in tasks]
    candidates = _rank_candidates([candidate for candidate, _ in read], METRICS[ranked.metric])
    summary = StudySummary(
        store.folder,
        study,
        candidates,
        reader.metrics,
        classes,
        reader.grouped,
        len(reader.known.seen),
        store.read_failures(),
        [name for name, finished in of_candidate.items() if not finished],
        estimands,
        baseline,
    )
    return summary, {candidate.name: of_units for candidate, of_units in read if of_units is not None}


def _rank_candidates(candidates: list[CandidateResults], ranking: MetricRecord) -> list[CandidateResults]:
    """The best first, incomplete ones last. Says which are not trained to the end, as the others show."""
    for candidate in candidates:
        candidate.not_converged = find_not_converged(candidate, candidates)
    return sorted(
        candidates,
        key=lambda c: (not c.is_complete, _leaderboard_key(c.metric_mean(ranking.name), ranking.higher_is_better), c.name),
    )


def _no_runs_error(store: Store) -> StoreError:
    failures = list(store.read_failures().values())
    failed = f" ({len(failures)} failed, the first with: {failures[0]['error']})" if failures else ""
    return StoreError(
        f"{store.folder} holds no finished run of its plan of {len(store.study['plan'])}{failed}: run the study, then report"
    )


def _split_name(run: Run) -> tuple[int, int, str]:
    """Seed, repeat and key of the split."""
    split = run.record["split"]
    return int(run.record["seed"]), int(split["repeat"]), f"{split['fold']} {split.get('key', '')}"


def _count_labels(runs: Sequence[Run], n_classes: int) -> dict[tuple[int, int, str], Ints]:
    """Split → `count_answers` of its test part. Raises StoreError where the first run of a split cannot be read."""
    found: dict[tuple[int, int, str], Ints] = {}
    for run in runs:
        name = _split_name(run)
        if name not in found:
            predictions = read_checked_predictions(run, n_classes)
            found[name] = count_answers(predictions.labels, n_classes)
    return found


def _count_rows(runs: Sequence[tuple[str, Run]], supports: Mapping[tuple[int, int, str], Ints]) -> int:
    """Predictions of all runs."""
    return sum(count_rows(supports[_split_name(run)]) for _, run in runs)


def _choose_estimands(metrics: Sequence[str], supports: Mapping[tuple[int, int, str], Ints]) -> dict[str, Estimand]:
    rounds = {name[:2] for name in supports}
    return {name: choose_estimand(name, list(supports.values()), len(rounds)) for name in metrics}


def _leaderboard_key(value: float, higher_is_better: bool) -> float:
    return float("inf") if not np.isfinite(value) else -value if higher_is_better else value


def _choose_metrics(study: Mapping[str, Any], classes: int) -> tuple[str, ...]:
    requested = metric_names((study.get("study") or {}).get("metrics") or ())
    scores = classes * sum(int(item.get("n_test") or 0) for item in study["plan"])
    ranked = ("roc_auc",) if classes <= MAX_RANKED_CLASSES and scores <= MAX_RANKED_SCORES else ()
    published = {} if study.get("scale") else ((study.get("study") or {}).get("about") or {}).get("published") or {}
    # so that each published figure has ours beside it
    beside = [str(m).removeprefix(UNSEEN) for c in published for m in published[c]]
    chosen = [*requested, *DEFAULT_METRICS[:2], *ranked, *DEFAULT_METRICS[2:], *beside]
    if (study.get("dataset") or {}).get("task") == "multi-label":
        known = list_metrics(multi_label=True)
        chosen = [name for name in [*requested, *ranked, *LABEL_METRICS, *beside] if name in known]
    return tuple(m for m in dict.fromkeys(chosen) if m in METRICS)
