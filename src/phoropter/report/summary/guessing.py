"""Which candidates are not clearly better than a predictor without information."""

from __future__ import annotations

import numpy as np

from phoropter.report.summary.model import CandidateResults, StudySummary
from phoropter.results.stats.compare import Design


def find_uninformed(summary: StudySummary, design: Design) -> list[CandidateResults]:
    """Those whose interval does not clear the value without information; none where this value is unknown.

    The leader was selected among all candidates, so bounds are taken at a level corrected for all of them (Bonferroni).
    Resampling rows ignores that models of different folds share training rows, which makes the interval too narrow for labels
    that are noise. Over splits the distance to the bound is therefore widened by the factor by which the correction of Nadeau &
    Bengio (2003) raises the standard error of the mean over k folds: variance 1/k becomes 1/k + 1/(k-1).
    docs/statistics.md reports how often noise still passes.
    """
    ratio = 0.0 if np.isnan(design.test_to_train) else design.test_to_train
    widening = 1.0 if design.kind == "one test set" else float(np.sqrt(2 + ratio))
    level, found = 1 - (1 - design.level) / len(summary.candidates), []
    for candidate in summary.candidates:
        if candidate.replicates is None or candidate.no_information is None:
            continue
        interval, value = candidate.replicates.confidence_interval(level), candidate.no_information.value
        if summary.ranking_metric.higher_is_better:
            informed = interval.estimate - widening * (interval.estimate - interval.low) > value
        else:
            informed = interval.estimate + widening * (interval.high - interval.estimate) < value
        found += [] if informed else [candidate]
    return found
