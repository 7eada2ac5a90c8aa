"""The value of each metric without information: against permutations written out, and constant answers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from phoropter.results.metrics import registry
from phoropter.results.metrics.custom import Metric
from phoropter.results.metrics.probabilities import softmax
from phoropter.results.stats.no_information import value_without_information


def some_answers(n: int = 60, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=np.arange(classes, 0, -1) / (classes * (classes + 1) / 2))
    return labels, softmax(rng.normal(size=(n, classes)) + np.eye(classes)[labels])


def permuted_mean(name: str, labels: np.ndarray, p: np.ndarray, times: int = 1500) -> tuple[float, float]:
    """Mean over permutations, and its standard error."""
    rng = np.random.default_rng(1)
    values = [registry.compute_metrics([name], rng.permutation(labels), p)[name] for _ in range(times)]
    return float(np.mean(values)), float(np.std(values) / np.sqrt(times))


COUNTED = ("macro_f1", "macro_precision", "weighted_f1", "weighted_precision", "balanced_accuracy", "macro_recall")


SAME = ("balanced_accuracy", "macro_recall")  # 1 / classes for any answer without information


@pytest.mark.parametrize("name", [*COUNTED, "accuracy", "weighted_recall"])
def test_metrics_of_answers_take_the_better_of_permuted_and_constant_answers(name):
    labels, p = some_answers()
    mean, error = permuted_mean(name, labels, p)
    constant = np.eye(3)[np.full(60, np.bincount(labels).argmax())]
    best = registry.compute_metrics([name], labels, constant)[name]
    found = value_without_information(name, labels, p)
    drawn = error * np.sqrt(1500 / 200)  # 200 draws
    assert found.value == pytest.approx(max(mean, best), abs=4 * (error + drawn) + 0.004)  # drawn with replacement
    assert found.source == (
        "the majority-class baseline" if best > mean - 1e-9 or name in SAME else "its own answers in random order"
    )


@pytest.mark.parametrize(("name", "value"), [("roc_auc", 0.5), ("mcc", 0.0), ("kappa", 0.0)])
def test_metrics_that_are_corrected_for_chance(name, value):
    labels, p = some_answers()
    mean, error = permuted_mean(name, labels, p)
    assert abs(mean - value) < 4 * error
    assert value_without_information(name, labels, p).value == value


def test_macro_f1_of_random_answers_is_more_than_that_of_a_constant():
    """Nine of ten rows are of one class, and the answers follow the frequencies: 0.9 and 0.1, against 0.474 of a constant."""
    labels = np.repeat([0, 1], [90, 10])
    answers = np.r_[np.zeros(81), np.ones(9), np.zeros(9), np.ones(1)].astype(int)  # independent of the labels
    found = value_without_information("macro_f1", labels, np.eye(2)[answers])
    assert found.value == pytest.approx((0.9 + 0.1) / 2, abs=0.01)
    assert found.source == "its own answers in random order"
    assert sk.f1_score(labels, np.zeros(100), average="macro", zero_division=0) < 0.48


def test_log_loss_and_brier_are_those_of_the_frequencies():
    labels, p = np.repeat([0, 1], [90, 10]), some_answers(100, 2)[1]
    found = value_without_information("log_loss", labels, p)
    assert found.value == pytest.approx(stats.entropy([0.9, 0.1]))
    assert found.source == "the frequencies of the classes for every row"
    assert value_without_information("brier", labels, p).value == pytest.approx(0.09)
    assert permuted_mean("log_loss", labels, p, 50)[0] > found.value


def test_average_precision_is_that_of_a_random_order():
    labels, p = some_answers(30)
    mean, error = permuted_mean("average_precision", labels, p)
    assert value_without_information("average_precision", labels, p).value == pytest.approx(mean, abs=4 * error)
    rare = (np.arange(300) < 9).astype(np.int64)  # of two classes, the second is ranked: 3 %, not the mean of 3 and 97 %
    mean, error = permuted_mean("average_precision", rare, np.random.default_rng(0).dirichlet([1, 1], 300))
    guess = value_without_information("average_precision", rare, np.random.default_rng(0).dirichlet([1, 1], 300))
    assert guess is not None and guess.value == pytest.approx(mean, abs=4 * error) and 0.03 < guess.value < 0.06
    # two rows, one positive: precision 1 or 1/2
    two = value_without_information("average_precision", np.array([0, 1]), np.array([[0.6, 0.4], [0.3, 0.7]]))
    assert two.value == pytest.approx(0.75)


def test_top_five_is_the_frequency_of_the_first_five():
    labels, p = some_answers(400, 8)
    mean, error = permuted_mean("top5_accuracy", labels, p, 400)
    commonest = np.sort(np.bincount(labels))[-5:].sum() / 400
    assert mean < commonest
    assert value_without_information("top5_accuracy", labels, p).value == pytest.approx(commonest)
    always = np.broadcast_to(np.bincount(labels) / 400, (400, 8))
    assert value_without_information("top5_accuracy", labels, always).value == pytest.approx(commonest)
    assert mean == pytest.approx(np.mean([(np.bincount(labels) / 400)[np.argsort(-row)[:5]].sum() for row in p]), abs=4 * error)


def test_one_class_a_person_is_no_guess_for_who_tells_persons_apart():
    """Leave one person out, each of one class: right about all persons is information; one answer for all is none."""
    labels, people = np.repeat([0, 0, 0, 1], 10), np.repeat(np.arange(4), 10)
    for name in ("accuracy", "macro_f1"):
        perfect = value_without_information(name, labels, np.eye(2)[labels], people)
        constant = value_without_information(name, labels, np.eye(2)[0 * labels], people)
        assert (perfect.value, perfect.source) == (0.75, "the majority-class baseline")
        assert constant.value == 0.75  # the very value of these answers: three persons right, one wrong


def macro_f1_of_splits(labels, answers):
    """Macro F1 of every six rows of two classes, of those that occur, counted: scikit-learn is slow on so few rows."""
    truth, answer = np.eye(2)[labels].reshape(-1, 6, 2), np.eye(2)[answers].reshape(-1, 6, 2)
    hits, either = (truth * answer).sum(1), truth.sum(1) + answer.sum(1)  # (splits, classes)
    return np.nanmean(np.divide(2 * hits, either, where=either > 0, out=np.full(either.shape, np.nan)), axis=1)


def test_small_splits_are_drawn_as_they_are_scored():
    """Macro F1 of six rows is far from that of the expected counts: literally, answers shuffled over all rows."""
    labels, p = some_answers(60, 2, 3)
    splits = np.arange(60) // 6
    rng = np.random.default_rng(4)
    answers = p[rng.permutation(60)].argmax(1)
    by_scikit_learn = [sk.f1_score(labels[splits == s], answers[splits == s], average="macro") for s in range(10)]
    np.testing.assert_allclose(macro_f1_of_splits(labels, answers), by_scikit_learn)
    values = [macro_f1_of_splits(labels, p[rng.permutation(60)].argmax(1)).mean() for _ in range(1500)]
    found = value_without_information("macro_f1", labels, p, splits)
    assert found.value == pytest.approx(np.mean(values), abs=0.01)


def test_own_metrics_are_permuted_or_say_what_chance_reaches():
    labels, p = some_answers()
    own = Metric("mean_confidence_test", lambda y, q: float(q[np.arange(len(y)), y].mean()), range=(0, 1))
    registry.register_metric(own)
    found = value_without_information("mean_confidence_test", labels, p)
    frequencies = np.bincount(labels) / len(labels)
    assert found.value == pytest.approx((p @ frequencies).mean(), abs=0.02)
    assert found.source == "its own answers in random order"
    registry._REGISTERED.pop("mean_confidence_test"), registry.METRICS.pop("mean_confidence_test")


def test_calibration_has_no_value_without_information():
    labels, p = some_answers()
    assert value_without_information("ece", labels, p) is None
    assert value_without_information("roc_auc", np.zeros(60, dtype=int), p) is None
