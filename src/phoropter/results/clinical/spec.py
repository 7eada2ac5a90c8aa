"""What a study says of the use that its classifier is meant for: how common the positive class is there, which false alarms are
bearable. Nothing of it changes a run."""

from __future__ import annotations

from pydantic import Field

from phoropter.core.spec import Spec
from phoropter.results.clinical.operating_points import Goal


class ClinicalSpec(Spec):
    """The use that a study has in mind; it needs a positive class. No run depends on it.

    prevalence:   share of the positive class where the classifier will be used; predictive values are given for it too
    false_alarms: share of the other class that may be alarmed: the operating point of the conclusion, and of the threshold of a
                  bundle
    """

    prevalence: float | None = Field(default=None, gt=0, lt=1)
    false_alarms: float = Field(default=0.1, gt=0, lt=1)

    @property
    def goal(self) -> Goal:
        """The operating point of the bearable false alarms."""
        return Goal("specificity", round(1 - self.false_alarms, 12))
