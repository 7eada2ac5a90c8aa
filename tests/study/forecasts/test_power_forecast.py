"""What `plan` says a study could find, against numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from phoropter.core.language.unit_words import UnitWord
from phoropter.results.metrics.registry import METRICS
from phoropter.study.forecasts.power_forecast import (
    PlannedSize,
    forecast_power,
    guess_variance,
    measure_plan,
    rows_answer,
    training_answer,
)
from phoropter.study.plan import plan_study
from phoropter.study.spec import read_study

STUDY = """\
name: tiny
data: {digits: true, size: 32, max_samples: 120}
protocol: {split: %s}
metrics: [%s]
candidates:
  - {name: a, backbone: {name: test_resnet, weights: random, seed: 1}, recipe: scratch}
  - {name: b, backbone: {name: test_resnet, weights: random, seed: 2}, recipe: scratch}
  - {name: c, backbone: {name: test_resnet, weights: random, seed: 3}, recipe: scratch}
"""
FOLDS = PlannedSize("folds", 360, 360, UnitWord("row", "rows"), 0.15 / 360, 5, 1, 6, 1 / 4)
PEOPLE = UnitWord("person", "people")


def lines_of(tmp_path: Path, split: str, metric: str = "accuracy") -> list[str]:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY % (split, metric))
    return forecast_power(plan_study(read_study(file)[0], tmp_path / "cache"))


def test_rows_of_folds_by_the_noncentral_t() -> None:
    size = rows_answer(FOLDS).detectable / np.sqrt(0.15 / 360)
    assert stats.nct.sf(stats.t.ppf(1 - 0.05 / 12, 359), 359, size) == pytest.approx(0.8, abs=1e-5)


def test_training_by_its_two_parts_and_more_seeds_bring_more() -> None:
    """One round of 5 folds: fold variance 5 A (1 + 0.4), of which rows 5 A; c = 1/5 + 1/4."""
    rows = 0.15 / 360
    critical = np.sqrt(stats.t.ppf(0.975, 359) ** 2 * (rows - 0.45 * 5 * rows) + stats.t.ppf(0.975, 4) ** 2 * 0.45 * 7 * rows)
    one = training_answer(FOLDS, 1)
    assert one is not None and one.result.high == pytest.approx(critical)
    five = training_answer(FOLDS, 5)
    assert five is not None and five.detectable < one.detectable
    assert five.detectable > rows_answer(FOLDS).detectable


def test_groups_count_by_their_design_effect_and_five_people_find_nothing() -> None:
    folds = PlannedSize("folds", 1000, 20, PEOPLE, 0.15 / 1000, 5, 1, 1, 1 / 4)
    assert folds.row_variance == pytest.approx(0.15 / 1000 * (1 + 49 * 0.1))
    five = rows_answer(PlannedSize("groups", 1000, 5, PEOPLE, 0.15 / 1000, 5, 1, 1, 1 / 4))
    assert not five.level_reachable and np.isnan(five.detectable)
    many = PlannedSize("groups", 1000, 20, PEOPLE, 0.15 / 1000, 20, 1, 1, 1 / 19)
    again = training_answer(many, 1)
    assert again is not None and again.detectable > rows_answer(many).detectable > 0
    assert training_answer(PlannedSize("one test set", 100, 100, PEOPLE, 0.01, 1, 1, 1, 1 / 4), 1) is None


def test_variance_by_metric() -> None:
    assert guess_variance(METRICS["accuracy"], [30, 90]) == pytest.approx(0.15 / 120)
    assert guess_variance(METRICS["macro_f1"], [30, 90]) == pytest.approx((0.15 / 30 + 0.15 / 90) / 4)
    assert guess_variance(METRICS["log_loss"], [30, 90]) is None and guess_variance(METRICS["roc_auc"], [9, 9, 9]) is None
    draw, areas = np.random.default_rng(0), []
    gap = np.sqrt(2) * stats.norm.ppf(0.85)
    for _ in range(3000):
        areas.append((draw.normal(gap, 1, 30)[:, None] > draw.normal(0, 1, 90)).mean())
    assert guess_variance(METRICS["roc_auc"], [30, 90]) == pytest.approx(2 * 0.4 * np.var(areas), rel=0.1)


def test_lines_of_a_plan(tmp_path: Path) -> None:
    first, rows, again = lines_of(tmp_path, "stratified-k-fold")
    assert first.startswith("a difference in Accuracy that is found 8 times in 10 after correction for 3 pairs, if only one of")
    size = PlannedSize("folds", 120, 120, UnitWord("row", "rows"), 0.15 / 120, 5, 1, 3, 1 / 4)
    twice = PlannedSize("folds", 240, 240, UnitWord("row", "rows"), 0.15 / 240, 5, 1, 3, 1 / 4)
    found, more = (rows_answer(each).detectable * 100 for each in (size, twice))
    assert rows == f"  on new rows like these: {found:.1f} points; with twice as many rows {more:.1f} points"
    five, of_twice = training_answer(size, 5), training_answer(twice, 1)
    assert five is not None and of_twice is not None
    assert again.endswith(
        f"with 5 seeds {five.detectable * 100:.1f} points; with twice as many rows {of_twice.detectable * 100:.1f} points"
    )
    assert "cannot be told from one training part" in lines_of(tmp_path, "hold-out")[-1]
    assert lines_of(tmp_path, "hold-out", "log_loss") == []


def test_a_difference_that_cannot_be_is_not_promised(tmp_path: Path) -> None:
    """Two folds of one seed: by one degree of freedom more than 100 points would be needed."""
    _, rows, again = lines_of(tmp_path, "stratified-k-fold, folds: 2, seeds: [0]")
    size = PlannedSize("folds", 120, 120, UnitWord("row", "rows"), 0.15 / 120, 2, 1, 3, 1.0)
    answer = training_answer(size, 1)
    assert answer is not None and answer.detectable > 1 and "none" not in rows
    assert again.startswith(
        "  if trained again on other data: none, for not even the largest possible difference would be found; "
    )


def test_what_a_plan_measures(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY % ("stratified-k-fold, folds: 4, seeds: [0, 1, 2]", "accuracy"))
    found = measure_plan(plan_study(read_study(file)[0], tmp_path / "cache"), METRICS["accuracy"])
    assert found is not None
    assert (found.kind, found.n_rows, found.n_units, found.folds, found.rounds, found.n_pairs) == ("folds", 120, 120, 4, 3, 3)
    assert found.test_to_train == pytest.approx(1 / 3)
    file.write_text(STUDY % ("stratified-k-fold, seeds: [0, 1], reshuffle: false", "accuracy"))
    shared = measure_plan(plan_study(read_study(file)[0], tmp_path / "cache"), METRICS["accuracy"])
    assert shared is not None and shared.rounds == 1
