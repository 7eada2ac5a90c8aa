"""Candidates that read no picture by a network: simple features of each row under a classifier, a small network on the samples of
a window (`signal-1d`), or another tool's predictions (no torch)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from phoropter.core.spec import Spec
from phoropter.training.candidates.presets import PRESETS
from phoropter.training.candidates.recipe import Recipe

BaselineName = Literal["mean-image", "colour-texture", "hrv", "ctg-features", "signal-1d"]
ClassifierName = Literal["logistic", "gradient-boosting"]
FEATURES_VERSION = 1  # raise when equal pictures or recordings would give other features than before
SIGNAL_NETWORK: BaselineName = "signal-1d"
SIGNAL_MACS = 5_000_000  # multiply-adds of that network on a window of 1,024 samples, for the forecast of a plan
_SIGNAL_FIELDS = (  # of a recipe, what the training of that network reads
    *("phases", "optimizer", "schedule", "batch_size", "grad_accum_steps", "grad_clip", "loss", "imbalance", "ema", "precision"),
    "checkpoint",
)


class TableSpec(Spec):
    """What a candidate without a network knows of each row: one of `baseline`, `features` and `predictions`, or `metadata` alone.

    baseline:    simple features that phoropter measures, or signal-1d, a network on the samples (docs/baselines.md)
    features:    a file with an id and D numbers for each row (CSV, Parquet or npz)
    predictions: a file with another tool's probabilities or logits for each tested row (CSV, Parquet or npz)
    metadata:    columns that the data state of each row, such as age, by themselves or beside a baseline or features
    columns:     our name of a column of the file → theirs
    classifier:  of features: logistic (penalised, the penalty chosen on inner folds) or gradient-boosting
    digest:      of the contents of the file; filled in when a study is loaded
    metadata_digest: of what the data state; filled in when a study is loaded
    """

    baseline: BaselineName | None = None
    features: str | None = None
    predictions: str | None = None
    metadata: tuple[str, ...] = ()
    columns: dict[str, str] = {}
    classifier: ClassifierName = "logistic"
    digest: str | None = None
    metadata_digest: str | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> TableSpec:
        given = [name for name in ("baseline", "features", "predictions") if getattr(self, name) is not None]
        if len(given) > 1 or not (given or self.metadata):
            raise ValueError(f"name exactly one of baseline, features and predictions; {' and '.join(given) or 'none'} came")
        if self.columns and self.file is None:
            what = "a baseline reads none" if self.baseline else "metadata are read of the data"
            raise ValueError(f"columns belongs to a file of features or predictions, and {what}; leave it out")
        if self.metadata and (self.predictions is not None or self.is_signal_network):
            what = "predictions are finished" if self.predictions else "signal-1d reads samples alone"
            raise ValueError(f"metadata join a baseline or features under a classifier, and {what}; leave metadata out")
        if len(set(self.metadata)) < len(self.metadata):
            raise ValueError("metadata names a column twice; name it once")
        if self.is_signal_network and "classifier" in self.model_fields_set:
            raise ValueError("classifier belongs to features, and signal-1d is a network of its own; leave it out")
        return self

    @property
    def is_signal_network(self) -> bool:
        """Whether it is the network on the samples of a window, which a recipe trains."""
        return self.baseline == SIGNAL_NETWORK

    @property
    def reads_pictures(self) -> bool:
        """Whether its features are measured on the stored pictures."""
        return self.baseline in ("mean-image", "colour-texture")

    @property
    def file(self) -> str | None:
        """The file it is read from; None for a baseline."""
        return self.features or self.predictions

    @property
    def kind_word(self) -> str:
        """`baseline`, `features`, `imported` or `metadata`, for tables and sentences."""
        return "baseline" if self.baseline else "features" if self.features else "imported" if self.predictions else "metadata"

    @property
    def default_name(self) -> str:
        """What a candidate is called that has no name of its own."""
        if self.predictions is not None:
            return f"imported {_stem(self.predictions)}"
        source = self.baseline or _stem(self.features or "")
        source = " + ".join(part for part in (source, "metadata" if self.metadata else "") if part)
        return source if self.classifier == "logistic" else f"{source}, {self.classifier}"

    @property
    def description(self) -> str:
        """A description for tables."""
        if self.predictions is not None:
            return "imported: predictions that another tool made on the folds of this study"
        if self.is_signal_network:
            return "baseline: a one-dimensional residual network trained on the samples of each window"
        how = "a logistic regression" if self.classifier == "logistic" else "gradient boosting"
        listed = ", ".join(self.metadata)
        if self.baseline is None and self.features is None:
            return f"metadata: {listed}, under {how}"
        joined = f", joined with the metadata {listed}," if listed else ""
        if self.baseline:
            return f"baseline: {self.baseline}{joined} under {how}"
        return f"features: read from a file{joined or ','} under {how}"

    def identity(self) -> dict[str, Any]:
        """What decides its result: of a file its contents, not its place."""
        if self.is_signal_network:
            return {"baseline": self.baseline, "version": FEATURES_VERSION}
        plain: dict[str, Any] = {"columns": self.columns, "digest": self.digest}
        if self.predictions is not None:
            return {"predictions": plain}
        stated = {"metadata": {"columns": self.metadata, "digest": self.metadata_digest}} if self.metadata else {}
        if self.baseline is not None:
            return {"baseline": self.baseline, "version": FEATURES_VERSION, "classifier": self.classifier, **stated}
        return {**({"features": plain} if self.features else {}), "classifier": self.classifier, **stated}


def check_signal_recipe(recipe: Recipe) -> Recipe:
    """The recipe of signal-1d. Raises ValueError for an option that its training never reads."""
    usual = PRESETS[SIGNAL_NETWORK]
    for name in Recipe.model_fields:
        if name not in ("preset", *_SIGNAL_FIELDS) and getattr(recipe, name) != getattr(usual, name):
            raise ValueError(f"{name} of a recipe has no effect on signal-1d, which reads samples and no pictures; leave it out")
    if not recipe.phases or any(phase.train != "all" or phase.branch_lr for phase in recipe.phases):
        raise ValueError("signal-1d is trained as a whole: give phases with train: all and without branch_lr")
    if recipe.imbalance.n_bags > 1:
        raise ValueError("imbalance n_bags is of networks of pictures, and signal-1d is trained once; leave it out")
    return recipe


def describe_signal_recipe(recipe: Recipe) -> dict[str, Any]:
    """What of its recipe decides the result of signal-1d, as plain data for run keys."""
    plain = recipe.plain()
    return {name: plain[name] for name in _SIGNAL_FIELDS}


def _stem(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].partition(".")[0]
