"""Input of every section of the page."""

from __future__ import annotations

from dataclasses import dataclass

from phoropter.report.summary.clinical.model import NO_CLINICAL_RESULTS, ClinicalResults
from phoropter.report.summary.compare import CandidateComparisons
from phoropter.report.summary.controls.control_results import ControlResult
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.questions import NO_ANSWERS, QuestionAnswers
from phoropter.results.store import Store


@dataclass(frozen=True, eq=False)
class ReportInput:
    """store: the results folder, for what the summary does not hold · summary: candidates, best first · comparisons: all pairs
    answers: planned contrasts, main effects and the corrected value of the best candidate
    clinical: recordings and people, operating points · controls: negative controls, as the study asks for them
    """

    store: Store
    summary: StudySummary
    comparisons: CandidateComparisons
    answers: QuestionAnswers = NO_ANSWERS
    clinical: ClinicalResults = NO_CLINICAL_RESULTS
    controls: tuple[ControlResult, ...] = ()
