"""What differences a planned study could find, before anything is computed: both questions of a pair, from stated guesses.

The tests are those of the report (results/stats/pairs); what data will show is guessed: on how many rows only one of two
candidates is right (or how two AUCs correlate), how alike the rows of a group are, and how much training adds to what rows make
a fold's difference vary by.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from phoropter.core.language.unit_words import ROW, UnitWord
from phoropter.data.unit_names import name_units
from phoropter.results.metrics.metric_record import MetricRecord
from phoropter.results.metrics.registry import METRICS
from phoropter.results.stats.paired_tests import PairedTest
from phoropter.results.stats.pairs.answers import Answer
from phoropter.results.stats.pairs.two_components import TwoComponents, two_component_test
from phoropter.study.plan import Plan, PlannedRun

DISCORDANT = 0.15  # share of rows that only one of two candidates gets right
INTRACLASS = 0.1  # correlation of those between the rows of one group
TRAINING_SHARE = 0.5  # variance of training over variance of rows, of the difference in one fold (docs/statistics.md, Power)
AREA, AREA_CORRELATION = 0.85, 0.6  # two AUCs on the same rows
MORE_SEEDS = 5


@dataclass(frozen=True)
class PlannedSize:
    """What decides the power of a pair.

    kind: as of a Design · n_rows: held out in one round · n_units, unit: what is independent among them
    independent_variance: of the mean difference over one round, if its rows were independent · folds, rounds
    n_pairs: that p is corrected for · test_to_train: rows tested / rows trained on
    """

    kind: str
    n_rows: int
    n_units: int
    unit: UnitWord
    independent_variance: float
    folds: int
    rounds: int
    n_pairs: int
    test_to_train: float

    @property
    def row_variance(self) -> float:
        """The same, with rows of one unit as alike as is guessed."""
        return self.independent_variance * self.design_effect

    @property
    def design_effect(self) -> float:
        """How many times the variance of independent rows that of rows in units is, by the guess of how alike they are."""
        return 1 + (self.n_rows / self.n_units - 1) * INTRACLASS

    def scaled(self, factor: int) -> PlannedSize:
        """A study of `factor` times as many units, of as many rows each and tested in the same way."""
        variance = self.independent_variance / factor
        return replace(self, n_rows=self.n_rows * factor, n_units=self.n_units * factor, independent_variance=variance)


def guess_variance(metric: MetricRecord, class_rows: Sequence[int]) -> float | None:
    """Of the difference of two candidates on independent rows of each class; None for a metric without a guess.

    Shares of rows differ as DISCORDANT says; where classes count alike, in each class. Two AUCs of normal scores.
    """
    if metric.mean_over_rows and metric.percent:
        return DISCORDANT / sum(class_rows)
    if metric.percent:
        return float(np.mean([DISCORDANT / n for n in class_rows])) / len(class_rows)
    if metric.name != "roc_auc" or len(class_rows) != 2:
        return None
    return 2 * (1 - AREA_CORRELATION) * area_variance(*class_rows)


def area_variance(m: int, n: int) -> float:
    """Of an area of AREA under the ROC curve of normal scores, on m and n independent rows of the two classes."""
    from scipy.special import ndtri
    from scipy.stats import multivariate_normal

    apart = float(ndtri(AREA))
    twice = float(multivariate_normal.cdf([apart, apart], cov=[[1, 0.5], [0.5, 1]]))  # one row beats two of the other class
    return (AREA * (1 - AREA) + (m + n - 2) * (twice - AREA**2)) / (m * n)


def forecast_power(planned: Plan) -> list[str]:
    """Sentences for `phoropter plan`; none for a single candidate, and for metrics whose variance has no guess."""
    metric = METRICS.get(planned.study.metric_names[0])
    size = measure_plan(planned, metric) if metric is not None and len(planned.candidates) > 1 else None
    if metric is None or size is None or size.n_units < 2:
        return []
    guesses = f"only one of two candidates is right on {DISCORDANT * 100:.0f} % of rows"
    if not metric.percent:
        guesses = f"areas are {AREA:g} and correlate by {AREA_CORRELATION:g}"
    guesses += f", rows of one {size.unit.singular} correlate by {INTRACLASS:g}" if size.n_units < size.n_rows else ""
    guesses += f", training adds {TRAINING_SHARE:g} of the variance that rows give a fold" if size.kind == "folds" else ""
    correction = f" after correction for {size.n_pairs} pairs" if size.n_pairs > 1 else ""
    scale = 100.0 if metric.percent else 1.0
    lines = [f"a difference in {metric.title} that is found 8 times in 10{correction}, if {guesses}:"]
    twice = size.scaled(2)
    more_units = f"with twice as many {size.unit.plural}"
    text = f"  on new {size.unit.plural} like these: {_describe_answer(rows_answer(size), size, scale)}"
    lines.append(f"{text}; {more_units} {_describe_answer(rows_answer(twice), twice, scale)}")
    again = training_answer(size, size.rounds)
    if again is None:
        return [*lines, "  if trained again on other data: cannot be told from one training part"]
    text = f"  if trained again on other data: {_describe_answer(again, size, scale)}"
    more = training_answer(size, MORE_SEEDS)
    if size.kind == "folds" and size.rounds < MORE_SEEDS and more is not None:
        text += f"; with {MORE_SEEDS} seeds {_describe_answer(more, size, scale)}"
    of_twice = training_answer(twice, twice.rounds)
    text += f"; {more_units} {_describe_answer(of_twice, twice, scale)}" if of_twice is not None else ""
    return [*lines, text]


def measure_plan(planned: Plan, metric: MetricRecord) -> PlannedSize | None:
    """From the splits of the first candidate; None where the metric's variance has no guess."""
    runs = _list_first_runs(planned)
    dataset, rounds = runs[0].image_set.dataset, _rounds_of(planned)
    first = next(iter(rounds.values()))
    rows = np.concatenate([runs[i].split.test for i in first])
    groups = dataset.ids if dataset.groups is None else dataset.groups
    if dataset.is_multi_label:
        return None
    variance = guess_variance(metric, count_tested_rows(planned))
    if variance is None:
        return None
    parts = {np.sort(runs[i].split.test).tobytes() for places in rounds.values() for i in places}
    alone = dataset.groups is not None and all(len(np.unique(groups[runs[i].split.test])) == 1 for i in first)
    k = len(planned.candidates)
    return PlannedSize(
        kind="one test set" if len(parts) == 1 else "groups" if alone else "folds",
        n_rows=len(rows),
        n_units=len(np.unique(groups[rows])),
        unit=name_units(runs[0].image_set.data, dataset)[0] if dataset.groups is not None else ROW,
        independent_variance=variance,
        folds=len(first),
        rounds=len(rounds),
        n_pairs=k * (k - 1) // 2,
        test_to_train=float(np.mean([len(runs[i].split.test) / max(1, len(runs[i].split.train)) for i in first])),
    )


