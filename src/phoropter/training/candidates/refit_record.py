"""What a bundle says of a classifier made after its study: how, from which rows, and what the study knows of it (no torch)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from phoropter.core.spec import Spec


class StudyFigure(Spec):
    """The study's estimate of its ranking metric for a candidate, from rows that its models were not trained on.

    value: None where it is not defined, as where the held-out rows lack a label
    low, high: of the 95 % interval, in the units of the metric; None where there are too few units · method: of the interval
    """

    metric: str
    value: float | None
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


class FoldModels(Spec):
    """Which of the study's own models an average is made of.

    kept:       models whose weights the study kept · retrained: those trained again from their run keys
    difference: the largest difference in probability, on their held-out rows, between models trained again and the study's
                predictions; 0 on the machine of the study; None where none was trained again
    """

    kept: int = Field(ge=0)
    retrained: int = Field(ge=0)
    difference: float | None = None


class RefitRecord(Spec):
    """How a classifier was made after its study.

    how:              all: trained anew on all rows of the study · folds: the average of the study's own models
    n_rows:           rows it has met in training
    n_models:         models whose probabilities are averaged; 1: it is one model
    epochs:           candidate that was trained → epochs; empty where nothing was trained by epochs
    fold_models:      of `folds`: where the models come from
    evidence:         the study's estimate: of its own models on held-out rows, not of this classifier, which has met all rows
    temperature:      the logits are divided by it before the softmax; fitted on the study's held-out predictions
    temperature_rows: how many those were
    threshold:        of the positive class's probability, from which it is the answer; None: the likeliest class is. Chosen from
                      all held-out predictions of the study's models, divided by the temperature, where the study names the class
    threshold_goal:   what it was chosen for, as in `90 % specificity`
    threshold_level:  whose answers it is for: `row`, of single pictures or windows; `recording`; `group`, of a subject with all
                      recordings · threshold_rows: how many of them it was chosen from
    positive_class:   that the study names; of two classes else the second
    aggregation:      over the windows of a recording or a subject: mean, vote, max or top-K, as the study's `aggregate`
    """

    how: Literal["all", "folds"] = "all"
    n_rows: int = Field(ge=0)
    n_models: int = Field(default=1, ge=1)
    epochs: dict[str, int] = {}
    fold_models: FoldModels | None = None
    evidence: StudyEvidence
    temperature: float = Field(gt=0)
    temperature_rows: int = Field(ge=1)
    threshold: float | None = None
    threshold_goal: str = ""
    threshold_level: Literal["row", "recording", "group"] = "row"
    threshold_rows: int = Field(default=0, ge=0)
    positive_class: str | None = None
    aggregation: str = "mean"

    @field_validator("aggregation")
    @classmethod
    def _read_former_name(cls, value: str) -> str:
        return "mean" if value == "mean-probability" else value
