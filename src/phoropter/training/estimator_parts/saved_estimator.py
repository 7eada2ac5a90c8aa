"""A fitted estimator as a bundle, which `ph.load`, `predict` and `serve` read, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phoropter.core.errors import WeightsError
from phoropter.core.extensions import Extension, read_recorded_extensions
from phoropter.core.spec import SourceMap, validate_as
from phoropter.models import classifier as classifiers
from phoropter.models.classifier import Classifier
from phoropter.models.weights.weight_files import read_sidecar_json
from phoropter.training.candidates.candidate import Candidate
from phoropter.training.estimator_parts.picture_input import InputError


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """What predicting needs of a fit.

    side: of its images in pixels · data: plain DataSpec, of which `resize` and `interpolation` make new images square
    temperature: that logits are divided by, of a bundle of `refit`; else 1
    """

    candidate: Candidate
    model: Classifier
    side: int
    data: dict[str, Any]
    temperature: float = 1.0


def save_fitted(fitted: FittedClassifier, labels: NDArray[Any], folder: Path) -> None:
    """Writes a bundle. labels: (C,) as y had them. Raises StoreError if the folder exists; InputError for mixed labels."""
    values = labels.tolist()
    try:
        same = labels.dtype != object or all(type(value) is type(values[0]) for value in values)
        json.dumps(values)
    except TypeError:
        same = False
    if not same:
        raise InputError(
            f"the labels {values} cannot be written into a bundle: expected texts, whole numbers, floats or booleans"
        )
    training = {
        "candidate": fitted.candidate.plain(),
        "split": "everything",
        "data": fitted.data,
        "database": None,
        "recording_view": None,
        "labels": {"kind": labels.dtype.str, "values": values},
    }
    classifiers.save_classifier(fitted.model, folder, training=training)


def name_backbone(candidate: Candidate) -> Any:
    """The `backbone` parameter that makes a candidate's backbone: a name, a Backbone, or a mapping where it has options."""
    (backbone,) = candidate.backbones
    default = type(backbone)(name=backbone.name).plain()
    kept = {"name", "weights", "size", "custom"}
    changed = {key: value for key, value in backbone.plain().items() if key not in kept and value != default[key]}
    return backbone.custom or ({"name": backbone.name, **changed} if changed else backbone.name)


def load_fitted(folder: Path, extensions: Sequence[Extension] = ()) -> tuple[FittedClassifier, NDArray[Any]]:
    """A bundle of pictures and one backbone → (the fitted classifier, (C,) labels). Raises WeightsError for another folder."""
    content = read_sidecar_json(folder / "bundle.json")
    training = (content.get("training") or {}) if isinstance(content, dict) else {}
    if not isinstance(training, dict) or not training.get("candidate") or not training.get("data"):
        raise WeightsError(f"bundle {folder} does not record how it was trained: take one that a study or an estimator saved")
    with read_recorded_extensions(extensions):
        candidate = validate_as(
            Candidate, training["candidate"], SourceMap(str(folder / "bundle.json")), ("training", "candidate")
        )
    model = classifiers.load_classifier(folder, extensions)
    if training.get("recording_view") or len(candidate.backbones) != 1 or len(model.members) != 1:
        raise WeightsError(
            f"bundle {folder} is one of {'recordings' if training.get('recording_view') else 'several backbones'}, and the "
            "estimator has one backbone for pictures: use ph.load"
        )
    if candidate.recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    temperature = float((training.get("refit") or {}).get("temperature", 1.0))
    recorded = training.get("labels")
    classes = model.spec.classes
    labels = np.array(classes) if recorded is None else np.array(recorded["values"], dtype=np.dtype(recorded["kind"]))
    if len(labels) != len(classes):
        raise WeightsError(f"bundle {folder} names {len(labels)} labels for {len(classes)} classes: save the estimator again")
    return FittedClassifier(candidate, model, model.spec.picture, training["data"], temperature), labels