def count_tested_rows(planned: Plan) -> list[int]:
    """Rows of each class, of those that occur, which one round of the first candidate tests."""
    runs = _list_first_runs(planned)
    rows = np.concatenate([runs[i].split.test for i in next(iter(_rounds_of(planned).values()))])
    return [int(n) for n in np.bincount(runs[0].image_set.dataset.labels[rows]) if n]


def _list_first_runs(planned: Plan) -> list[PlannedRun]:
    """The compared runs of the first candidate."""
    first = planned.candidates[0].name  # once: it is looked for among all runs
    return [r for r in planned.compared if r.candidate.name == first]


def _rounds_of(planned: Plan) -> dict[Hashable, list[int]]:
    """Round → places among the runs of the first candidate; seeds that share their partition are one round."""
    runs = _list_first_runs(planned)
    named: dict[tuple[int, int], list[int]] = {}
    for place, run in enumerate(runs):
        named.setdefault((run.split.seed, run.split.repeat), []).append(place)
    rounds: dict[Hashable, list[int]] = {}
    for places in named.values():
        rounds.setdefault(frozenset(np.sort(runs[i].split.test).tobytes() for i in places), places)
    return rounds


def rows_answer(size: PlannedSize) -> Answer:
    """The first question, with the test that the report would use."""
    se, groups = float(np.sqrt(size.row_variance)), size.kind == "groups"
    test = PairedTest("paired t over units", 0.0, 1.0, se=se, df=size.n_units - 1, n_units=size.n_units)
    if groups or (size.kind == "one test set" and size.n_units < size.n_rows):
        name = "Wilcoxon signed-rank" if groups else "unit-swap permutation"
        least = 2.0 ** (1 - size.n_units)
        test = PairedTest(name, 0.0, 1.0, se=se, df=size.n_units - 1, n_units=size.n_units, least_p=least, n_counted=size.n_units)
    return Answer("rows", test, family_size=size.n_pairs)


def training_answer(size: PlannedSize, rounds: int) -> Answer | None:
    """The second question with so many rounds; None where there is one training part."""
    if size.kind == "one test set":
        return None
    variance = size.row_variance
    if size.kind == "groups":
        se = float(np.sqrt(variance * (1 + size.n_units / (size.n_units - 1))))
        test = PairedTest("corrected resampled t", 0.0, 1.0, se=se, df=size.n_units - 1, n_units=size.n_units)
        return Answer("training", test, family_size=size.n_pairs)
    of_fold, splits = variance * size.folds, size.folds * rounds
    if splits < 2:
        return None
    spread = of_fold * (1 + TRAINING_SHARE * (1 - 1 / max(2, size.folds)))
    freedom = rounds * (size.folds - 1) if size.folds > 1 else rounds - 1
    parts = TwoComponents(0.0, variance, size.n_units - 1, spread, freedom, of_fold, 1 / splits + size.test_to_train, splits)
    return Answer("training", two_component_test(parts), family_size=size.n_pairs)


def _describe_answer(answer: Answer, size: PlannedSize, scale: float) -> str:
    if not answer.level_reachable:
        return f"none, for with {size.unit.count(size.n_units)} no difference can reach 5 % by this test"
    if not np.isfinite(answer.detectable):
        return "none"
    if answer.detectable > 1:
        return "none, for not even the largest possible difference would be found"
    return f"{answer.detectable * scale:.1f} points" if scale > 1 else f"{answer.detectable:.3f}"
