"""Thresholds are chosen on rows that they are not judged on, and are those of scikit-learn's ROC curve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from phoropter.results.clinical import operating_points as points
from phoropter.results.clinical.operating_points import CrossFitting, Goal, ScoredRows
from phoropter.results.stats.held_out_rows import HeldOutRows


def make_rows(people: int = 40, per_person: int = 3, folds: int = 4, rounds: int = 2, overlap: bool = False) -> HeldOutRows:
    draw = np.random.default_rng(8)
    n = people * per_person
    person = np.arange(n) // per_person
    labels = np.tile(((person % 3) == 0).astype(np.int64), rounds)
    p = np.round(1 / (1 + np.exp(1 - 1.5 * labels - draw.normal(size=n * rounds))), 3)
    repeats = np.repeat(np.arange(rounds), n)
    fold = (np.arange(n) if overlap else person) % folds
    names = np.tile(np.array([f"p{i}" for i in person]), rounds)
    return HeldOutRows(labels, np.stack([1 - p, p], axis=1), names, repeats * folds + np.tile(fold, rounds), repeats)


@pytest.mark.parametrize("goal", points.GOALS, ids=lambda g: g.title)
def test_a_threshold_is_the_one_of_the_roc_curve(goal: Goal) -> None:
    rows = make_rows()
    scored = ScoredRows.from_probabilities(rows.labels, rows.probabilities, 1)
    false, true, thresholds = roc_curve(scored.positive, scored.scores, drop_intermediate=False)
    kept = false <= 1 - goal.value + 1e-12 if goal.kind == "specificity" else true >= goal.value - 1e-12
    expected = thresholds[kept][-1 if goal.kind == "specificity" else 0]
    assert points.choose_threshold(scored, goal) == pytest.approx(expected)


def test_labels_planted_in_a_tested_part_do_not_move_its_threshold() -> None:
    rows = make_rows()
    for goal in points.GOALS:
        before = CrossFitting(rows, 1).choose_thresholds(goal)
        for split in range(8):
            labels = rows.labels.copy()
            labels[rows.splits == split] = 1 - labels[rows.splits == split]
            after = CrossFitting(replace_labels(rows, labels), 1).choose_thresholds(goal)
            assert after[split] == before[split]
            assert (np.delete(after, split) != np.delete(before, split)).any()  # the others do read these labels


def replace_labels(rows: HeldOutRows, labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> HeldOutRows:
    return HeldOutRows(labels, rows.probabilities, rows.unit_names, rows.splits, rows.repeats)


def test_a_threshold_comes_from_the_other_splits_of_its_round() -> None:
    rows, goal = make_rows(), points.GOALS[0]
    found = CrossFitting(rows, 1).choose_thresholds(goal)
    for split in range(8):
        others = (rows.repeats == split // 4) & (rows.splits != split)
        negatives = np.sort(rows.probabilities[others & (rows.labels == 0), 1])[::-1]
        allowed = int(np.floor(0.1 * len(negatives) + 1e-9))
        scores = np.unique(rows.probabilities[others, 1])
        assert found[split] == scores[scores > negatives[allowed]][0]  # so many negatives are above, and no more
        assert (negatives >= found[split]).sum() <= allowed < (negatives >= scores[scores < found[split]][-1]).sum()


def test_people_of_the_tested_part_choose_no_threshold() -> None:
    rows = make_rows(overlap=True, per_person=2, folds=2)  # everybody is on both sides
    assert np.isnan(CrossFitting(rows, 1).choose_thresholds(points.GOALS[0])).all()
    assert CrossFitting(rows, 1).judge_goal(points.GOALS[0]) is None


def test_one_split_takes_its_threshold_from_inner_validation_rows() -> None:
    rows, goal = make_rows(folds=1, rounds=1), Goal("specificity", 0.8)
    assert CrossFitting(rows, 1).judge_goal(goal) is None
    inner = ScoredRows(np.array([False] * 10 + [True] * 2), np.concatenate([np.arange(10) / 10, [0.85, 0.95]]))
    found = CrossFitting(rows, 1, {0: inner}).judge_goal(goal)
    assert found is not None and found.thresholds.tolist() == [0.8]  # two of ten alarmed
    alarms = rows.probabilities[:, 1] >= 0.8
    assert found.statistics.sensitivity.estimate == pytest.approx(alarms[rows.labels == 1].mean())
    assert found.statistics.specificity.estimate == pytest.approx(1 - alarms[rows.labels == 0].mean())


def test_each_row_is_judged_by_the_threshold_of_its_split() -> None:
    rows, goal = make_rows(), points.GOALS[2]
    found = CrossFitting(rows, 1).judge_goal(goal)
    assert found is not None
    alarms = rows.probabilities[:, 1] >= found.thresholds[rows.splits]
    assert found.statistics.alarms.estimate == pytest.approx(alarms.mean())
    assert found.statistics.ppv.estimate == pytest.approx((rows.labels == 1)[alarms].mean())
    plain = CrossFitting(rows, 1).judge_goal(None)
    assert plain is not None and plain.title == "Threshold 0.5"
    answers = rows.probabilities.argmax(axis=1) == 1
    assert plain.statistics.npv.estimate == pytest.approx((rows.labels == 0)[~answers].mean())


def test_where_no_alarm_keeps_the_specificity_nobody_is_alarmed() -> None:
    scored = ScoredRows(np.array([True, False, True]), np.array([0.2, 0.9, 0.5]))
    assert points.choose_threshold(scored, Goal("specificity", 0.9)) == np.inf
    assert np.isnan(points.choose_threshold(replace(scored, positive=np.array([True] * 3)), Goal("specificity", 0.9)))
