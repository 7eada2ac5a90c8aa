"""Predictions and explanations as plain data, and the shapes by which the interface describes them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field

from phoropter.deploy.decision import name_answer
from phoropter.deploy.explain.explanation import Explanation
from phoropter.deploy.predictions import BundlePredictions, note_prediction_limits
from phoropter.deploy.serve.prepare import PreparedInput
from phoropter.deploy.serve.served_bundle import ServedBundle

MAP_DIGITS = 4
Probabilities = dict[str, float]


class ErrorAnswer(BaseModel):
    """What is wrong and what to do, in one sentence."""

    error: str


class DecisionAnswer(BaseModel):
    """class: the one decided for · rule: in words · threshold: of the positive class's probability; null: the likeliest class"""

    decided: str = Field(alias="class")
    rule: str
    threshold: float | None = None


class WindowAnswer(BaseModel):
    """One window of a recording, in seconds from its beginning."""

    start_s: float
    stop_s: float
    probabilities: Probabilities


class ItemAnswer(BaseModel):
    """One picture or recording, whose probabilities are those of its windows by the bundle's rule. `error` stands alone."""

    name: str
    error: str | None = None
    probabilities: Probabilities | None = None
    decision: DecisionAnswer | None = None
    windows: list[WindowAnswer] | None = None
    shown: str | None = Field(None, description="PNG as base64: the picture, or the likeliest window, as the network is shown it")


class PredictAnswer(BaseModel):
    """Items in the order of the files; of a recording of several files one.

    notes: what a reader must know · details: how recordings were read and cut
    """

    bundle: str
    items: list[ItemAnswer]
    notes: list[str]
    details: list[str]


class TraceAnswer(BaseModel):
    """The samples of the explained window and its map along time. start_s, stop_s: seconds of the recording"""

    start_s: float
    stop_s: float
    signals: dict[str, list[float | None]]
    units: dict[str, str]
    time_map: list[float]


class ExplainedAnswer(BaseModel):
    """map, overlay, shown: PNG as base64 · raw_max: what white of the map stands for · window: of a recording, from 0"""

    name: str
    error: str | None = None
    target: str | None = None
    method: str | None = None
    probabilities: Probabilities | None = None
    map: str | None = None
    overlay: str | None = None
    shown: str | None = None
    raw_max: float | None = None
    numbers: list[list[float]] | None = None
    branches: dict[str, float] | None = None
    window: int | None = None
    trace: TraceAnswer | None = None


class ExplainAnswer(BaseModel):
    """Items as those of a prediction."""

    bundle: str
    items: list[ExplainedAnswer]


class ServedExample(BaseModel):
    """A file of the study that travels with the bundle, and its class there."""

    name: str
    label: str


class ServedDescription(BaseModel):
    """A bundle. takes: which files, in words · reliability: what its study says of it, in sentences"""

    name: str
    title: str
    takes: str
    recordings: bool
    classes: list[str]
    positive_class: str | None
    threshold: float | None
    aggregation: str
    temperature: float
    architecture: list[str]
    size: int
    reliability: list[str]
    estimate: dict[str, Any] | None
    examples: list[ServedExample]


class VersionAnswer(BaseModel):
    """phoropter: its version · limits: of requests (limits.py)"""

    phoropter: str
    bundles: list[ServedDescription]
    limits: dict[str, float]


class StateAnswer(BaseModel):
    """ready: whether requests are answered now"""

    ready: bool


def describe_item(
    bundle: ServedBundle, given: PreparedInput, predictions: BundlePredictions | None, shown: bool
) -> dict[str, Any]:
    """An ItemAnswer of one input. predictions: of its rows; None where it could not be used"""
    if predictions is None or given.squares is None:
        return {"name": given.name, "error": given.error}
    mean = answer_all(predictions)
    if not np.isfinite(mean).all():
        return {"name": given.name, "error": f"{given.name}: the network's answer is no number; another picture may do"}
    record = bundle.predictor.refit
    item: dict[str, Any] = {
        "name": given.name,
        "probabilities": name_classes(mean, predictions.classes),
        "decision": decide_class(predictions, "" if record is None else record.threshold_goal),
    }
    if predictions.dataset.recordings is not None and predictions.dataset.spans is not None:
        rows = zip(predictions.dataset.spans.tolist(), predictions.probabilities, strict=True)
        item["windows"] = [
            {"start_s": start, "stop_s": stop, "probabilities": name_classes(p, predictions.classes)} for (start, stop), p in rows
        ]
    if shown:
        item["shown"] = encode_png(given.squares[choose_window(predictions)].transpose(1, 2, 0))
    return item


