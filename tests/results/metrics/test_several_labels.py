"""Metrics of rows with several labels against scikit-learn; their resamples, tests and value without information."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as sk

from phoropter.core.errors import DataError, SpecError
from phoropter.results.intervals.bootstrap import Bootstrap
from phoropter.results.metrics.probabilities import apply_sigmoid, average_probabilities
from phoropter.results.metrics.registry import check_label_kind, compute_metrics, get_metric
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities, assign_bins, count_answers
from phoropter.results.run_folder import Predictions
from phoropter.results.stats.compare import ensemble_predictions
from phoropter.results.stats.estimand import choose_estimand
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.stats.no_information import value_without_information
from phoropter.results.stats.permutation import unit_swap_test

NAMES = [
    "macro_f1",
    "macro_precision",
    "macro_recall",
    "micro_f1",
    "roc_auc",
    "micro_roc_auc",
    "average_precision",
    "micro_average_precision",
    "hamming_loss",
    "exact_match",
    "log_loss",
    "brier",
    "ece",
]


def answers(rows: int = 300, seed: int = 0, skill: float = 1.5) -> tuple[NDArray[Any], NDArray[Any]]:
    random = np.random.default_rng(seed)
    labels = (random.random((rows, 4)) < (0.5, 0.3, 0.15, 0.1)).astype(np.int64)
    logits = skill * (2 * labels - 1) + 2 * random.normal(size=labels.shape)
    return labels, apply_sigmoid(np.round(logits, 1))  # ties


def test_values_are_scikit_learns() -> None:
    y, p = answers()
    found = compute_metrics(NAMES, y, p)
    answer = (p > 0.5).astype(int)
    expected = {
        "macro_f1": sk.f1_score(y, answer, average="macro"),
        "macro_precision": sk.precision_score(y, answer, average="macro"),
        "macro_recall": sk.recall_score(y, answer, average="macro"),
        "micro_f1": sk.f1_score(y, answer, average="micro"),
        "roc_auc": sk.roc_auc_score(y, p, average="macro"),
        "micro_roc_auc": sk.roc_auc_score(y, p, average="micro"),
        "average_precision": sk.average_precision_score(y, p, average="macro"),
        "micro_average_precision": sk.average_precision_score(y, p, average="micro"),
        "hamming_loss": sk.hamming_loss(y, answer),
        "exact_match": sk.accuracy_score(y, answer),
        "log_loss": np.mean([sk.log_loss(y[:, k], p[:, k]) for k in range(4)]),
        "brier": np.mean([sk.brier_score_loss(y[:, k], p[:, k]) for k in range(4)]),
        "ece": np.mean([plain_calibration_error(y[:, k], p[:, k]) for k in range(4)]),
    }
    assert found == pytest.approx(expected, abs=1e-12)


def plain_calibration_error(y: NDArray[Any], p: NDArray[Any]) -> float:
    bins = assign_bins(p, 15)
    return sum(abs(p[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_by_units_are_those_of_weighted_rows(name: str) -> None:
    y, p = answers(120)
    units = np.repeat(np.arange(40), 3)
    metric, rows = get_metric(name), LabelledProbabilities.from_arrays(y, p)
    value, slopes = metric.compute_unit_gradient(rows, units, 40)
    sums = metric.compute_sums(rows)
    matrix = sums.unit_matrix(units, 40)
    for unit in (0, 7):
        weights = np.ones((40, 2))
        weights[unit] += [1e-4, -1e-4]
        up, down = metric.value_from_sums(np.asarray(matrix @ weights), sums.layout)
        assert slopes[unit] == pytest.approx((up - down) / 2e-4, abs=2e-5)
    assert value == pytest.approx(compute_metrics([name], y, p)[name])


def test_resamples_draw_units_with_all_their_rows() -> None:
    y, p = answers(90)
    groups = np.array([f"p{row % 30}" for row in range(90)])
    found = Bootstrap(y, groups, resamples=200).compute_replicates("micro_f1", p)
    draws = Bootstrap(y, groups, resamples=200).draws
    weights = np.concatenate(list(draws.weight_blocks("simple", 500)), axis=1)
    units = np.unique(groups, return_inverse=True)[1]
    for column in range(3):
        repeated = np.repeat(np.arange(90), weights[units, column].astype(int))
        assert found.values[column] == pytest.approx(sk.f1_score(y[repeated], p[repeated] > 0.5, average="micro"))


@pytest.mark.parametrize("name", ["roc_auc", "macro_f1", "average_precision"])
def test_resamples_of_a_macro_mean_have_every_label(name: str) -> None:
    y, p = answers(60, seed=3)
    made = Bootstrap(y, resamples=300).compute_replicates(name, p)
    assert np.isfinite(made.values).all()
    interval = made.confidence_interval()
    assert interval.low < interval.estimate < interval.high and "DeLong" not in interval.method


def test_intervals_cover_the_truth_of_groups() -> None:
    """Macro AUC of people with several rows each: 95 % intervals over 100 draws of the people."""
    truth = compute_metrics(["roc_auc"], *answers(60_000, seed=9))["roc_auc"]
    inside = []
    for seed in range(100):
        y, p = answers(160, seed=100 + seed)
        found = Bootstrap(y, np.arange(160) // 4, resamples=20).compute_replicates("roc_auc", p).confidence_interval()
        inside.append(found.low <= truth <= found.high)
    assert 0.90 <= np.mean(inside) <= 0.99


def test_a_label_without_both_answers_leaves_macro_auc_undefined_and_says_which() -> None:
    y, p = answers(50)
    y[:, 2] = 0
    assert np.isnan(compute_metrics(["roc_auc"], y, p)["roc_auc"]) and np.isfinite(
        compute_metrics(["micro_f1"], y, p)["micro_f1"]
    )
    reason = get_metric("roc_auc").undefined_reason(LabelledProbabilities.from_arrays(y, p))
    assert reason == "ROC-AUC needs rows with and without every label; there are none with label 2"
    estimand = choose_estimand("roc_auc", HeldOutRows(y, p, np.arange(50), np.arange(50) % 2, np.zeros(50)).split_supports)
    assert estimand.kind == "pooled"


@pytest.mark.parametrize("name", ["hamming_loss", "log_loss", "exact_match"])
def test_a_test_part_is_judged_by_its_rows_and_not_by_their_answers(name: str) -> None:
    """Four rows of four labels have 16 answers."""
    y, _ = answers(40)
    for size, has_spread in ((4, False), (10, True)):
        assert choose_estimand(name, [count_answers(y[at : at + size], y.shape[1]) for at in (0, 20)]).has_spread == has_spread


def test_what_has_no_meaning_is_refused() -> None:
    y, p = answers(20)
    with pytest.raises(
        SpecError, match="'accuracy' has no meaning where rows may have several labels; choose among macro_precision"
    ):
        check_label_kind(["roc_auc", "accuracy"], multi_label=True)
    with pytest.raises(SpecError, match="'hamming_loss' has no meaning where rows have one class each"):
        check_label_kind(["hamming_loss"], multi_label=False)
    assert np.isnan(compute_metrics(["kappa"], y, p)["kappa"])
    assert np.isnan(compute_metrics(["micro_f1"], np.array([0, 1]), np.array([[0.5, 0.5], [0.1, 0.9]]))["micro_f1"])
    for bad, message in ((p[:, :3], "take labels and probabilities"), (p * 3, "lie from 0 to 1")):
        with pytest.raises(DataError, match=message):
            LabelledProbabilities.from_arrays(y, bad)


def test_the_value_without_information_is_that_of_the_best_guess() -> None:
    y, p = answers(400)
    shares = y.mean(axis=0)
    entropy = -(shares * np.log(shares) + (1 - shares) * np.log(1 - shares)).mean()
    assert value_of("log_loss", y, p) == pytest.approx(entropy)
    assert value_of("brier", y, p) == pytest.approx((shares * (1 - shares)).mean())
    assert value_of("roc_auc", y, p) == 0.5
    assert value_of("hamming_loss", y, p) == pytest.approx(np.minimum(shares, 1 - shares).mean())
    always = (2 * shares / (1 + shares)).mean()
    assert value_of("macro_f1", y, p) >= always - 1e-9
    assert value_of("micro_roc_auc", y, p) == pytest.approx(sk.roc_auc_score(y, np.tile(shares, (400, 1)), average="micro"))
    assert value_of("average_precision", y, p) == pytest.approx(shares.mean(), abs=0.02)


def value_of(name: str, y: NDArray[Any], p: NDArray[Any]) -> float:
    found = value_without_information(name, y, p)
    assert found is not None
    return found.value


def test_pairs_are_swapped_unit_by_unit() -> None:
    y, p = answers(120, skill=1.5)
    _, worse = answers(120, skill=0.2)
    units = np.arange(120) // 4
    found = unit_swap_test("roc_auc", y, p, worse, units)
    expected = compute_metrics(["roc_auc"], y, p)["roc_auc"] - compute_metrics(["roc_auc"], y, worse)["roc_auc"]
    assert found.difference == pytest.approx(expected, abs=1e-9) and found.p < 0.01
    assert unit_swap_test("roc_auc", y, p, p, units).p == 1


def test_predictions_keep_labels_by_column_and_probabilities_of_each(tmp_path: Path) -> None:
    y, p = answers(8)
    logits = np.log(p / (1 - p)).astype(np.float32)
    Predictions(np.arange(8).astype(str), y, logits).save(tmp_path / "predictions.npz")
    read = Predictions.load(tmp_path / "predictions.npz")
    assert read.is_multi_label and read.labels.tolist() == y.tolist()
    np.testing.assert_allclose(read.probabilities, p, atol=1e-6)
    mean = average_probabilities([logits, -logits], multi_label=True)
    np.testing.assert_allclose(apply_sigmoid(mean), 0.5)
    weighted = apply_sigmoid(average_probabilities([logits, -logits], [3, 1], multi_label=True))
    np.testing.assert_allclose(weighted, 0.75 * p + 0.25 * (1 - p), atol=1e-6)
    both = ensemble_predictions([read, Predictions(read.ids, y, -logits)])
    np.testing.assert_allclose(both.probabilities, 0.5, atol=1e-6)
