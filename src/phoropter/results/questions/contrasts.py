"""Answers to contrasts: the mean difference over many candidates, tested as a pair is, with the same two questions.

The value of a contrast on a split is Σ weights · the candidates' values on it, so all that stays equal (the split, its rows, the
network) cancels: it is paired within split and candidate. What each unit contributes is the same sum of the candidates'
contributions, and the tests are those of a pair (stats/pairs): of the rows, and of training again by two components. The spread
of trainings is the contrast's own: other levels may train more alike, and lending theirs found false contrasts 14 times in 100.

    planned      primary and secondary together are one family for each question (Holm 1979): none of them needs another to have
                 succeeded, and what was not asked beforehand costs them nothing
    exploratory  no verdict and no correction: an interval to look at

The interval speaks of these candidates. How often the effect has its sign among them (`n_wins` of the units) is counted and not
tested: networks are not drawn at random.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats
from phoropter.results.questions.planned import Contrast
from phoropter.results.stats.compare import Design
from phoropter.results.stats.paired_tests import NAN, PairedTest, adjust_holm
from phoropter.results.stats.pairs.answers import Answer, Verdict
from phoropter.results.stats.pairs.row_tests import group_rank_test, unit_t_test
from phoropter.results.stats.pairs.training_tests import group_t_test, split_components, untested_training
from phoropter.results.stats.pairs.two_components import two_component_test
from phoropter.results.stats.pairs.unit_contributions import UnitContributions


@dataclass(frozen=True)
class ContrastAnswer:
    """A contrast with its answers.

    difference:   side - against, in the unit of the metric, by the estimand of the study; NaN where there is none
    rows, training: the answers to the two questions (pairs/answers.py); of exploratory contrasts without verdict
    of_units:     the difference of each unit (candidate or backbone), in order · n_wins: units where `side` is better
    of_splits:    the difference on each split · n_split_wins: splits where `side` is better
    note:         why there is no answer
    is_guessing:  no candidate of the better side is clearly better than guessing, so that neither side is ahead
    """

    contrast: Contrast
    difference: float
    rows: Answer
    training: Answer
    of_units: tuple[float, ...] = ()
    of_splits: tuple[float, ...] = ()
    note: str = ""
    is_guessing: bool = False

    def withdraw_lead(self, uninformed: Collection[str]) -> ContrastAnswer:
        """The same with no side ahead, where all candidates of the better side are among `uninformed`; as of pairs."""
        sign = 1 if get_metric(self.contrast.metric).higher_is_better else -1
        better = [n for unit in self.contrast.units for n in (unit.side if sign * self.difference > 0 else unit.against)]
        if np.isnan(self.difference) or not all(name in uninformed for name in better):
            return self
        rows, training = (
            replace(a, verdict="cannot tell") if a.verdict in ("ahead", "behind") else a for a in (self.rows, self.training)
        )
        return replace(self, rows=rows, training=training, is_guessing=True)

    @property
    def n_wins(self) -> int:
        return self._count_better(self.of_units)

    @property
    def n_split_wins(self) -> int:
        return self._count_better(self.of_splits)

    @property
    def verdict(self) -> Verdict:
        """About training again where that is tested, else about the rows: the stronger claim that the study can make."""
        return self.strongest.verdict

    @property
    def strongest(self) -> Answer:
        return self.training if self.training.is_tested else self.rows

    def _count_better(self, differences: Sequence[float]) -> int:
        sign = 1 if get_metric(self.contrast.metric).higher_is_better else -1
        return sum(sign * d > 0 for d in differences)


def answer_contrasts(
    contrasts: Sequence[Contrast], contributions: Mapping[str, Mapping[str, UnitContributions]], designs: Mapping[str, Design]
) -> list[ContrastAnswer]:
    """The answers, in order. contributions: metric → candidate → what its splits and units contribute; one may be missing.

    designs: metric → how the splits relate.
    """
    found = [_answer_contrast(c, contributions.get(c.metric, {}), designs[c.metric]) for c in contrasts]
    planned = [i for i, a in enumerate(found) if a.contrast.role != "exploratory"]
    for question in ("rows", "training"):
        answers: list[Answer] = [getattr(found[i], question) for i in planned]
        p = np.array([a.result.p for a in answers])
        family = max(1, int((~np.isnan(p)).sum()))
        for i, answer, adjusted in zip(planned, answers, adjust_holm(p), strict=True):
            contrast = found[i].contrast
            margin = designs[contrast.metric].margin
            judged = answer.with_verdict(float(adjusted), family, contrast.metric, margin)
            found[i] = replace(found[i], rows=judged) if question == "rows" else replace(found[i], training=judged)
    return [_not_surer_than_rows(a) for a in found]


def combine_contributions(weighted: Sequence[tuple[float, UnitContributions]]) -> UnitContributions:
    """Σ weight · contributions, on the splits that all have."""
    first, *others = weighted
    total = _multiply_contributions(*first)
    for weight, other in others:
        total = total.subtract_other(_multiply_contributions(-weight, other))
    return total


def _multiply_contributions(weight: float, of: UnitContributions) -> UnitContributions:
    return replace(of, values=weight * of.values, slopes=weight * of.slopes)


def _answer_contrast(contrast: Contrast, known: Mapping[str, UnitContributions], design: Design) -> ContrastAnswer:
    missing = [name for name in contrast.candidates if name not in known]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return _unanswered(contrast, f"there are no scores of {missing[0]}{others}", design)
    share = 1 / len(contrast.units)
    each = [
        combine_contributions(
            [(1 / len(unit.side), known[name]) for name in unit.side]
            + [(-1 / len(unit.against), known[name]) for name in unit.against]
        )
        for unit in contrast.units
    ]
    total = combine_contributions([(share, one) for one in each])
    if not len(total.values):
        return _unanswered(contrast, "its candidates have no split in common", design)
    value_range = get_metric(contrast.metric).value_range
    rows, training = (test.with_bounds_within(value_range) for test in _run_tests(total, design))
    of_units = [float(_on_splits(one, total).mean()) for one in each]
    answers = Answer("rows", rows), Answer("training", training)
    return ContrastAnswer(contrast, float(total.values.mean()), *answers, tuple(of_units), tuple(map(float, total.values)))


def _on_splits(one: UnitContributions, total: UnitContributions) -> Floats:
    """The values of a unit on the splits that the contrast has."""
    place = {split: i for i, split in enumerate(one.layout.splits)}
    return one.values[[place[split] for split in total.layout.splits]]


def _run_tests(difference: UnitContributions, design: Design) -> tuple[PairedTest, PairedTest]:
    values, level = difference.values, design.level
    if design.kind == "groups":
        of_groups = group_rank_test(values, difference.unweighted_values, level, design.seed)
        return of_groups, group_t_test(values, of_groups, level)
    rows = unit_t_test(difference, level)
    parts = split_components(difference, design.test_to_train) if design.kind == "folds" else None
    if parts is None:
        return rows, untested_training(float(values.mean()), level)
    return rows, two_component_test(parts, level)


def _unanswered(contrast: Contrast, note: str, design: Design) -> ContrastAnswer:
    test = PairedTest("none", NAN, NAN, level=design.level, note=note)
    return ContrastAnswer(contrast, NAN, Answer("rows", test), Answer("training", test), note=note)


def _not_surer_than_rows(answer: ContrastAnswer) -> ContrastAnswer:
    """As of pairs: that training again repeats a difference is not said where it could not be told on these rows."""
    rows, training = answer.rows, answer.training
    if rows.is_tested and training.verdict in ("ahead", "behind") and rows.verdict != training.verdict:
        return replace(answer, training=replace(training, verdict="cannot tell"))
    return answer
