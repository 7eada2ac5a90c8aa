"""A results folder with shares of the training part → each candidate's learning curve and what more data would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phoropter.core.language.unit_words import ROW, UnitWord
from phoropter.report.summary.candidate_reader import SharedBootstrap
from phoropter.report.summary.model import StudySummary
from phoropter.results.data_size.gain import DataGain, SizeCurve, estimate_gain
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.registry import METRICS, compute_metrics_checked
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities
from phoropter.results.stats.estimand import Estimand
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Run, Store


@dataclass(frozen=True, eq=False)
class CandidateCurve:
    """shares, rows: of each size · intervals: of the metric at each size · gain: from all there is to twice as much"""

    name: str
    shares: tuple[float, ...]
    rows: tuple[float, ...]
    curve: SizeCurve
    intervals: tuple[ConfidenceInterval, ...]
    gain: DataGain


@dataclass(frozen=True, eq=False)
class DataSizes:
    """unit: what sizes count · curves: of the complete candidates, best first · waiting: names of those with runs missing"""

    unit: UnitWord
    curves: tuple[CandidateCurve, ...]
    waiting: tuple[str, ...]


def read_data_sizes(store: Store, summary: StudySummary) -> DataSizes | None:
    """Every candidate with runs at shares of the training part; None where the study has none.

    Each predictions file is read once. Sizes of one candidate have the same resamples, since they test the same rows.
    """
    stated = summary.study.get("learning_curve")
    metric = summary.metrics[0]
    if not stated or METRICS[metric].unavailable:
        return None
    planned: dict[str, dict[float, list[str]]] = {}
    for row in summary.study.get("side_plan", ()):
        if row.get("role") == "learning-curve":
            planned.setdefault(str(row["candidate"]), {}).setdefault(float(row["share"]), []).append(str(row["key"]))
    shared, curves, waiting = SharedBootstrap(), [], []
    for candidate in summary.candidates:
        keys = {**planned.get(candidate.name, {}), 1.0: [line.key for line in candidate.runs]}
        if len(keys) == 1:
            continue
        if not candidate.is_complete or any(key not in store for of_share in keys.values() for key in of_share):
            waiting.append(candidate.name)
            continue
        shares = tuple(sorted(keys))
        sizes = [stated["sizes"][f"{share:g}"] for share in shares]
        groups = stated["of"] == "groups"
        runs = [[store.run(key) for key in keys[share]] for share in shares]
        curve, intervals = _read_curve(runs, [size[1 if groups else 0] for size in sizes], summary.estimands[metric], shared)
        rows = tuple(float(size[0]) for size in sizes)
        curves.append(CandidateCurve(candidate.name, shares, rows, curve, intervals, estimate_gain(curve)))
    unit = summary.group_word if stated["of"] == "groups" else ROW
    return DataSizes(unit, tuple(curves), tuple(waiting))


def _read_curve(
    runs: Sequence[Sequence[Run]], sizes: Sequence[float], estimand: Estimand, shared: SharedBootstrap
) -> tuple[SizeCurve, tuple[ConfidenceInterval, ...]]:
    found, of_splits = [], []
    for of_share in runs:
        rows = HeldOutRows.from_runs(of_share)
        bootstrap = shared.find_or_make(estimand, rows, len(rows.units))
        found.append(bootstrap.compute_replicates(estimand.metric, rows.probabilities))
        of_splits.append([_score_split(rows, number, estimand) for number in range(len(of_share))])
    numbers = {name: number for number, name in enumerate(dict.fromkeys(_name_round(run) for run in runs[0]))}
    parts = [run.record["split"] for run in runs[-1]]
    curve = SizeCurve(
        METRICS[estimand.metric],
        np.array(sizes, dtype=np.float64),
        np.array([each.estimate for each in found]),
        np.array([each.values for each in found]),
        found[-1].n_units,
        np.array(of_splits),
        np.array([numbers[_name_round(run)] for run in runs[0]]),
        float(np.mean([part["n_test"] / max(1, part["n_train"]) for part in parts])),
    )
    return curve, tuple(each.confidence_interval() for each in found)


def _score_split(rows: HeldOutRows, number: int, estimand: Estimand) -> float:
    """The metric of one split; NaN where single splits cannot carry it."""
    if not estimand.has_spread:
        return float("nan")
    inside = rows.splits == number
    labelled = LabelledProbabilities(rows.labels[inside], rows.probabilities[inside])
    return float(compute_metrics_checked([estimand.metric], labelled)[estimand.metric])


def _name_round(run: Run) -> tuple[int, int]:
    return int(run.record["seed"]), int(run.record["split"]["repeat"])
