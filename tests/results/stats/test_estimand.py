"""One estimand for everything that is compared: identical answers differ by exactly 0 whatever the protocol, for every metric."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from phoropter.results.metrics.metric_record import MIN_RAREST
from phoropter.results.metrics.registry import METRICS, list_metrics
from phoropter.results.metrics.sufficient_sums import LabelledProbabilities
from phoropter.results.stats.estimand import choose_common_estimand, choose_estimand, paired_influences
from phoropter.results.stats.held_out_rows import HeldOutRows
from phoropter.results.store import Predictions

BUILT_IN = sorted(name for name in list_metrics() if not METRICS[name].unavailable)


def made_answers(n: int = 240, classes: int = 6, groups: int = 12, seed: int = 0) -> Predictions:
    """Rows of a random size a group, whose answers are right more often than not; groups lack some of the classes."""
    random = np.random.default_rng(seed)
    member = np.sort(random.integers(0, groups, n))
    labels = (member + random.integers(0, classes - 1, n)) % classes
    logits = (random.normal(size=(n, classes)) + 1.2 * np.eye(classes)[labels]).astype(np.float32)
    return Predictions(np.array([f"r{i:04d}" for i in range(n)]), labels, logits, np.array([f"g{m:02d}" for m in member]))


def split_rows(answers: Predictions, fold: np.ndarray) -> list[Predictions]:
    assert answers.groups is not None
    parts = [np.random.default_rng(k).permutation(np.flatnonzero(fold == k)) for k in np.unique(fold)]
    return [Predictions(answers.ids[i], answers.labels[i], answers.logits[i], answers.groups[i]) for i in parts]


def under_folds(answers: Predictions, folds: int = 5, rounds: int = 1) -> HeldOutRows:
    """The answers as k-fold leaves them, the same in every round."""
    drawn = [np.random.default_rng(r).permutation(len(answers.ids)) % folds for r in range(rounds)]
    runs = [(run, (0, r)) for r, fold in enumerate(drawn) for run in split_rows(answers, fold)]
    return HeldOutRows.from_predictions([run for run, _ in runs], [name for _, name in runs])


def under_groups(answers: Predictions) -> HeldOutRows:
    """The answers as leave-one-group-out leaves them."""
    return HeldOutRows.from_predictions(split_rows(answers, np.unique(answers.groups, return_inverse=True)[1]))


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize("name", BUILT_IN)
def test_the_same_answers_under_two_protocols_differ_by_exactly_zero(name: str, rounds: int) -> None:
    answers = made_answers(seed=rounds)
    a, b = under_folds(answers, rounds=rounds), under_groups(answers)
    first, second, slopes = paired_influences(choose_common_estimand(name, a.split_supports, b.split_supports), a, b)
    assert np.isfinite(first) and first - second == 0
    assert np.abs(slopes).max() < 1e-15


@pytest.mark.parametrize("name", BUILT_IN)
def test_arms_that_could_each_be_averaged_over_splits_are_pooled_where_their_splits_differ(name: str) -> None:
    answers = made_answers(2000, 6, 4)
    a, b = under_folds(answers, 5), under_folds(answers, 8)
    assert paired_influences(choose_common_estimand(name, a.split_supports, b.split_supports), a, b)[0] == pytest.approx(
        paired_influences(choose_common_estimand(name, a.split_supports, b.split_supports), a, b)[1], abs=0
    )
    own = choose_estimand(name, a.split_supports)
    assert choose_common_estimand(name, a.split_supports, a.split_supports, same_splits=True).kind == own.kind


def test_the_quoted_gaps_of_the_same_answers() -> None:
    """Averaged over unlike splits, the same answers differ by the gaps that were once shown with an interval."""
    answers = made_answers(300, 2, 15, seed=3)
    a, b = under_folds(answers), under_groups(answers)
    over_splits = [
        np.mean(
            [
                sk.f1_score(r.labels[r.splits == k], r.probabilities[r.splits == k].argmax(1), average="macro")
                for k in np.unique(r.splits)
            ]
        )
        for r in (a, b)
    ]
    assert abs(over_splits[0] - over_splits[1]) > 0.01
    chosen = choose_estimand("macro_f1", b.split_supports)
    together = sk.f1_score(answers.labels, answers.logits.argmax(1), average="macro")
    assert chosen.kind == "pooled" and chosen.compute_value(b) == pytest.approx(together, abs=1e-12)


def test_a_metric_of_a_set_is_averaged_over_splits_only_where_every_one_can_carry_it() -> None:
    enough, few, none = np.array([30, MIN_RAREST]), np.array([30, MIN_RAREST - 1]), np.array([39, 0])
    assert choose_estimand("macro_f1", [enough, enough]).kind == "per-split"
    assert choose_estimand("macro_f1", [enough, enough]).has_spread
    pooled = choose_estimand("macro_f1", [enough, few, none])
    assert (pooled.kind, pooled.has_spread, pooled.compares_scores) == ("pooled", False, False)
    assert pooled.reason == "2 of 3 test parts have fewer than 10 rows of some class (1 of them none)"
    assert choose_estimand("roc_auc", [none, none]).reason == "every test part has at least 10 rows of each class"  # of one class
    assert choose_estimand("roc_auc", [few, none]).compares_scores
    assert not choose_estimand("roc_auc", [few, few], n_rounds=2).compares_scores  # one split a round: no other model's scores


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "brier", "weighted_recall"])
def test_means_over_rows_are_the_mean_of_all_rows_whatever_the_splits(name: str) -> None:
    answers = made_answers()
    whole = METRICS[name].compute_value(_labelled(answers))
    for rows in (under_folds(answers), under_groups(answers), under_folds(answers, rounds=2)):
        estimand = choose_estimand(name, rows.split_supports)
        assert estimand.kind == "pooled" and estimand.compute_value(rows) == pytest.approx(whole, abs=1e-12)
    assert choose_estimand(name, [np.array([5, 5])]).has_spread and not choose_estimand(name, [np.array([5, 4])]).has_spread


def _labelled(answers: Predictions) -> LabelledProbabilities:
    return LabelledProbabilities.from_arrays(answers.labels, answers.probabilities)


def test_the_calibration_error_is_pooled_however_large_the_splits_are() -> None:
    assert choose_estimand("ece", [np.array([5000, 5000])] * 2).kind == "pooled"


def test_a_pooled_value_is_averaged_over_rounds_by_their_rows() -> None:
    a, b = made_answers(100, 3, seed=1), made_answers(40, 3, seed=2)
    rows = HeldOutRows.from_predictions([*split_rows(a, np.arange(100) % 5), b], [(0, 0)] * 5 + [(0, 1)])
    f1 = [sk.f1_score(p.labels, p.logits.argmax(1), average="macro") for p in (a, b)]
    assert choose_estimand("macro_f1", rows.split_supports).compute_value(rows) == pytest.approx(
        np.average(f1, weights=[100, 40])
    )


@pytest.mark.parametrize("name", BUILT_IN)
def test_value_and_influences_and_split_values_agree(name: str) -> None:
    answers = made_answers()
    for rows in (under_folds(answers, rounds=2), under_groups(answers)):
        estimand = choose_estimand(name, rows.split_supports)
        value = estimand.compute_value(rows)
        assert estimand.compute_influences(rows)[0] == pytest.approx(value, abs=1e-12)
        by_row = estimand.compute_row_influences(rows)[1]
        by_unit = np.bincount(np.searchsorted(rows.units, rows.unit_names), by_row)
        assert by_unit == pytest.approx(estimand.compute_influences(rows)[1], abs=1e-12)
        apart = estimand.split_values(rows)
        assert apart.weights.sum() == pytest.approx(1) and (apart.values * apart.weights).sum() == pytest.approx(value, abs=1e-9)


def test_split_values_are_the_metric_of_each_split_where_it_is_a_mean() -> None:
    rows = under_groups(made_answers())
    right = rows.probabilities.argmax(1) == rows.labels
    accuracy = choose_estimand("accuracy", rows.split_supports).split_values(rows)
    assert accuracy.values == pytest.approx([right[rows.splits == k].mean() for k in accuracy.splits])
    folds = under_folds(made_answers(2000, 3), 4)
    estimand = choose_estimand("macro_f1", folds.split_supports)
    f1 = [
        sk.f1_score(folds.labels[folds.splits == k], folds.probabilities[folds.splits == k].argmax(1), average="macro")
        for k in range(4)
    ]
    assert estimand.kind == "per-split" and estimand.split_values(folds).values == pytest.approx(f1)
    assert estimand.compute_value(folds) == pytest.approx(np.mean(f1))


def test_the_second_figure_ranks_scores_within_one_model_only() -> None:
    """Models whose scores are shifted against each other: the pooled AUC suffers, the mean within splits does not."""
    answers = made_answers(400, 2, 8)
    runs = split_rows(answers, np.arange(400) % 4)
    shifted = [
        Predictions(r.ids, r.labels, r.logits + np.array([0, 3 * k], dtype=np.float32), r.groups) for k, r in enumerate(runs)
    ]
    rows = HeldOutRows.from_predictions(shifted)
    own = [sk.roc_auc_score(r.labels, r.probabilities[:, 1]) for r in runs]
    mean, used, total = choose_estimand("roc_auc", rows.split_supports).within_split_mean(rows)
    assert (mean, used, total) == (pytest.approx(np.mean(own)), 4, 4)
    pooled = choose_common_estimand("roc_auc", rows.split_supports, rows.split_supports[:2])
    assert pooled.compares_scores and pooled.compute_value(rows) < mean - 0.05
    lone = HeldOutRows.from_predictions([Predictions(r.ids[:1], r.labels[:1], r.logits[:1]) for r in runs])
    assert choose_estimand("roc_auc", lone.split_supports).within_split_mean(lone)[1:] == (0, 4)


def test_derivatives_of_two_studies_are_subtracted_by_unit() -> None:
    def some_rows(rows: list[int], groups: str, seed: int) -> HeldOutRows:
        random = np.random.default_rng(seed)
        logits = random.normal(size=(len(rows), 2)).astype(np.float32)
        return HeldOutRows.from_predictions(
            [Predictions(np.array([f"r{i}" for i in rows]), np.array(rows) % 2, logits, np.array(list(groups)))]
        )

    a, b = some_rows([0, 1, 2, 3, 4, 5], "ccbbaa", 0), some_rows([0, 1, 2, 3, 6, 7], "bbccdd", 1)
    estimand = choose_common_estimand("accuracy", a.split_supports, b.split_supports)
    first, second, slopes = paired_influences(estimand, a, b)
    by_a, by_b = (dict(zip(side.units, estimand.compute_influences(side)[1], strict=True)) for side in (a, b))
    assert (first, second) == (estimand.compute_value(a), estimand.compute_value(b))
    assert slopes == pytest.approx([by_a.get(u, 0) - by_b.get(u, 0) for u in "abcd"])


def test_intervals_shrink_as_rows_are_added() -> None:
    for name in ("accuracy", "macro_f1", "roc_auc", "log_loss"):
        widths = []
        for n in (60, 240, 960):
            rows = under_folds(made_answers(n, 2, 12, seed=5))
            estimand = choose_estimand(name, rows.split_supports)
            interval = (
                estimand.make_bootstrap(rows, resamples=400).compute_replicates(name, rows.probabilities).confidence_interval()
            )
            widths.append(interval.high - interval.low)
        assert widths[0] > widths[1] > widths[2] > 0
