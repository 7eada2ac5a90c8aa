"""The sentence for who acts on an answer: what is found at bearable false alarms, of how many people, how sure."""

from __future__ import annotations

import numpy as np

from phoropter.report.sections.clinical.positive_words import describe_false_alarms, name_negative, name_positive
from phoropter.report.summary.clinical.model import ClinicalResults
from phoropter.report.summary.model import StudySummary
from phoropter.results.clinical.alarm_statistics import Estimate
from phoropter.results.intervals.interval_rules import ConfidenceInterval


def clinical_sentences(summary: StudySummary, clinical: ClinicalResults, candidate: str) -> list[str]:
    """`At one false alarm in ten ‘healthy’ births, A finds 34 of 100 ‘acidosis’ births (95 % interval 24 to 45); …`

    Empty without a positive class, where no threshold could be chosen on rows that are not tested, and where these lack a class.
    """
    level = clinical.deciding
    point = None if level is None else level.find_candidate(candidate).find_point(clinical.goal)
    if level is None or point is None:
        return []
    found, units = point.statistics, level.word.plural
    if not np.isfinite([found.sensitivity.estimate, found.specificity.estimate]).all():
        return []
    positive, negative = name_positive(summary, clinical), name_negative(summary, clinical)
    reached = 1 - found.specificity.estimate
    bounds = Estimate(reached, 1 - found.specificity.high, 1 - found.specificity.low)
    sentences = [
        f"At {describe_false_alarms(clinical.spec.false_alarms)} {negative} {units}, {candidate} finds "
        f"{_of_hundred(found.sensitivity.estimate)} {positive} {units}{_bounds_text(found.sensitivity, '95 % interval ')}; "
        f"false alarms were in fact {_of_hundred(reached)}{_bounds_text(bounds)}."
    ]
    if (prevalence := clinical.spec.prevalence) is not None and np.isfinite((ppv := found.ppv_at(prevalence)).value):
        sentences.append(
            f"Where {prevalence * 100:.3g} % of {units} are {positive}, {_of_hundred(ppv.value)} alarms would be right"
            f"{_bounds_text(ppv)}."
        )
    return sentences


def _of_hundred(share: float) -> str:
    return f"{share * 100:.0f} of 100"


def _bounds_text(estimate: ConfidenceInterval | Estimate, before: str = "") -> str:
    if not np.isfinite([estimate.low, estimate.high]).all():
        return ""
    return f" ({before}{estimate.low * 100:.0f} to {estimate.high * 100:.0f})"
