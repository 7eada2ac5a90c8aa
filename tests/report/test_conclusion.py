"""The sentence on top: what it claims, on whom, and that it never claims more than the numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_study import Made, make_study
from test_planned_sentences import answered

from phoropter.report.conclusion import _undecided_sentence, write_conclusion
from phoropter.report.sections.candidates import comparisons
from phoropter.report.sections.candidates.pair_words import explain_undecided
from phoropter.report.summary import compare
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.model import StudySummary
from phoropter.report.summary.questions import QuestionAnswers, answer_questions
from phoropter.report.top_group import find_top_group
from phoropter.results.store import Store

THREE = Made(
    accuracies={"good": 0.93, "also good": 0.93, "bad": 0.6},
    classes=("x", "y"),
    rows=240,
    folds=5,
    seeds=(0,),
    pictures=0,
    epochs=1,
)


def concluded(folder: Path, made: Made) -> tuple[str, str, compare.CandidateComparisons, StudySummary]:
    store = make_study(folder, made)
    summary = collect_summary(store)
    found = compare.compare_candidates(store, summary)
    sentences, beside = write_conclusion(summary, found, answer_questions(store, summary, found.design))
    return " ".join(sentences), " ".join(beside), found, summary


REPEATS = " Training again on other data of this size would repeat that."


def test_a_top_group_of_two_that_are_ahead_of_the_third(tmp_path: Path) -> None:
    text, beside, found, summary = concluded(tmp_path, THREE)
    first, second = (e.name for e in summary.candidates[:2])
    assert text.startswith(
        f"{first} and {second} cannot be told apart on unseen rows and are ahead of bad; {first} is ahead of bad by "
    )
    assert "points of accuracy (95 % interval " in text and text.endswith(REPEATS)
    assert [c.verdict for c in found.leader_pairs] == ["cannot tell", "ahead"]
    assert "with a power of 80 %" in beside
    sentences, _ = write_conclusion(summary, found, leader_sentences=["It finds 9 of 10."])
    assert sentences[1] == "It finds 9 of 10." and sentences[2].startswith("Training again")


def test_what_a_clinic_gets_stands_right_behind_the_planned_question(tmp_path: Path) -> None:
    *_, found, summary = concluded(tmp_path, THREE)
    asked = QuestionAnswers((answered(), answered()))
    sentences, _ = write_conclusion(summary, found, asked, ["It finds 9 of 10."])
    starts = ("The planned question", "It finds 9 of 10.", "The secondary question", "Exploratory, over all pairs")
    assert all(sentence.startswith(start) for sentence, start in zip(sentences, starts, strict=False))
    assert sentences.count("It finds 9 of 10.") == 1


def test_two_candidates_that_cannot_be_distinguished(tmp_path: Path) -> None:
    text, *_ = concluded(tmp_path, replace(THREE, accuracies={"a": 0.9, "b": 0.9}))
    assert " apart: they differ by " in text and text.startswith("This protocol cannot tell ")


def test_an_interval_without_zero_beside_an_undecided_answer_is_explained(tmp_path: Path) -> None:
    """A reader sees `1.6 to 13.0` and `cannot tell`: what stands between the two is the correction for all pairs."""
    *_, found, summary = concluded(tmp_path, THREE)
    lead = next(c for c in found.pairs if c.verdict in ("ahead", "behind"))
    undecided = replace(lead.leading, verdict="cannot tell", p_adjusted=0.3561, family_size=55)
    assert explain_undecided(undecided, summary) == "after correction for 55 pairs p is 0.36"
    assert explain_undecided(replace(undecided, p_adjusted=0.0612, family_size=1), summary) == "p is 0.061"
    within = replace(undecided, result=replace(undecided.result, low=-0.01, high=0.2))
    assert explain_undecided(within, summary) == ""
    pair = replace(lead, rows=undecided, training=replace(lead.training, verdict="cannot tell"))
    group = replace(find_top_group(summary, found), behind=(), pairs=(pair,))
    text = _undecided_sentence(summary, group, found, "")
    assert text.startswith("This protocol cannot tell ") and text.endswith(
        "on unseen rows: after correction for 55 pairs p is 0.36."
    )


def test_a_leader_ahead_of_all_others(tmp_path: Path) -> None:
    text, *_ = concluded(tmp_path, replace(THREE, accuracies={"a": 0.97, "b": 0.6, "c": 0.55}, rows=400))
    assert text.startswith("a is ahead of ") and text.endswith("on unseen rows, and ahead of the other candidate too." + REPEATS)


def test_where_not_every_member_is_ahead_only_the_leader_is_called_so(tmp_path: Path) -> None:
    """Between the leader and the last stands one that can be told from neither."""
    text, _, found, _ = concluded(tmp_path, replace(THREE, accuracies={"a": 0.95, "b": 0.91, "c": 0.87}, rows=300, seed=1))
    assert {(c.a, c.b): c.verdict for c in found.pairs} == {
        ("a", "b"): "cannot tell",
        ("a", "c"): "ahead",
        ("b", "c"): "cannot tell",
    }
    assert text.startswith("a is ahead of c by ") and "on unseen rows; it cannot be told from b." in text


def test_a_single_candidate_that_was_not_trained_to_the_end_is_no_other(tmp_path: Path) -> None:
    *_, found, summary = concluded(tmp_path, replace(THREE, accuracies={"alone": 0.9}))
    summary.candidates[0].not_converged = "it never answers most of its classes"
    sentences, _ = write_conclusion(summary, found)
    assert sentences[0].endswith(" on unseen rows; there is no other candidate to compare it with.")
    assert sentences[-1] == "alone (it never answers most of its classes) was not trained to the end."


def test_the_cost_of_equals_is_said(tmp_path: Path) -> None:
    text, *_ = concluded(tmp_path, replace(THREE, accuracies={"a": 0.9, "b": 0.9}))
    ratio = r"(a|b) is [\d.]+ times cheaper to train than (a|b) \(.* s against .* s a run\) and .* cheaper to use"
    assert re.search(f"Of those that cannot be told apart, {ratio}", text)


def test_the_value_of_the_winner_is_corrected_for_the_choice(tmp_path: Path) -> None:
    """Eight alike: the best of them is too good, and the corrected value lies below it."""
    _, beside, _, summary = concluded(tmp_path, replace(THREE, accuracies={f"n{i}": 0.8 for i in range(8)}))
    corrected = float(re.search(r"chosen as the best of 8, its value is ([\d.]+) %", beside)[1])  # type: ignore[index]
    assert corrected < summary.candidates[0].metric_mean("accuracy") * 100 - 0.5


def test_a_candidate_that_was_not_trained_to_the_end_is_not_called_ahead(tmp_path: Path) -> None:
    store = make_study(tmp_path, replace(THREE, accuracies={"a": 0.97, "b": 0.6, "c": 0.9}, rows=400))
    summary = collect_summary(store)
    object.__setattr__(summary.candidates[0], "not_converged", "its accuracy was still rising")
    sentences, _ = write_conclusion(summary, compare.compare_candidates(store, summary))
    assert sentences[0].startswith("c is ahead of b by ")
    assert sentences[-1] == "Not trained to the end, and so left out of these sentences: a (its accuracy was still rising)."


def test_units_have_their_own_name(tmp_path: Path) -> None:
    made = replace(THREE, groups=8, rows=400, unit_words={"group_word": "birth/births", "site_word": "hospital/hospitals"})
    text, beside, *_ = concluded(tmp_path, made)
    assert "on unseen births" in text and ", over 8 births)" in beside and "group" not in text + beside


def test_lower_is_better_for_a_loss(tmp_path: Path) -> None:
    text, _, found, summary = concluded(tmp_path, replace(THREE, accuracies={"a": 0.97, "b": 0.6}, metrics=("log_loss",)))
    assert summary.candidates[0].name == "a" and found.leader_pairs[0].difference < 0
    assert found.leader_pairs[0].verdict == "ahead"
    pair = found.leader_pairs[0]
    expected = f"a is ahead of b by {-pair.difference:.3f} in log-loss (95 % interval {-pair.high:.3f} to "
    assert text.startswith(expected)


def test_one_test_set_is_compared_row_by_row(tmp_path: Path) -> None:
    text, _, found, _ = concluded(tmp_path, replace(THREE, folds=1, rows=400))
    assert found.design.kind == "one test set"
    assert {c.test for c in found.pairs} == {"McNemar exact"}
    assert " is ahead of bad by " in text


def test_many_candidates_on_one_test_set_are_corrected_for_every_pair(tmp_path: Path) -> None:
    names = {f"net {i:02d}": 0.9 for i in range(compare.MAX_TESTED + 1)} | {"bad": 0.3}
    _, _, found, _ = concluded(tmp_path, replace(THREE, folds=1, rows=300, accuracies=names))
    assert len(found.pairs) == len(names) - 1 and found.family_size == len(names) * (len(names) - 1) // 2
    for c in found.pairs:
        assert c.p_adjusted == pytest.approx(min(1.0, c.p * found.family_size))
    assert {c.b: c.verdict for c in found.pairs}["bad"] == "ahead"
    assert sum(c.verdict == "ahead" for c in found.pairs) == 1


def test_leave_one_group_out_is_tested_over_groups(tmp_path: Path) -> None:
    _, _, found, summary = concluded(tmp_path, replace(THREE, groups=8, folds=8, rows=400))
    assert found.design.kind == "groups" and {c.test for c in found.pairs} == {"Wilcoxon signed-rank"}
    assert {c.n_units for c in found.pairs} == {8}
    assert summary.has_groups and summary.n_units == 8


def test_external_sites_are_distinguished_from_held_out_rows(tmp_path: Path) -> None:
    made = replace(THREE, split="held-out-sites", groups=6, sites=("north", "south"), external=50)
    text, beside, _, summary = concluded(tmp_path / "folds", made)
    assert "on unseen groups" in text and "on unseen sites" not in text
    unseen = summary.candidates[0].external_test
    assert unseen is not None and f"the ensemble of its models reaches {unseen.metrics['accuracy'] * 100:.1f} %" in beside
    text, *_ = concluded(tmp_path / "one", replace(made, folds=1, external=0))
    assert "on unseen sites" in text


@pytest.mark.parametrize(
    ("metric", "reference"),
    [
        ("accuracy", "the majority-class baseline (50.0 % accuracy)"),
        ("log_loss", "the frequencies of the classes for every row (0.693 log-loss)"),
        ("roc_auc", "chance"),
    ],
)
def test_the_conclusion_begins_with_it_when_nothing_beats_guessing(tmp_path: Path, metric: str, reference: str) -> None:
    text, *_ = concluded(tmp_path, replace(THREE, shuffled=True, metrics=(metric,)))
    assert text.startswith(f"No candidate is clearly better than {reference}. ")
    assert " is ahead of " not in text


def test_macro_f1_of_noise_is_no_better_than_its_own_answers_in_random_order(tmp_path: Path) -> None:
    """A constant answer reaches a third, and so noise would look better than guessing."""
    text, *_ = concluded(tmp_path, replace(THREE, shuffled=True, metrics=("macro_f1",)))
    assert text.startswith("No candidate is clearly better than its own answers in random order. ")


def test_a_single_candidate_no_better_than_guessing_is_named(tmp_path: Path) -> None:
    text, *_ = concluded(tmp_path, replace(THREE, accuracies={"a": 0.9}, shuffled=True))
    assert text.startswith("a is not clearly better than the majority-class baseline (50.0 % accuracy). a reaches ")


def test_incomplete_candidates_do_not_lead(tmp_path: Path) -> None:
    made = replace(THREE, accuracies={"bad": 0.75, "good": 0.97}, rows=400, missing=1)
    text, _, found, summary = concluded(tmp_path, made)
    assert "bad ranks first of the finished on unseen rows; good, not finished, is ahead of it so far." in text
    assert [e.name for e in summary.candidates] == ["bad", "good"]
    assert found.leader_pairs[0].verdict == "behind" and found.leader_pairs[0].n_left_out == 1
    assert "bad is ahead" not in text


def test_the_statistical_test_is_named(tmp_path: Path) -> None:
    store: Store = make_study(tmp_path, THREE)
    summary = collect_summary(store)
    words = " ".join(comparisons.explain_comparisons(compare.compare_candidates(store, summary), summary))
    assert "paired t-test of what each" in words and "p is corrected for all 3 pairs" in words
