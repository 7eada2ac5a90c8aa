"""Contributions of units against the bootstrap's influences, literal re-weighting, and rows that do not match."""

from __future__ import annotations

import numpy as np
import pytest

from phoropter.results.intervals.bootstrap import UnitRows
from phoropter.results.metrics.registry import compute_metrics
from phoropter.results.stats.pairs.unit_contributions import ContributionReader, UnitContributions
from phoropter.results.store import Predictions

METRICS = ("accuracy", "macro_f1", "roc_auc", "log_loss", "average_precision", "mcc", "balanced_accuracy")


def made_runs(rounds: int = 2, folds: int = 4, rows: int = 96, groups: int = 0, salt: int = 0):
    """Folds of one data set, each round with its own partition, and the round of each."""
    draw = np.random.default_rng([7, salt])
    labels = np.random.default_rng(1).integers(0, 2, rows)
    names = np.array([f"r{i:03d}" for i in range(rows)])
    owner = np.array([f"g{i % groups:02d}" for i in range(rows)]) if groups else None
    runs, of_round = {}, {}
    for r in range(rounds):
        fold_of = np.random.default_rng(r).permutation(np.arange(rows) % folds)
        for k in range(folds):
            test = np.flatnonzero(fold_of == k)
            logits = draw.normal(size=(len(test), 2)) + 0.8 * np.eye(2)[labels[test]]
            group = None if owner is None else owner[test]
            runs[f"{r}-{k}", r] = Predictions(names[test], labels[test], logits.astype(np.float32), group)
            of_round[f"{r}-{k}", r] = r
    return runs, of_round


def read(metric: str, made, pooled: bool = False) -> UnitContributions:
    found = ContributionReader(metric, pooled).read_candidate(*made)
    assert found is not None
    return found


@pytest.mark.parametrize("groups", [0, 12])
@pytest.mark.parametrize("metric", METRICS)
def test_mean_influences_are_those_of_the_bootstrap(metric, groups):
    runs, of_round = made_runs(groups=groups)
    found = read(metric, (runs, of_round))
    sheets = list(runs.values())
    units = np.concatenate([s.ids if s.groups is None else s.groups for s in sheets])
    rows = UnitRows(
        np.concatenate([s.labels for s in sheets]), units, np.repeat(np.arange(len(sheets)), [len(s.labels) for s in sheets])
    )
    value, slopes = rows.compute_influences(metric, np.concatenate([s.probabilities for s in sheets]))
    assert found.values.mean() == pytest.approx(value)
    np.testing.assert_allclose(found.mean_influences, slopes, atol=1e-9)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "log_loss"])
def test_slopes_are_what_a_row_more_changes(metric, pooled):
    """A copy of a row added, on 4 × 24 rows: the first order of the change of the mean over splits or of the round."""
    runs, of_round = made_runs(rounds=1)
    found = read(metric, (runs, of_round), pooled)
    key = ("0-2", 0)

    def value_of(sheets) -> float:
        parts = [list(sheets.values())] if pooled else [[s] for s in sheets.values()]
        each = [
            compute_metrics([metric], np.concatenate([s.labels for s in p]), np.concatenate([s.probabilities for s in p]))[metric]
            for p in parts
        ]
        return float(np.mean(each))

    entries = np.flatnonzero(found.layout.split_of == found.layout.splits.index("0-2"))
    for row in range(24):
        s = runs[key]
        twice = np.append(np.arange(24), row)
        more = Predictions(s.ids[twice], s.labels[twice], s.logits[twice])
        changed = value_of({**runs, key: more}) - value_of(runs)
        entry = entries[found.layout.units[found.layout.unit_of[entries]] == s.ids[row]][0]
        assert changed == pytest.approx(found.slopes[entry] / 4, rel=0.15, abs=2e-4)


