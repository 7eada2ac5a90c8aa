"""What a bundle says of a classifier made after its study: how, from which rows, and what the study knows of it (no torch)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from phoropter.core.spec import Spec


class StudyFigure(Spec):
    """The study's estimate of its ranking metric for a candidate, from rows that its models were not trained on.

    low, high: of the 95 % interval, in the units of the metric; None where there are too few units · method: of the interval
    """

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    method: str = ""


class StudyEvidence(Spec):
    """What a study measured of a candidate.

    study, candidate: their names · fingerprint: of the dataset · figure: the ranking metric with its interval
    metrics:  name → value by the estimand of the study; undefined ones are left out
    n_runs:   models evaluated · n_rows: held-out predictions of all of them
    """

    study: str
    candidate: str
    fingerprint: str
    figure: StudyFigure
    metrics: dict[str, float] = {}
    n_runs: int = Field(ge=1)
    n_rows: int = Field(ge=1)


class RefitRecord(Spec):
    """How a classifier was made after its study.

    how:              all: trained anew on all rows of the study
    n_rows:           rows it has met in training
    epochs:           candidate that was trained → epochs; empty where nothing was trained by epochs
    evidence:         the study's estimate: of its own models on held-out rows, not of this classifier, which has met all rows
    temperature:      the logits are divided by it before the softmax; fitted on the study's held-out predictions
    temperature_rows: how many those were
    threshold:        of the positive class's probability; None: the likeliest class is the answer
    positive_class:   of two classes, the second
    aggregation:      over the windows of a recording or a subject: the mean of their probabilities
    """

    how: Literal["all"] = "all"
    n_rows: int = Field(ge=1)
    epochs: dict[str, int] = {}
    evidence: StudyEvidence
    temperature: float = Field(gt=0)
    temperature_rows: int = Field(ge=1)
    threshold: None = None
    positive_class: str | None = None
    aggregation: Literal["mean-probability"] = "mean-probability"
