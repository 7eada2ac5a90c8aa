"""Predictions as plain data: the decision, the window that is shown, numbers that are none."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from running_server import Made

from phoropter.deploy.serve import answers
from phoropter.deploy.serve.limits import ServeLimits
from phoropter.deploy.serve.prepare import prepare_inputs
from phoropter.deploy.serve.uploads import Upload


@pytest.mark.parametrize(("p", "decided"), [(0.29, "well"), (0.3, "ill"), (0.7, "ill")])
def test_a_decision_follows_the_threshold_of_the_positive_class(p: float, decided: str) -> None:
    predictor: Any = SimpleNamespace(classes=("well", "ill"), positive_class="ill", threshold=0.3)
    decision = answers.decide_class(predictor, np.array([1 - p, p]))
    assert decision == {"class": decided, "rule": "ill from a probability of 0.300 on", "threshold": 0.3}
    turned: Any = SimpleNamespace(classes=("ill", "well"), positive_class="ill", threshold=0.3)
    assert answers.decide_class(turned, np.array([p, 1 - p]))["class"] == decided


def test_without_a_threshold_the_likeliest_class_is_decided_for() -> None:
    predictor: Any = SimpleNamespace(classes=("a", "b", "c"), positive_class=None, threshold=None)
    assert answers.decide_class(predictor, np.array([0.3, 0.3, 0.4])) == {
        "class": "c",
        "rule": "the likeliest class",
        "threshold": None,
    }


def test_the_window_shown_speaks_most_for_the_class_of_all(ecg: Made) -> None:
    (given,) = prepare_inputs(ecg.served, [Upload(*file) for file in ecg.load(0)], ServeLimits())
    assert given.squares is not None
    logits = np.zeros((len(given.squares), 3), np.float32)
    logits[:, 1] = 1
    logits[4] = [0, 3, 0]
    logits[6] = [9, 0, 0]
    predictions = answers.collect_predictions(ecg.served, given, logits)
    assert answers.choose_window(predictions) == 4
    item = answers.describe_item(ecg.served, given, predictions, shown=True)
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(item["shown"]))))
    assert np.array_equal(shown, given.squares[4].transpose(1, 2, 0))
    exact = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert item["probabilities"] == pytest.approx(dict(zip(ecg.served.predictor.classes, exact.mean(0), strict=True)), abs=1e-6)
    assert len(item["windows"]) == len(logits)


def test_an_answer_that_is_no_number_is_an_error_of_its_item(pictures: Made) -> None:
    (given,) = prepare_inputs(pictures.served, [Upload(*file) for file in pictures.load(0)], ServeLimits())
    predictions = answers.collect_predictions(pictures.served, given, np.full((1, 2), np.nan, np.float32))
    item = answers.describe_item(pictures.served, given, predictions, shown=True)
    assert set(item) == {"name", "error"} and "is no number" in item["error"]


def test_samples_that_are_missing_are_null(ctg: Made) -> None:
    explained = next(iter(ctg.served.predictor.explain(ctg.files[0][0], device="cpu")))
    assert explained.window is not None
    channel, values = next(iter(explained.window.signals.items()))
    values = values.copy()
    values[3] = np.nan
    holed = replace(explained, window=replace(explained.window, signals={**explained.window.signals, channel: values}))
    trace = answers.describe_explanation("x", holed, 0, numbers=False)["trace"]
    assert trace["signals"][channel][3] is None and trace["signals"][channel][4] == pytest.approx(values[4], abs=1e-4)
    assert trace["start_s"] == explained.window.start_s and set(trace["units"]) == set(explained.window.signals)
