"""Losses and their intervals against plain lines: a literal bootstrap of units, and the formula for paired means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from phoropter.results.intervals.bootstrap import Bootstrap
from phoropter.results.shift.curves import measure_losses


def some_answers(rows: int = 600, groups: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """labels, units, and (N, 2) probabilities of the rows as they are and of corrupted ones, which are worse."""
    rng = np.random.default_rng(3)
    labels, units = rng.integers(0, 2, rows), np.arange(rows) % groups
    lift = rng.normal(1.2, 0.5, groups)[units]
    score = np.where(labels == 1, lift, -lift) + rng.normal(0, 1.5, rows)
    worse = score * 0.6 + rng.normal(0, 1.2, rows)
    clean, shifted = (np.stack([1 - 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(-s))], axis=1) for s in (score, worse))
    return labels, np.array([f"u{u:02d}" for u in units]), clean, shifted


def test_the_loss_of_accuracy_and_its_interval_are_those_of_a_paired_mean_over_units() -> None:
    labels, units, clean, shifted = some_answers()
    before, losses = measure_losses("accuracy", Bootstrap(labels, units), clean, {"x": shifted})
    right = [(p.argmax(1) == labels).astype(float) for p in (clean, shifted)]
    assert before.estimate == pytest.approx(right[0].mean()) and losses["x"].value.estimate == pytest.approx(right[1].mean())
    of_units = np.array([(right[0] - right[1])[units == u].mean() for u in np.unique(units)])  # of equally many rows each
    half = stats.t.ppf(0.975, len(of_units) - 1) * stats.sem(of_units)
    assert losses["x"].loss == pytest.approx(of_units.mean())
    assert losses["x"].low == pytest.approx(of_units.mean() - half, abs=0.1 * half)
    assert losses["x"].high == pytest.approx(of_units.mean() + half, abs=0.1 * half)


def test_the_loss_of_an_auc_has_the_bounds_of_a_literal_bootstrap_of_units() -> None:
    labels, units, clean, shifted = some_answers()
    found = measure_losses("roc_auc", Bootstrap(labels, units), clean, {"x": shifted})[1]["x"]
    rng, names, drawn = np.random.default_rng(0), np.unique(units), []
    rows_of = {u: np.flatnonzero(units == u) for u in names}
    for _ in range(600):
        rows = np.concatenate([rows_of[u] for u in rng.choice(names, len(names))])
        drawn.append(roc_auc_score(labels[rows], clean[rows, 1]) - roc_auc_score(labels[rows], shifted[rows, 1]))
    assert found.loss == pytest.approx(roc_auc_score(labels, clean[:, 1]) - roc_auc_score(labels, shifted[:, 1]))
    stretch = stats.t.ppf(0.975, 59) / stats.norm.ppf(0.975) * np.sqrt(60 / 59)
    low, high = found.loss + (np.quantile(drawn, [0.025, 0.975]) - found.loss) * stretch
    assert (found.low, found.high) == (pytest.approx(low, abs=0.012), pytest.approx(high, abs=0.012))
    assert 0 < found.low < found.loss < found.high


def test_a_loss_of_a_metric_where_lower_is_better_is_above_zero_too() -> None:
    labels, units, clean, shifted = some_answers()
    found = measure_losses("log_loss", Bootstrap(labels, units), clean, {"x": shifted, "same": clean})[1]
    assert found["x"].loss > 0 and found["x"].low > 0
    assert (found["same"].loss, found["same"].low, found["same"].high) == (0, 0, 0)


def test_two_units_have_no_interval() -> None:
    labels, _, clean, shifted = some_answers()
    found = measure_losses("accuracy", Bootstrap(labels, np.arange(600) % 2), clean, {"x": shifted})[1]["x"]
    assert np.isnan(found.low) and np.isnan(found.high) and np.isfinite(found.loss)
