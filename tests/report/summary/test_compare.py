"""Which pairs a report tests, and from which runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_study import Made, make_study
from numpy.typing import NDArray

from phoropter.report.conclusion import write_conclusion
from phoropter.report.summary.collect import collect_summary, collect_with_contributions
from phoropter.report.summary.compare import SharedContributions, collect_scores, compare_candidates
from phoropter.report.summary.model import CandidateResults, RunSummary
from phoropter.report.summary.questions import answer_questions
from phoropter.results.stats.compare import Design, compare_pair
from phoropter.results.store import Predictions, Run


class Sheets:
    """Stands for a store: key → predictions."""

    def __init__(self) -> None:
        self.sheets: dict[str, Predictions] = {}

    def run(self, key: str) -> Any:
        return self.sheets[key]


def repeated(store: Any, name: str, right: np.ndarray) -> CandidateResults:
    """right: (repeats, groups, rows) of one seed; each group is left out once in each repeat, so that test rows are the same."""
    lines = []
    for repeat, group in np.ndindex(*right.shape[:2]):
        hits, key = right[repeat, group], f"{name}-{repeat}-{group}"
        labels = np.arange(len(hits)) % 2
        logits = np.eye(2, dtype=np.float32)[np.where(hits, labels, 1 - labels)]
        ids = np.array([f"{group}-{i}" for i in range(len(hits))])
        sheet = Predictions(ids, labels, logits, np.full(len(hits), f"g{group}"))
        store.sheets[key] = type("Sheet", (), {"load_predictions": lambda self, kept=sheet: kept})()
        fields: dict[str, Any] = {"external_metrics": {}, "cost": {}, "record": {}}
        score = {"accuracy": float(hits.mean())}
        lines.append(RunSummary(key, (0, repeat, group), f"rows of {group}", 1, 100, len(hits), score, **fields))
    return CandidateResults(name, len(lines), {}, lines)


def test_repeats_that_test_the_same_rows_all_count() -> None:
    """Five groups in five folds are the same partition in each repeat."""
    draw, store = np.random.default_rng(0), Sheets()
    a, b = (draw.random((3, 5, 20)) < p for p in (0.9, 0.7))
    scores = [collect_scores(store, repeated(store, n, right), "accuracy") for n, right in (("a", a), ("b", b))]  # type: ignore[arg-type]
    assert len(scores[0].scores) == 15
    found = compare_pair(*scores, "accuracy", Design("groups"))
    assert found.difference == pytest.approx(a.mean() - b.mean()) and found.n_splits == 5


MANY = Made(
    accuracies={f"n{i:02d}": 0.97 - 0.02 * i for i in range(12)},
    classes=("x", "y"),
    rows=120,
    folds=1,
    seeds=(0,),
    pictures=0,
    epochs=1,
)


def test_of_many_on_one_test_set_the_first_that_was_trained_to_the_end_is_tested_too(tmp_path: Path) -> None:
    """Else the conclusion would have nobody to compare it with, and say so."""
    store = make_study(tmp_path, MANY)
    summary = collect_summary(store)
    first, second = (c.name for c in summary.candidates[:2])
    summary.candidates[0].not_converged = "its accuracy was still rising"
    found = compare_candidates(store, summary)
    assert found.design.kind == "one test set" and found.family_size == 66
    assert len(found.leader_pairs) == 11 and {c.a for c in found.pairs} == {first, second}
    assert sum(second in (c.a, c.b) for c in found.pairs) == 11
    text = " ".join(write_conclusion(summary, found)[0])
    assert text.startswith(second) or f"tell {second}" in text or f": {second} ranks first" in text
    assert "there is no other candidate" not in text and "no other was trained" not in text


def test_of_candidates_worse_than_guessing_none_leads_and_the_reason_is_given(tmp_path: Path) -> None:
    """Their difference is true, and clear; that they `cannot be told apart` would be false."""
    made = replace(MANY, accuracies={"a": 0.4, "b": 0.1}, rows=300, folds=5)
    store = make_study(tmp_path, made)
    summary = collect_summary(store)
    found = compare_candidates(store, summary)
    assert found.pairs[0].low > 0 and found.pairs[0].verdict == "cannot tell"
    text = " ".join(write_conclusion(summary, found)[0])
    assert text.startswith("No candidate is clearly better than ")
    assert "a ranks first on unseen rows, by " in text
    assert "no lead is claimed for a candidate that is not clearly better than guessing" in text
    assert " apart" not in text and "is ahead of" not in text


def test_what_pairs_and_questions_share_is_read_once_and_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_study(tmp_path, replace(MANY, accuracies={"a": 0.9, "b": 0.8}, folds=3))
    summary = collect_summary(store)
    pairs = compare_candidates(store, summary)
    answers = answer_questions(store, summary, pairs.design)
    read: list[str] = []
    load, load_answers = Run.load_predictions, Run.load_answers

    def count_load(run: Run, part: str = "predictions") -> Predictions | None:
        read.append(run.key)
        named.append(run.key)
        return load(run, part)

    def count_answers(run: Run) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
        read.append(run.key)
        return load_answers(run)

    named: list[str] = []  # with the names of their rows, which are the same for both candidates
    monkeypatch.setattr(Run, "load_predictions", count_load)
    monkeypatch.setattr(Run, "load_answers", count_answers)
    shared = SharedContributions(store, summary)
    assert compare_candidates(store, summary, shared) == pairs
    assert answer_questions(store, summary, pairs.design, shared) == answers
    assert sorted(read) == sorted(run.key for c in summary.candidates for run in c.runs)
    assert sorted(named) == sorted(run.key for run in summary.candidates[0].runs)
    again, contributions = collect_with_contributions(store)
    read.clear()  # what units contribute was found while the candidates were read: no file is opened for pairs
    shared = SharedContributions(store, again, contributions)
    assert compare_candidates(store, again, shared) == pairs and answer_questions(store, again, pairs.design, shared) == answers
    assert not read
