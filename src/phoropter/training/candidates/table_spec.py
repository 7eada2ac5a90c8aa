"""Candidates without a network: simple features of each row under a classifier, or another tool's predictions (no torch)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from phoropter.core.spec import Spec

BaselineName = Literal["mean-image", "colour-texture", "hrv", "ctg-features"]
ClassifierName = Literal["logistic", "gradient-boosting"]
FEATURES_VERSION = 1  # raise when equal pictures or recordings would give other features than before


class TableSpec(Spec):
    """What a candidate without a network knows of each row. Exactly one of `baseline`, `features` and `predictions` is given.

    baseline:    simple features that phoropter measures (docs/baselines.md)
    features:    a file with an id and D numbers for each row (CSV, Parquet or npz)
    predictions: a file with another tool's probabilities or logits for each tested row (CSV, Parquet or npz)
    columns:     our name of a column of the file → theirs
    classifier:  of features: logistic (penalised, the penalty chosen on inner folds) or gradient-boosting
    digest:      of the contents of the file; filled in when a study is loaded
    """

    baseline: BaselineName | None = None
    features: str | None = None
    predictions: str | None = None
    columns: dict[str, str] = {}
    classifier: ClassifierName = "logistic"
    digest: str | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> TableSpec:
        given = [name for name in ("baseline", "features", "predictions") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"name exactly one of baseline, features and predictions; {' and '.join(given) or 'none'} came")
        if self.columns and self.baseline is not None:
            raise ValueError("columns belongs to a file of features or predictions, and a baseline reads none; leave it out")
        return self

    @property
    def file(self) -> str | None:
        """The file it is read from; None for a baseline."""
        return self.features or self.predictions

    @property
    def kind_word(self) -> str:
        """`baseline`, `features` or `imported`, for tables and sentences."""
        return "baseline" if self.baseline else "features" if self.features else "imported"

    @property
    def default_name(self) -> str:
        """What a candidate is called that has no name of its own."""
        if self.predictions is not None:
            return f"imported {_stem(self.predictions)}"
        source = self.baseline or _stem(self.features or "")
        return source if self.classifier == "logistic" else f"{source}, {self.classifier}"

    @property
    def description(self) -> str:
        """A description for tables."""
        if self.predictions is not None:
            return "imported: predictions that another tool made on the folds of this study"
        how = "a logistic regression" if self.classifier == "logistic" else "gradient boosting"
        return f"baseline: {self.baseline} under {how}" if self.baseline else f"features from a file, under {how}"

    def identity(self) -> dict[str, Any]:
        """What decides its result: of a file its contents, not its place."""
        plain: dict[str, Any] = {"columns": self.columns, "digest": self.digest}
        if self.predictions is not None:
            return {"predictions": plain}
        source = {"baseline": self.baseline, "version": FEATURES_VERSION} if self.baseline else {"features": plain}
        return {**source, "classifier": self.classifier}


def _stem(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].partition(".")[0]
