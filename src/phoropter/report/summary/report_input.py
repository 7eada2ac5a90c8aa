"""Input of every section of the page."""

from __future__ import annotations

from dataclasses import dataclass

from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.model import StudySummary
from phoropter.results.store import Store


@dataclass(frozen=True, eq=False)
class ReportInput:
    """store: the results folder, for what the summary does not hold · summary: candidates, best first · comparisons: all pairs"""

    store: Store
    summary: StudySummary
    comparisons: CandidateComparisons
