"""What is said of a pair of candidates: two questions, two answers.

    rows      these trained models, on new rows like these: what is drawn again are the rows (by their independent units)
    training  this way of training, trained again on other data of this size: rows and training are drawn again

The second claims more. It is never given where the first is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from phoropter.results.metrics.registry import get_metric
from phoropter.results.stats.paired_tests import NAN, PairedTest, is_equivalent
from phoropter.results.stats.pairs.detectable import detectable_difference

Verdict = Literal["ahead", "behind", "cannot tell", "practically the same", "identical"]
Question = Literal["rows", "training"]


@dataclass(frozen=True)
class Answer:
    """The answer to one question about a pair a, b.

    question:    which one
    result:      the test: difference a - b, interval at `result.level` (not corrected for the number of pairs), p
    verdict:     about a, from the corrected p and the interval together
    p_adjusted:  by Holm over the pairs of the family, for this question alone
    family_size: pairs that p is corrected for
    """

    question: Question
    result: PairedTest
    verdict: Verdict = "cannot tell"
    p_adjusted: float = NAN
    family_size: int = 1

    @property
    def is_tested(self) -> bool:
        return not np.isnan(self.result.p)

    @property
    def level_reachable(self) -> bool:
        """Whether any data of this size could have p, after correction, at the level or below; false without a test."""
        return self.is_tested and self.result.least_p * self.family_size <= 1 - self.result.level

    @property
    def detectable(self) -> float:
        """The true difference that the test finds 8 times in 10 after the correction; NaN where it can find none."""
        return detectable_difference(self.result, (1 - self.result.level) / self.family_size) if self.level_reachable else NAN

    def with_verdict(self, p: float, family_size: int, metric: str, margin: float | None) -> Answer:
        """The same with its corrected p, and the verdict for which p and interval must agree."""
        verdict: Verdict = "cannot tell"
        low, high = self.result.low, self.result.high
        if margin is not None and is_equivalent(low, high, margin):
            verdict = "practically the same"
        elif p <= 1 - self.result.level and (low > 0 or high < 0):
            verdict = "ahead" if (low > 0) == get_metric(metric).higher_is_better else "behind"
        return replace(self, verdict=verdict, p_adjusted=p, family_size=family_size)


@dataclass(frozen=True)
class Comparison:
    """a against b by one metric.

    difference:   a - b in the unit of the metric, by the estimand of the study
    rows, training: the answers to the two questions
    n_splits, n_rounds: splits that both have, and rounds of them (a repeat or a seed that drew its own partition)
    n_left_out:   splits and seeds where not both have a defined score
    identical:    both give the same answers on every row, as far as this metric reads them
    is_guessing:  the better of the two is not clearly better than guessing, so that nobody is ahead

    The other names repeat the answer that leads: that about rows, or where it could not be tested that about training.
    """

    a: str
    b: str
    metric: str
    difference: float
    rows: Answer
    training: Answer
    n_splits: int
    n_rounds: int = 1
    n_left_out: int = 0
    identical: bool = False
    is_guessing: bool = False

    def withdraw_lead(self) -> Comparison:
        """The same, with no one ahead: models that have learnt nothing differ by what folds of noise do to each other."""
        rows, training = (
            replace(a, verdict="cannot tell") if a.verdict in ("ahead", "behind") else a for a in (self.rows, self.training)
        )
        return replace(self, rows=rows, training=training, is_guessing=True)

    @property
    def leading(self) -> Answer:
        untested = self.rows.result.test == "none" and self.training.result.test != "none"
        return self.training if untested else self.rows

    @property
    def verdict(self) -> Verdict:
        return "identical" if self.identical else self.leading.verdict

    @property
    def low(self) -> float:
        return self.leading.result.low

    @property
    def high(self) -> float:
        return self.leading.result.high

    @property
    def p(self) -> float:
        return self.leading.result.p

    @property
    def p_adjusted(self) -> float:
        return self.leading.p_adjusted

    @property
    def test(self) -> str:
        return self.leading.result.test

    @property
    def n_units(self) -> int:
        return self.leading.result.n_units

    @property
    def effect(self) -> float:
        return self.leading.result.effect

    @property
    def effect_kind(self) -> str:
        return self.leading.result.effect_kind

    @property
    def detectable(self) -> float:
        return self.leading.detectable

    @property
    def note(self) -> str:
        return self.leading.result.note
