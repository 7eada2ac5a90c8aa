"""`about:` of a study: where it comes from, what its source claims, and the figures that the source published."""

from __future__ import annotations

from pydantic import Field, model_validator

from phoropter.core.spec import Spec


class PublishedFigure(Spec):
    """A published figure with its spread.

    value: as printed in the source · std: the standard deviation over runs that is printed behind it
    """

    value: float
    std: float = Field(gt=0)


class PublishedSample(Spec):
    """What published figures rest on, as far as the source says: an interval of theirs is derived from it and from nothing else.

    rows: tested rows behind every accuracy and top-5 accuracy
    runs: trained models behind every printed standard deviation
    folds: of the cross-validation of these models
    unseen_positives: rows of the positive class behind every figure of unseen sites
    unseen_negatives: the other rows behind it
    """

    rows: int | None = Field(default=None, ge=1)
    runs: int | None = Field(default=None, ge=2)
    folds: int | None = Field(default=None, ge=2)
    unseen_positives: int | None = Field(default=None, ge=1)
    unseen_negatives: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _check_pairs(self) -> PublishedSample:
        for one, other in (("runs", "folds"), ("unseen_positives", "unseen_negatives")):
            if (getattr(self, one) is None) != (getattr(self, other) is None):
                raise ValueError(f"'{one}' and '{other}' say one thing together; give both, or none")
        return self


class About(Spec):
    """Documentation of a shipped study: its source, expected results, duration, and the data it needs.

    source: the paper · claim: what the source claims, in one sentence; the page opens with it
    time: how long it takes on which machine · expect: the result to expect · data: what must be downloaded
    published: candidate → metric → value as printed in the source, or `{value: 0.80, std: 0.02}`; shown beside our results, never
               used as a target. `unseen_` before a metric: on sites that were never trained on
    published_sample: the rows and runs behind the published figures, as far as the source says
    """

    source: str
    claim: str = ""
    time: str = ""
    expect: str = ""
    data: str = ""
    published: dict[str, dict[str, float | PublishedFigure]] = {}
    published_sample: PublishedSample = PublishedSample()
