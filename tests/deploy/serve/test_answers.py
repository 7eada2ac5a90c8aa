"""Predictions as plain data: the decision, the window that is shown, numbers that are none."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from running_server import Made

from phoropter.deploy.decision import DecisionRule
from phoropter.deploy.predictions import BundlePredictions
from phoropter.deploy.serve import answers
from phoropter.deploy.serve.limits import ServeLimits
from phoropter.deploy.serve.prepare import prepare_inputs
from phoropter.deploy.serve.uploads import Upload


def predictions_of(made: Made, probabilities: list[list[float]], rule: DecisionRule) -> BundlePredictions:
    """Of the first file of a bundle, as if its network had said so."""
    (given,) = prepare_inputs(made.served, [Upload(*file) for file in made.load(0)], ServeLimits())
    assert given.dataset is not None
    logits = np.log(np.resize(np.array(probabilities, np.float32), (len(given.dataset), len(probabilities[0]))))
    return BundlePredictions(given.dataset, rule.classes, logits, rule=rule)


@pytest.mark.parametrize(("p", "decided"), [(0.29, "dark"), (0.31, "light"), (0.7, "light")])
def test_a_decision_follows_the_threshold_of_the_positive_class(pictures: Made, p: float, decided: str) -> None:
    rule = DecisionRule(("dark", "light"), positive="light", threshold=0.3)
    decision = answers.decide_class(predictions_of(pictures, [[1 - p, p]], rule), "90 % specificity")
    told = "light from a probability of 0.300 on, chosen for 90 % specificity"
    assert decision == {"class": decided, "rule": told, "threshold": 0.3}


def test_a_threshold_for_people_does_not_decide_pictures(pictures: Made) -> None:
    rule = DecisionRule(("dark", "light"), positive="light", threshold=0.3, level="group")
    decision = answers.decide_class(predictions_of(pictures, [[0.6, 0.4]], rule))
    assert decision == {"class": "dark", "rule": "the likeliest class", "threshold": None}


def test_windows_become_one_answer_by_the_rule_of_the_bundle(ctg: Made, ecg: Made) -> None:
    rows = [[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]
    classes = ecg.served.predictor.classes
    for rule, expected in (("mean", 0), ("vote", 0)):
        predictions = predictions_of(ecg, rows, DecisionRule(classes, rule))
        assert len(predictions.logits) % 3 == 0
        assert answers.answer_all(predictions).argmax() == expected
        assert answers.decide_class(predictions)["class"] == classes[expected]
    mean = answers.answer_all(predictions_of(ecg, rows, DecisionRule(classes)))
    np.testing.assert_allclose(mean, [0.4, 0.8 / 3, 1 / 3], atol=1e-6)
    found = predictions_of(ctg, [[0.9, 0.1]], DecisionRule(("normal", "high-risk"), "mean", "high-risk", 0.05, "recording"))
    assert answers.decide_class(found)["class"] == "high-risk"


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