def test_pooled_values_of_a_mean_are_those_of_the_splits():
    """Equal folds: the accuracy of each split; shares are 1."""
    runs, of_round = made_runs()
    pooled, split = read("accuracy", (runs, of_round), True), read("accuracy", (runs, of_round))
    np.testing.assert_allclose(pooled.values, split.values, atol=1e-12)
    np.testing.assert_allclose(pooled.shares, 1)
    np.testing.assert_allclose(pooled.mean_influences, split.mean_influences, atol=1e-12)


def test_pooled_mean_is_the_metric_of_all_rows_and_shares_undo_the_weights():
    runs, of_round = made_runs(rounds=1, folds=5)  # 96 rows: folds of 20 and 19
    found = read("accuracy", (runs, of_round), True)
    right = np.concatenate([s.logits.argmax(1) == s.labels for s in runs.values()])
    assert found.values.mean() == pytest.approx(right.mean())
    own = [(s.logits.argmax(1) == s.labels).mean() for s in runs.values()]
    np.testing.assert_allclose(found.unweighted_values, own, atol=1e-12)


def test_variances_of_splits_are_those_of_their_rows():
    runs, of_round = made_runs()
    expected = [(s.logits.argmax(1) == s.labels).var(ddof=1) / len(s.labels) for s in runs.values()]
    np.testing.assert_allclose(read("accuracy", (runs, of_round)).split_variances, expected)


def test_runs_on_the_same_rows_are_averaged():
    runs, _ = made_runs(rounds=1)
    other, _ = made_runs(rounds=1, salt=1)
    both = {(k, seed): s for seed, part in enumerate((runs, other)) for (k, _), s in part.items()}
    found = ContributionReader("accuracy").read_candidate(both)
    one, two = (ContributionReader("accuracy").read_candidate(part) for part in (runs, other))
    np.testing.assert_allclose(found.values, (one.values + two.values) / 2)
    np.testing.assert_allclose(found.mean_influences, (one.mean_influences + two.mean_influences) / 2)


def test_a_difference_is_linear_and_rows_of_one_alone_count_for_it_alone():
    reader = ContributionReader("accuracy")
    runs, of_round = made_runs()
    others, _ = made_runs(salt=1)
    a, b = reader.read_candidate(runs, of_round), reader.read_candidate(others, of_round)
    assert a.layout is b.layout
    straight = a.subtract_other(b)
    np.testing.assert_allclose(straight.mean_influences, a.mean_influences - b.mean_influences, atol=1e-15)
    aligned = UnitContributions.subtract_other(
        a, UnitContributions(type(b.layout)("other", *[getattr(b.layout, f) for f in FIELDS]), b.values, b.slopes, b.shares)
    )
    np.testing.assert_allclose(aligned.mean_influences, straight.mean_influences, atol=1e-15)
    np.testing.assert_allclose(aligned.centred_slopes, straight.centred_slopes, atol=1e-15)
    np.testing.assert_allclose(aligned.values, straight.values)
    fewer = {k: s for k, s in others.items() if k[0] != "1-3"}
    part = a.subtract_other(ContributionReader("accuracy").read_candidate(fewer, of_round))
    assert part.layout.splits == tuple(k[0] for k in runs if k[0] != "1-3")
    np.testing.assert_allclose(part.values, straight.values[:-1])


FIELDS = ("splits", "rounds", "split_of", "unit_of", "units")


def test_no_value_no_contributions():
    runs, of_round = made_runs(rounds=1)
    one_class = {k: Predictions(s.ids, np.zeros_like(s.labels), s.logits) for k, s in runs.items()}
    assert ContributionReader("roc_auc").read_candidate(one_class, of_round) is None
    mixed = {**one_class, ("0-1", 0): runs["0-1", 0]}
    assert ContributionReader("roc_auc").read_candidate(mixed, of_round).layout.splits == ("0-1",)
    assert len(ContributionReader("roc_auc", pooled=True).read_candidate(mixed, of_round).values) == 4
