"""What the two answers about a pair say in words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from phoropter.core.language.unit_words import UnitWord
from phoropter.report.sections.candidates.pair_words import (
    describe_difference,
    describe_reach,
    describe_rows_answer,
    describe_training_answer,
    verdict_word,
)
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.paired_tests import PairedTest
from phoropter.results.stats.pairs.answers import Answer, Comparison

PICTURES: Any = SimpleNamespace(unit_word=UnitWord("row", "rows"), ranking_metric=METRICS["accuracy"])
PEOPLE: Any = SimpleNamespace(unit_word=UnitWord("person", "people"), ranking_metric=METRICS["accuracy"])
ON_ROWS = PairedTest("paired t over units", 0.1667, 1e-9, 0.12, 0.2133, se=0.024, df=300, n_units=360)
AGAIN = PairedTest("two-component t", 0.1667, 0.07, -0.02, 0.35, se=0.07, df=4, n_units=5)
FIVE = PairedTest("Wilcoxon signed-rank", 0.346, 1 / 16, 0.318, 0.374, se=0.01, n_units=5, least_p=1 / 16, n_counted=5)


def pair(rows: PairedTest, training: PairedTest, splits: int = 5, rounds: int = 1, pairs: int = 1, **more: Any) -> Comparison:
    a = Answer("rows", rows).with_verdict(min(1, rows.p * pairs), pairs, "accuracy", None)
    b = Answer("training", training).with_verdict(min(1, training.p * pairs), pairs, "accuracy", None)
    return Comparison("V1", "V1+V2", "accuracy", rows.difference, a, b, splits, rounds, **more)


def test_the_sentence_of_the_360_pictures() -> None:
    one = pair(ON_ROWS, AGAIN)
    assert describe_rows_answer(one, PICTURES) == "is ahead of V1+V2 on these rows (16.7 points, 12.0 to 21.3)"
    assert (
        describe_training_answer(one)
        == "whether training again would repeat that cannot be told from one round of 5 folds: add seeds"
    )


def test_training_again_by_what_there_is() -> None:
    sure = replace(AGAIN, p=0.001, low=0.05, high=0.28)
    assert describe_training_answer(pair(ON_ROWS, sure)) == "training again on other data of this size would repeat that"
    assert describe_training_answer(pair(ON_ROWS, AGAIN, 15, 3)).endswith("cannot be told from 3 rounds of 5 folds")
    none = PairedTest("none", 0.1667, np.nan, note="there is one training part")
    assert describe_training_answer(pair(ON_ROWS, none, 1)).endswith("cannot be told from one training part")
    assert describe_training_answer(pair(replace(ON_ROWS, p=0.4, low=-0.1), AGAIN)) == ""


def test_five_people() -> None:
    one = pair(FIVE, replace(AGAIN, p=1 / 16))
    assert describe_reach(one.rows, PEOPLE) == "with five people no difference can reach 5\u00a0% by this test"
    assert verdict_word(one, one.rows, PEOPLE) == "cannot tell: five people are too few"
    assert describe_rows_answer(one, PEOPLE).endswith(": with five people no difference can reach 5\u00a0% by this test")


def test_eight_people_among_ten_pairs_and_four_rows_apart() -> None:
    eight = replace(FIVE, p=2 / 2**8, least_p=2 / 2**8, n_units=8, n_counted=8)
    many = pair(eight, AGAIN, pairs=10)
    assert describe_reach(many.rows, PEOPLE).endswith("can reach 5\u00a0% after correction for 10 pairs by this test")
    assert describe_reach(pair(eight, AGAIN).rows, PEOPLE) == ""
    rows = PairedTest("McNemar exact", 0.02, 0.125, -0.01, 0.05, se=0.01, n_units=200, least_p=0.125, n_counted=4)
    found = describe_reach(pair(rows, AGAIN).rows, PICTURES)
    assert found.startswith("with four rows that only one of the two gets right no difference can reach")


@pytest.mark.parametrize(
    "metric, shown",
    [("accuracy", "16.7 points, 12.0 to 21.3"), ("roc_auc", "0.167, 0.120 to 0.213"), ("log_loss", "\u22120.167")],
)
def test_differences_are_shown_so_that_positive_is_better(metric: str, shown: str) -> None:
    summary: Any = SimpleNamespace(unit_word=PICTURES.unit_word, ranking_metric=METRICS[metric])
    assert describe_difference(pair(ON_ROWS, AGAIN), Answer("rows", ON_ROWS), summary).startswith(shown)


def test_identical_answers_are_said_to_be_so() -> None:
    zero = PairedTest("paired t over units", 0.0, 1.0, 0.0, 0.0, n_units=360)
    assert describe_rows_answer(pair(zero, zero, identical=True), PICTURES) == "gives the same answers as V1+V2"
    assert describe_training_answer(pair(zero, zero, identical=True)) == ""
    same = pair(zero, zero, identical=True)
    assert verdict_word(same, same.rows, PICTURES) == "identical"


def test_nobody_is_ahead_by_guessing() -> None:
    one = pair(ON_ROWS, AGAIN)
    assert one.verdict == "ahead"
    none = one.withdraw_lead()
    assert (none.verdict, none.rows.verdict, none.rows.result) == ("cannot tell", "cannot tell", one.rows.result)
    assert verdict_word(none, none.rows, PICTURES) == "cannot tell: no better than guessing"


def test_people_in_whom_the_two_do_not_differ_are_not_counted() -> None:
    tied = pair(replace(FIVE, n_counted=4, least_p=1 / 8, p=1 / 8), replace(AGAIN, p=1 / 8))
    assert describe_reach(tied.rows, PEOPLE).startswith("with four people in which the two differ no difference can reach 5")
