"""What `plan` says of the width of an interval and of differences, against the intervals and the power of simulated studies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from phoropter.core.language.unit_words import ROW, UnitWord
from phoropter.results.intervals.bootstrap import Bootstrap
from phoropter.results.metrics.registry import METRICS
from phoropter.study.forecasts.interval_forecast import RIGHT, expected_half_width, forecast_interval
from phoropter.study.forecasts.power_forecast import AREA, DISCORDANT, INTRACLASS, PlannedSize, guess_variance, rows_answer
from phoropter.study.plan import plan_study
from phoropter.study.spec import read_study

PEOPLE = UnitWord("person", "people")


def make_size(n_rows: int, n_units: int, variance: float = 1.0) -> PlannedSize:
    return PlannedSize("folds", n_rows, n_units, ROW if n_rows == n_units else PEOPLE, variance, 5, 1, 1, 0.25)


@pytest.mark.parametrize("factor", [1, 2])
def test_the_width_is_that_of_simulated_people(factor: int) -> None:
    """40 people with 12 rows each, whose chances of a right answer vary so that rows of one person correlate by 0.1."""
    draw, people, rows = np.random.default_rng(0), 40 * factor, 12
    widths = []
    for _ in range(60):
        rest = (1 - INTRACLASS) / INTRACLASS
        chance = draw.beta(RIGHT * rest, (1 - RIGHT) * rest, people)
        right = (draw.random((people, rows)) < chance[:, None]).ravel().astype(float)
        bootstrap = Bootstrap(np.zeros(people * rows, dtype=np.int64), np.repeat(np.arange(people), rows), resamples=200)
        interval = bootstrap.compute_replicates("accuracy", np.column_stack([right, 1 - right])).confidence_interval()
        widths.append((interval.high - interval.low) / 2)
    expected = expected_half_width(METRICS["accuracy"], [240, 240], make_size(480, 40), factor)
    assert expected == pytest.approx(np.mean(widths), rel=0.08)


def test_the_width_of_an_area_follows_from_the_rarer_class() -> None:
    """Normal scores of 30 rows of the positive class and 270 others."""
    draw, apart, widths = np.random.default_rng(1), np.sqrt(2) * stats.norm.ppf(AREA), []
    labels = np.repeat([0, 1], [270, 30])
    bootstrap = Bootstrap(labels, resamples=50)
    for _ in range(100):
        share = stats.norm.cdf(draw.normal(size=300) + apart * labels)
        interval = bootstrap.compute_replicates("roc_auc", np.column_stack([1 - share, share])).confidence_interval()
        widths.append((interval.high - interval.low) / 2)
    expected = expected_half_width(METRICS["roc_auc"], [270, 30], make_size(300, 300))
    assert expected == pytest.approx(np.mean(widths), rel=0.1)
    assert expected_half_width(METRICS["roc_auc"], [150, 150], make_size(300, 300)) < 0.7 * expected


def test_a_difference_that_plan_calls_detectable_is_found_8_times_in_10() -> None:
    """The test over people of the very rows that the forecast guesses: 0.15 of them differ, alike by 0.1 in a person."""
    variance = guess_variance(METRICS["accuracy"], [240, 240])
    assert variance is not None
    for factor in (1, 2):
        size = make_size(480, 40, variance).scaled(factor)
        draw, people = np.random.default_rng(2), 40 * factor
        person = draw.normal(0, np.sqrt(DISCORDANT * INTRACLASS), (2000, people, 1))
        rows = draw.normal(0, np.sqrt(DISCORDANT * (1 - INTRACLASS)), (2000, people, 12))
        means = (rows_answer(size).detectable + person + rows).mean(axis=2)
        assert (stats.ttest_1samp(means, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_plan_says_it_in_a_sentence(tmp_path: Path) -> None:
    text = "name: a\ndata: {digits: true, size: 32, max_samples: 400}\nprotocol: {split: stratified-k-fold}\nmetrics: [%s]\n"
    candidate = "candidates: [{backbone: test_resnet, weights: random, recipe: scratch}]\n"

    def forecast(metric: str) -> list[str]:
        (tmp_path / "study.yaml").write_text(text % metric + candidate)
        return forecast_interval(plan_study(read_study(tmp_path / "study.yaml")[0], tmp_path / "cache"))

    half = stats.t.ppf(0.975, 399) * np.sqrt(0.16 / 400) * 100
    twice, four = (stats.t.ppf(0.975, n - 1) * np.sqrt(0.16 / n) * 100 for n in (800, 1600))
    assert forecast("accuracy") == [
        f"the 95 % interval of a candidate will be about ± {half:.1f} points over 400 rows, if its Accuracy is 80 %; with "
        f"800 rows ± {twice:.1f}, with 1,600 rows ± {four:.1f}"
    ]
    assert forecast("log_loss") == []
