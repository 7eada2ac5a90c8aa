"""What every section of the page is given."""

from __future__ import annotations

from dataclasses import dataclass

from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.model import StudySummary
from phoropter.results.store import Store


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What the sections are made of."""

    store: Store
    summary: StudySummary
    comparisons: CandidateComparisons
