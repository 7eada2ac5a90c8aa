"""What is put side by side is the same quantity: candidate, baseline, gap, card and names, on answers that are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from read_again import noisy_error
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from stored_answers import split_answers, store_answers

from phoropter.report.conclusion import write_conclusion
from phoropter.report.sections.candidate_values import describe_estimands
from phoropter.report.sections.candidates.leaderboard import leaderboard_table
from phoropter.report.sections.predictions.calibration import calibration_table, class_calibration_table
from phoropter.report.sections.predictions.groups import describe_left_out, group_section
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.metrics.registry import METRICS, list_metrics
from phoropter.results.stats.optimism import compute_protocol_gaps
from phoropter.results.store import Predictions, Store

EVERY = tuple(sorted(name for name in list_metrics() if not METRICS[name].unavailable and name != "top5_accuracy"))


def some_answers(n: int = 150, people: int = 15, skill: float = 1.0, share: float = 0.4, seed: int = 0) -> Predictions:
    """Two classes; `share` of the rows are of the second."""
    random = np.random.default_rng(seed)
    member, labels = np.arange(n) % people, (random.random(n) < share).astype(np.int64)
    logits = (random.normal(size=(n, 2)) + skill * np.eye(2)[labels]).astype(np.float32)
    return Predictions(np.array([f"r{i:04d}" for i in range(n)]), labels, logits, np.array([f"p{m:02d}" for m in member]))


def by_person(answers: Predictions) -> list[Predictions]:
    return split_answers(answers, np.unique(answers.groups, return_inverse=True)[1])


def by_folds(answers: Predictions, folds: int = 5, seed: int = 1) -> list[Predictions]:
    return split_answers(answers, np.random.default_rng(seed).permutation(len(answers.ids)) % folds)


def summarize(store: Store) -> StudySummary:
    return collect_summary(store)


def test_the_same_answers_under_two_protocols_have_a_gap_of_exactly_zero_for_every_metric(tmp_path: Path) -> None:
    answers = some_answers(seed=4)
    a = store_answers(tmp_path / "folds", {"net": by_folds(answers)}, metrics=EVERY, overlap=True)
    b = store_answers(tmp_path / "people", {"net": by_person(answers)}, metrics=EVERY)
    gaps = compute_protocol_gaps(a, b, EVERY)
    assert [g.metric for g in gaps] == list(EVERY)
    for gap in gaps:
        assert np.isfinite(gap.within_group) and gap.difference == 0, gap.metric
        assert abs(gap.interval.low) < 1e-12 and abs(gap.interval.high) < 1e-12
    # averaged over each study's own splits, as once, they differ
    f1 = [
        np.mean([sk.f1_score(p.labels, p.logits.argmax(1), average="macro") for p in some])
        for some in (by_folds(answers), by_person(answers))
    ]
    assert abs(f1[0] - f1[1]) > 0.01


def test_a_constant_answer_has_the_value_of_the_baseline_where_each_person_has_one_class(tmp_path: Path) -> None:
    """The quoted case: 7 of 8 people are calm. By people a constant answer had 87.5 % macro F1, and the baseline 46.7 %."""
    labels = np.repeat([0, 0, 0, 0, 0, 0, 0, 1], 20)
    logits = np.tile(np.array([2.0, 0.0], dtype=np.float32), (160, 1))
    answers = Predictions(np.array([f"r{i:03d}" for i in range(160)]), labels, logits, np.repeat([f"p{i}" for i in range(8)], 20))
    over_people = np.mean([sk.f1_score(p.labels, p.logits.argmax(1), average="macro") for p in by_person(answers)])
    assert over_people == pytest.approx(0.875)
    summary = summarize(store_answers(tmp_path / "calm", {"constant": by_person(answers)}, metrics=("macro_f1",)))
    (candidate,) = summary.candidates
    assert candidate.metric_mean("macro_f1") == summary.baseline.metric_mean("macro_f1") == pytest.approx(0.466667, abs=1e-6)
    assert summary.estimands["macro_f1"].reason == "8 of 8 test parts lack a class"
    note = leaderboard_table(summary).note
    assert "of all held-out rows of a repeat together, not averaged over splits, because 8 of 8 test parts lack a class" in note


@pytest.mark.parametrize("split", [by_folds, by_person])
@pytest.mark.parametrize("first", ["accuracy", "macro_f1", "roc_auc", "average_precision", "log_loss", "brier"])
def test_the_baseline_is_a_candidate_whose_answers_are_known(tmp_path: Path, first: str, split) -> None:  # type: ignore[no-untyped-def]
    """A candidate that answers the frequencies has the row of the baseline, to the last cell, in both tables."""
    answers = some_answers()
    share = np.bincount(answers.labels) / len(answers.labels)
    constant = Predictions(answers.ids, answers.labels, np.tile(np.log(share), (150, 1)).astype(np.float32), answers.groups)
    store = store_answers(tmp_path / "s", {"net": split(answers), "constant": split(constant)}, metrics=(first, *EVERY))
    summary = summarize(store)
    for table in (leaderboard_table(summary), calibration_table(summary, {}), class_calibration_table(summary, {})):
        rows = {str(row.values[0]): repr(row.values[1:]) for row in table.rows}
        assert rows["constant"] == rows["majority-class baseline"]
    assert summary.baseline.metric_mean("log_loss") == pytest.approx(-(share * np.log(share)).sum(), abs=1e-6)
    assert summary.baseline.metric_mean("average_precision") == pytest.approx(share[1])


def test_two_metrics_rank_and_one_ranks(tmp_path: Path) -> None:
    stored = store_answers(tmp_path / "s", {"net": by_folds(some_answers(200, 20))}, metrics=("roc_auc", "average_precision"))
    summary = summarize(stored)
    ranked = {n: replace(e, compares_scores=True) for n, e in summary.estimands.items()}
    changed = replace(summary, estimands=ranked)
    assert "ROC-AUC and average precision then rank scores" in describe_estimands(changed, ["roc_auc", "average_precision"])
    assert "ROC-AUC then ranks scores" in describe_estimands(changed, ["roc_auc"])


def test_other_names_change_nothing(tmp_path: Path) -> None:
    each = {"a": some_answers(skill=1.5), "b": some_answers(skill=0.8, seed=0), "c": some_answers(skill=0.2, seed=0)}
    one = summarize(store_answers(tmp_path / "one", {n: by_folds(p) for n, p in each.items()}, metrics=("macro_f1",)))
    new = {"a": "z", "b": "y", "c": "x"}
    two = summarize(
        store_answers(tmp_path / "two", {new[n]: by_folds(p) for n, p in reversed(each.items())}, metrics=("macro_f1",))
    )
    assert [new[c.name] for c in one.candidates] == [c.name for c in two.candidates]
    for c, d in zip(one.candidates, two.candidates, strict=True):
        assert repr((c.values, c.spreads, c.group_scores.values)) == repr((d.values, d.spreads, d.group_scores.values))
        assert c.replicates is not None and d.replicates is not None
        assert c.replicates.confidence_interval() == d.replicates.confidence_interval()


def test_an_area_that_no_split_has_is_pooled_and_the_second_figure_is_left_out(tmp_path: Path) -> None:
    """Leave-one-person-out where each person has one class: once nobody had a value, and somebody came first with a dash."""
    answers = some_answers(160, 16, seed=2)
    member = np.unique(answers.groups, return_inverse=True)[1]
    logits = answers.logits + 1.5 * np.eye(2, dtype=np.float32)[member % 2]
    answers = Predictions(answers.ids, (member % 2).astype(np.int64), logits, answers.groups)
    worse = Predictions(answers.ids, answers.labels, -answers.logits, answers.groups)
    summary = summarize(
        store_answers(tmp_path / "loo", {"net": by_person(answers), "worse": by_person(worse)}, metrics=("roc_auc",))
    )
    area = sk.roc_auc_score(answers.labels, answers.probabilities[:, 1])
    assert summary.candidates[0].name == "net" and summary.candidates[0].metric_mean("roc_auc") == pytest.approx(area)
    table = leaderboard_table(summary)
    assert not any("within splits" in column.name for column in table.columns)
    assert "ROC-AUC then ranks scores of models of different splits against each other." in table.note


def test_the_second_figure_is_the_mean_over_the_splits_that_can_carry_an_area(tmp_path: Path) -> None:
    answers = some_answers(400, 8, share=0.5, seed=3)
    parts = [*by_folds(answers, 4)]
    lone = Predictions(np.array(["x1", "x2"]), np.array([0, 1]), np.zeros((2, 2), dtype=np.float32), np.array(["q", "q"]))
    summary = summarize(store_answers(tmp_path / "s", {"net": [*parts, lone]}, metrics=("roc_auc",)))
    column = [c.name for c in leaderboard_table(summary).columns].index("ROC-AUC within splits")
    own = np.mean([sk.roc_auc_score(p.labels, p.probabilities[:, 1]) for p in parts])
    assert leaderboard_table(summary).rows[0].values[column] == pytest.approx(own)
    assert "the 4 of 5 splits" in leaderboard_table(summary).columns[column].unit_text + repr(
        leaderboard_table(summary).columns[column]
    )


def test_people_of_one_class_are_counted_where_an_area_is_shown_by_person(tmp_path: Path) -> None:
    answers = some_answers(300, 15, share=0.5)
    labels = np.where(answers.groups == "p00", 0, answers.labels)
    answers = Predictions(answers.ids, labels, answers.logits, answers.groups)
    store = store_answers(tmp_path / "s", {"net": by_folds(answers)}, metrics=("roc_auc",), group_word="person")
    summary = summarize(store)
    assert describe_left_out(summary, "group") == "ROC-AUC by person uses 14 of 15 people, those with 10 rows and every class."
    section = group_section(ReportInput(store, summary, compare_candidates(store, summary)))
    assert section is not None and section.title == "ROC-AUC by person"
    name = section.file_tables[0].rows[0].values[0]
    rows = answers.groups == name
    assert section.file_tables[0].rows[0].values[2] == pytest.approx(
        sk.roc_auc_score(labels[rows], answers.probabilities[rows, 1])
    )


def test_births_of_two_rows_are_not_ranked_by_accuracy_in_a_study_by_area(tmp_path: Path) -> None:
    """The quoted case: 300 births with two rows each have no area, so nothing is said by birth."""
    answers = some_answers(600, 300)
    store = store_answers(tmp_path / "s", {"net": by_folds(answers)}, metrics=("roc_auc",), group_word="birth")
    summary = summarize(store)
    assert group_section(ReportInput(store, summary, compare_candidates(store, summary))) is None
    assert describe_left_out(summary, "group").startswith("ROC-AUC by birth is not shown: no birth has 10 rows")


def test_accuracy_first_with_a_rare_class_leads_to_a_metric_that_sees_it(tmp_path: Path) -> None:
    good, blind = some_answers(600, 30, skill=2.0, share=0.05), some_answers(600, 30, skill=0.0, share=0.05)
    blind = Predictions(blind.ids, good.labels, blind.logits + np.array([6, 0], dtype=np.float32), blind.groups)
    store = store_answers(tmp_path / "s", {"good": by_folds(good), "blind": by_folds(blind)})
    summary = summarize(store)
    assert summary.candidates[0].name == "blind", "always the common class is more often right"
    sentences, _ = write_conclusion(summary, compare_candidates(store, summary))
    share = np.mean(good.labels)
    (said,) = [s for s in sentences if "nearly blind" in s]
    assert said.startswith(
        f"Accuracy is nearly blind here: only {share * 100:.1f} % of the rows are acidosis, and a rule that always"
    )
    assert f"would reach {(1 - share) * 100:.1f} % accuracy. ROC-AUC is not: by it, good comes first with 0." in said


def test_where_the_metric_is_undefined_nobody_comes_first_and_the_reason_is_said(tmp_path: Path) -> None:
    answers = some_answers(60, 6, share=0.0)
    store = store_answers(tmp_path / "s", {"a": by_folds(answers), "b": by_folds(answers)}, metrics=("roc_auc",))
    summary = summarize(store)
    sentences, _ = write_conclusion(summary, compare_candidates(store, summary))
    assert sentences == [
        "No candidate can be put first by ROC-AUC: no held-out row is of class acidosis, and ROC-AUC needs every class."
    ]


def test_the_table_of_the_second_class_is_computed_again(tmp_path: Path) -> None:
    answers = some_answers(300, 15, share=0.5)
    store = store_answers(tmp_path / "s", {"net": by_folds(answers)})
    summary = summarize(store)
    net, baseline = class_calibration_table(summary, {}).rows
    p, y = answers.probabilities[:, 1], answers.labels
    bins = np.clip(np.ceil(p * 15).astype(int) - 1, 0, 14)
    assert net.values[1] == pytest.approx(sum(abs((p - y)[bins == b].sum()) for b in range(15)) / 300)
    whole = {"p": answers.probabilities, "label": y, "group": np.asarray(answers.groups), "answer": answers.logits.argmax(1)}
    error, low, high = noisy_error([whole], column=1)
    assert net.values[2] == pytest.approx(error, abs=1e-5) and net.values[3] == pytest.approx((low, high), abs=1e-5)
    line = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(np.log(p / (1 - p))[:, None], y)
    assert (net.values[4], net.values[6]) == pytest.approx((line.coef_[0, 0], line.intercept_[0]), abs=1e-5)
    assert str(baseline.values[4]) == str(baseline.values[6]) == "nan", "one answer to every row has no slope"
