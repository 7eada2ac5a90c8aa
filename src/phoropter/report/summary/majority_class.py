"""The baseline that gives every row the frequencies of the classes, so that it always predicts the commonest one.

It is read as a candidate (candidate_reader.py): its runs are those of a candidate, with other answers. So it has the same
estimand, spread and interval; its log-loss and Brier score are those of the prevalence, which no other constant answer beats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from phoropter.report.summary.candidate_reader import CandidateReader
from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.metrics.registry import METRICS
from phoropter.results.metrics.sufficient_sums import Floats, Ints
from phoropter.results.store import Predictions, Run

BASELINE_NAME = "majority-class baseline"


@dataclass(frozen=True, eq=False)
class ConstantRun:
    """A run with the same answer to every row. frequencies: (C,) of the classes, sum 1, or of each of several labels."""

    run: Run
    frequencies: Floats

    @property
    def key(self) -> str:
        return self.run.key

    @property
    def folder(self) -> object:
        return self.run.folder

    @property
    def record(self) -> Mapping[str, Any]:
        """Without what the candidate is, cost and scored."""
        return {**self.run.record, "candidate": {}, "cost": {}, "metrics": {}}

    @property
    def history(self) -> list[dict[str, float | str]]:
        return []

    def load_predictions(self, part: str = "predictions") -> Predictions | None:
        """The rows of the run with the constant answer."""
        found = self.run.load_predictions(part)
        if found is None:
            return None
        with np.errstate(divide="ignore"):
            logits = np.log(self.frequencies).astype(np.float32)
            if found.is_multi_label:
                logits = (logits - np.log1p(-self.frequencies)).astype(np.float32)
        return replace(found, logits=np.tile(logits, (len(found.labels), 1)), features=None)


def read_baseline(reader: CandidateReader, runs: list[Run], supports: list[Ints]) -> CandidateResults:
    """runs: of the candidate with the most runs · supports: `count_answers` of the test part of each of them."""
    support = np.sum(supports, axis=0)
    frequencies = support / support.sum() if support.ndim == 1 else support[0] / np.maximum(support.sum(axis=0), 1)
    constant = [ConstantRun(run, frequencies) for run in runs]
    # a user's metric may not be meant for constant answers, and says itself what it is worth without information
    own = [name for name in reader.metrics if METRICS[name].direct_value is not None or METRICS[name].unavailable]
    baseline, _ = reader.restricted_to(m for m in reader.metrics if m not in own).read_candidate(
        BASELINE_NAME, len(runs), {}, constant
    )
    labels = np.repeat(np.arange(support.size), support.ravel())
    known = {name: METRICS[name].chance_value(labels) for name in own}
    baseline.values |= {name: float("nan") if value is None else value for name, value in known.items()}
    if reader.metrics[0] in own:
        baseline.replicates = baseline.no_information = None
    return baseline


def majority_class_scores(summary: StudySummary) -> dict[str, float]:
    """Metric → the value of the baseline, where it has one."""
    return {name: value for name, value in summary.baseline.values.items() if np.isfinite(value)}
