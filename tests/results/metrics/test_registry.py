"""Metrics against scikit-learn on random cases, against slow literal versions, and where they are undefined."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from phoropter.core.errors import DataError, SpecError
from phoropter.results.metrics import registry
from phoropter.results.metrics.probabilities import softmax


def random_case(seed: int, classes: int, rows: int, *, ties: bool = False):
    """Labels and probabilities, with classes that may be absent from either side."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    logits = rng.normal(size=(rows, classes)) + 1.5 * rng.random() * np.eye(classes)[labels]
    probabilities = softmax(logits.astype(np.float32))
    if ties:  # quarters: many equal scores, all of them exact in binary
        probabilities = np.round(rng.dirichlet(np.ones(classes), rows) * 4) / 4
        probabilities[:, 0] = 1 - probabilities[:, 1:].sum(axis=1)
        probabilities = np.where((probabilities < 0).any(axis=1, keepdims=True), np.eye(classes)[0], probabilities)
    return labels, probabilities


cases = st.builds(random_case, st.integers(0, 2**32), st.integers(2, 7), st.integers(1, 60), ties=st.booleans())


def quietly(function, *args, **kwargs):
    """scikit-learn warns where it falls back on a convention; the convention is what is compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def by_sklearn(labels, p) -> dict[str, float]:
    predicted, classes = p.argmax(1), p.shape[1]
    out = {
        "accuracy": oracle.accuracy_score(labels, predicted),
        "balanced_accuracy": quietly(oracle.balanced_accuracy_score, labels, predicted),
        "mcc": quietly(oracle.matthews_corrcoef, labels, predicted),
        "kappa": quietly(oracle.cohen_kappa_score, labels, predicted),
        "log_loss": quietly(oracle.log_loss, labels, p, labels=range(classes)),
        "brier": quietly(oracle.brier_score_loss, labels, p if classes > 2 else p[:, 1], labels=range(classes)),
    }
    for average in ("macro", "weighted"):
        found = oracle.precision_recall_fscore_support(labels, predicted, average=average, zero_division=0)
        out |= dict(zip((f"{average}_precision", f"{average}_recall", f"{average}_f1"), found[:3], strict=True))
    return out


@settings(deadline=None, database=None)
@given(cases)
def test_equal_scikit_learn(case):
    labels, p = case
    expected = by_sklearn(labels, p)
    assert registry.compute_metrics(expected, labels, p) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@settings(deadline=None, database=None)
@given(cases)
def test_ranks_equal_scikit_learn(case):
    labels, p = case
    found = registry.compute_metrics(["roc_auc", "average_precision"], labels, p)
    if len(np.unique(labels)) < p.shape[1]:
        assert np.isnan(list(found.values())).all()
        return
    binary = p.shape[1] == 2
    truth = labels if binary else np.eye(p.shape[1])[labels]
    scores = p[:, 1] if binary else p
    assert found["roc_auc"] == pytest.approx(oracle.roc_auc_score(truth, scores, average="macro"), abs=1e-12)
    assert found["average_precision"] == pytest.approx(oracle.average_precision_score(truth, scores, average="macro"), abs=1e-12)


@settings(deadline=None, database=None)
@given(st.integers(0, 2**32), st.integers(6, 12), st.integers(1, 50))
def test_top5_equals_scikit_learn_where_scores_differ(seed, classes, rows):
    labels, p = random_case(seed, classes, rows)
    expected = oracle.top_k_accuracy_score(labels, p, k=5, labels=range(classes))
    assert registry.compute_metrics(["top5_accuracy"], labels, p)["top5_accuracy"] == pytest.approx(expected)


def test_top5_prefers_the_first_of_equals_as_the_likeliest_class_does():
    flat = np.full((8, 8), 1 / 8)
    assert registry.compute_metrics(["accuracy", "top5_accuracy"], np.arange(8), flat) == {
        "accuracy": 1 / 8,
        "top5_accuracy": 5 / 8,
    }


@settings(deadline=None, database=None)
@given(cases)
def test_calibration_error_equals_the_literal_sum_over_bins(case):
    labels, p = case
    confidence, hit = p.max(1), p.argmax(1) == labels
    expected = 0.0
    for i in range(15):
        inside = [j for j in range(len(labels)) if i / 15 < confidence[j] <= (i + 1) / 15]
        if inside:
            expected += len(inside) / len(labels) * abs(hit[inside].mean() - confidence[inside].mean())
    assert registry.compute_metrics(["ece"], labels, p)["ece"] == pytest.approx(expected, abs=1e-12)


@settings(deadline=None, database=None)
@given(cases, st.integers(0, 2**32))
def test_weighted_sums_equal_scikit_learn_with_sample_weights(case, seed):
    """What a bootstrap resample is: some rows several times, some not at all."""
    labels, p = case
    weights = np.random.default_rng(seed).integers(0, 4, len(labels))
    rows = np.repeat(np.arange(len(labels)), weights)
    if not len(rows):
        return
    answers = registry.LabelledProbabilities.from_arrays(labels, p)
    repeated = registry.compute_metrics(registry.list_metrics(), labels[rows], p[rows])
    for name, expected in repeated.items():
        if np.isnan(expected):
            continue
        m = registry.get_metric(name)
        added = m.compute_sums(answers)
        sums = added.unit_matrix(np.arange(len(labels)), len(labels)) @ weights[:, None].astype(float)
        assert m.value_from_sums(sums, added.layout)[0] == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize(
    ("name", "labels", "columns", "reason"),
    [
        ("roc_auc", [0, 0, 0], 2, "class 1 is not among them"),
        ("average_precision", [0, 1, 1], 3, "class 2 is not among them"),
        ("top5_accuracy", [0, 1, 2], 5, "with 5 classes"),
        ("accuracy", [], 2, "no predictions"),
    ],
)
def test_undefined_is_nan_with_a_reason(name, labels, columns, reason):
    truth = np.array(labels, dtype=np.int64)
    p = np.tile(np.eye(columns)[0], (len(labels), 1))
    assert np.isnan(registry.compute_metrics([name], truth, p)[name])
    assert reason in registry.get_metric(name).undefined_reason(registry.LabelledProbabilities.from_arrays(truth, p))


def test_kappa_of_one_class_is_undefined():
    assert np.isnan(registry.compute_metrics(["kappa"], np.zeros(3, dtype=np.int64), np.tile([1.0, 0.0], (3, 1)))["kappa"])


def test_defined_metric_has_no_reason():
    labels, p = random_case(0, 3, 40)
    assert registry.get_metric("roc_auc").undefined_reason(registry.LabelledProbabilities.from_arrays(labels, p)) == ""


def test_unknown_metric_offers_the_nearest():
    with pytest.raises(SpecError, match="no metric 'macro_f'; did you mean 'macro_f1'"):
        registry.get_metric("macro_f")


@pytest.mark.parametrize(
    ("labels", "probabilities", "sentence"),
    [
        (np.array([0, 1]), np.full((3, 2), 0.5), r"labels \(N,\) and probabilities"),
        (np.array([0, 2]), np.full((2, 2), 0.5), "labels run from 0 to 2"),
        (np.array([0, -1]), np.full((2, 2), 0.5), "labels run from -1"),
        (np.array([0.0, 1.0]), np.full((2, 2), 0.5), "not float64"),
        (np.array([0, 1]), np.array([[2.0, -1.0], [0.5, 0.5]]), "through softmax"),
        (np.array([0, 1]), np.array([[np.nan, 1.0], [0.5, 0.5]]), "through softmax"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(labels, probabilities, sentence):
    with pytest.raises(DataError, match=sentence):
        registry.compute_metrics(["accuracy"], labels, probabilities)


def test_softmax_is_stable_for_extreme_float32_logits():
    logits = np.array([[3e38, -3e38, 0.0], [-1e30, -1e30, -1e30]], dtype=np.float32)
    np.testing.assert_allclose(softmax(logits), [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_softmax_with_temperature_flattens():
    np.testing.assert_allclose(softmax(np.array([[2.0, 0.0]]), temperature=2.0), [[np.e / (np.e + 1), 1 / (np.e + 1)]])


def test_every_metric_knows_its_direction():
    """A better classifier (its answers pulled towards the truth) is better by every metric."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 400)
    p = rng.dirichlet(np.ones(8), 400)
    better = 0.1 * p + 0.9 * np.eye(8)[labels]
    before, after = (
        registry.compute_metrics(registry.list_metrics(), labels, p),
        registry.compute_metrics(registry.list_metrics(), labels, better),
    )
    for name, m in ((name, registry.METRICS[name]) for name in registry.list_metrics()):
        assert (after[name] > before[name]) == m.higher_is_better, name