def collect_predictions(bundle: ServedBundle, given: PreparedInput, logits: NDArray[np.float32]) -> BundlePredictions:
    """The logits of one input's rows, with its notes and the bundle's temperature."""
    assert given.dataset is not None
    notes = tuple(note_prediction_limits(bundle.predictor, given.dataset, bundle.trained_on))
    predictor = bundle.predictor
    return BundlePredictions(
        given.dataset, predictor.classes, logits, (), notes, predictor.temperature, predictor.rule, predictor.multi_label
    )


def choose_window(predictions: BundlePredictions) -> int:
    """The row that speaks most for the class that all rows together are likeliest of."""
    return int(predictions.probabilities[:, int(answer_all(predictions).argmax())].argmax())


def answer_all(predictions: BundlePredictions) -> NDArray[np.float64]:
    """(C,) probabilities of the one picture, or of the one recording by the bundle's rule over its windows."""
    means = predictions.average_by_recording()
    one: NDArray[np.float64] = predictions.probabilities[0] if means is None else means.probabilities[0]
    return one


def decide_class(predictions: BundlePredictions, goal: str = "") -> dict[str, Any]:
    """A DecisionAnswer: by the operating threshold where the bundle has one for such answers, else the likeliest class.

    goal: what the threshold was chosen for
    """
    decided = predictions.decide_rows() if predictions.dataset.recordings is None else predictions.decide_recordings()
    rule = predictions.rule
    if predictions.multi_label:
        answer = name_answer(answer_all(predictions), predictions.classes, True)
        return {"class": answer, "rule": "the labels with a probability above a half", "threshold": None}
    if decided is None or rule is None:
        likeliest = predictions.classes[int(answer_all(predictions).argmax())]
        return {"class": likeliest, "rule": "the likeliest class", "threshold": None}
    told = f"{rule.positive} from a probability of {rule.threshold:.3f} on{f', chosen for {goal}' if goal else ''}"
    return {"class": decided[0], "rule": told, "threshold": rule.threshold}


def describe_explanation(name: str, explained: Explanation, window: int | None, numbers: bool) -> dict[str, Any]:
    """An ExplainedAnswer. window: which row of the recording · numbers: whether the map is given as numbers too"""
    return {
        "name": name,
        "target": explained.classes[explained.target],
        "method": explained.method,
        "probabilities": name_classes(explained.probabilities, explained.classes),
        "map": encode_png(np.round(explained.map * 255).astype(np.uint8)),
        "overlay": encode_png(explained.overlay()),
        "shown": encode_png(explained.shown),
        "raw_max": explained.raw_max,
        "numbers": np.round(explained.map.astype(float), MAP_DIGITS).tolist() if numbers else None,
        "branches": {branch: one.weight for branch, one in explained.branches.items()},
        "window": window,
        "trace": _describe_trace(explained),
    }


def _describe_trace(explained: Explanation) -> dict[str, Any] | None:
    window, time_map = explained.window, explained.time_map
    if window is None or time_map is None:
        return None
    signals = {
        channel: [None if not np.isfinite(v) else round(float(v), 5) for v in values.tolist()]
        for channel, values in window.signals.items()
    }
    return {
        "start_s": window.start_s,
        "stop_s": window.stop_s,
        "signals": signals,
        "units": dict(zip(window.signals, window.units, strict=True)),
        "time_map": np.round(time_map.astype(float), MAP_DIGITS).tolist(),
    }


def name_classes(values: NDArray[np.float64], classes: Sequence[str]) -> Probabilities:
    """Class → probability."""
    return dict(zip(classes, values.tolist(), strict=True))


def encode_png(picture: Image.Image | NDArray[np.uint8]) -> str:
    """An image or (H, W[, 3]) bytes → PNG as base64."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode("ascii")
