"""The sentence for who acts on an answer: its numbers, its words, and where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_clinical import BIRTHS, alarm_births, read_births
from made_study import Made, make_study

from phoropter.core.language.unit_words import GROUP, UnitWord
from phoropter.report.clinical_sentences import clinical_sentences
from phoropter.report.sections.clinical.positive_words import describe_false_alarms
from phoropter.report.summary.clinical.collect import collect_clinical_results, name_levels
from phoropter.report.summary.collect import collect_summary
from phoropter.results.positive_class import open_results
from phoropter.results.store import Predictions

BIRTH = UnitWord("birth", "births")


def sentences_of(folder: Path, made: Made, candidate: str) -> list[str]:
    make_study(folder, made)
    store = open_results(folder)
    summary = collect_summary(store)
    return clinical_sentences(summary, collect_clinical_results(store, summary), candidate)


def test_it_gives_what_is_found_at_bearable_false_alarms_per_birth(tmp_path: Path) -> None:
    first, second = sentences_of(tmp_path, BIRTHS, "resnet18")
    answers = read_births(tmp_path, "resnet18")
    alarms, ill = alarm_births(answers, 0.8), answers["truth"] == 1
    found, false = alarms[ill].mean(), alarms[~ill].mean()
    start = (
        f"At one false alarm in five ‘healthy’ births, resnet18 finds {found * 100:.0f} of 100 ‘acidosis’ births (95 % interval "
    )
    assert first.startswith(start) and f"; false alarms were in fact {false * 100:.0f} of 100 (" in first
    low, high = (int(v) for v in first.removeprefix(start).partition(")")[0].split(" to "))
    assert low < found * 100 < high
    ppv = found * 0.02 / (found * 0.02 + false * 0.98)
    assert second.startswith(f"Where 2 % of births are ‘acidosis’, {ppv * 100:.0f} of 100 alarms would be right (")


@pytest.mark.parametrize(
    ("groups", "word", "expected"),
    [
        (["a", "b", "c"], BIRTH, "birth"),
        (["a", "a", "c"], BIRTH, "window"),
        (["a", "b", "c"], GROUP, "window"),
        (None, BIRTH, "window"),
    ],
)
def test_births_with_one_window_each_are_called_births(groups: list[str] | None, word: UnitWord, expected: str) -> None:
    ids, labels, logits = np.array(["1", "2", "3"]), np.zeros(3, dtype=np.int64), np.zeros((3, 2), dtype=np.float32)
    part = Predictions(ids, labels, logits, None if groups is None else np.array(groups), None, np.zeros((3, 2)))
    summary: Any = SimpleNamespace(group_word=word)
    words = name_levels(summary, [part])
    assert words["row"].singular == expected and words["group"] == word


def test_rows_without_people_are_counted_themselves(tmp_path: Path) -> None:
    made = Made({"net": 0.8}, ("cat", "dog"), rows=200, seeds=(0,), pictures=0, positive="cat")
    (only,) = sentences_of(tmp_path, made, "net")
    assert only.startswith("At one false alarm in ten ‘dog’ pictures, net finds ") and " of 100 ‘cat’ pictures (" in only


def test_without_a_positive_class_there_is_none(tmp_path: Path) -> None:
    assert sentences_of(tmp_path, Made({"net": 0.8}, ("a", "b", "c"), rows=90, seeds=(0,), pictures=0), "net") == []


def test_one_class_against_all_others(tmp_path: Path) -> None:
    made = Made({"net": 0.8}, ("a", "b", "c"), rows=300, seeds=(0,), folds=3, pictures=0, positive="b")
    (only,) = sentences_of(tmp_path, made, "net")
    assert only.startswith("At one false alarm in ten non-‘b’ pictures, net finds ") and "‘b’ pictures" in only
    store = open_results(tmp_path)
    parts = [part for run in store.runs() if (part := run.load_predictions()) is not None]
    truth, p = np.concatenate([q.labels == 1 for q in parts]), np.concatenate([q.probabilities[:, 1] for q in parts])
    answers = {"truth": truth.astype(int), "p": p, "seed": np.zeros(300), "fold": np.repeat([0, 1, 2], 100)}
    assert f"finds {alarm_births(answers, 0.9)[truth].mean() * 100:.0f} of 100" in only


@pytest.mark.parametrize(("share", "words"), [(0.1, "one false alarm in ten"), (0.05, "one false alarm in twenty")])
def test_common_shares_have_words(share: float, words: str) -> None:
    assert describe_false_alarms(share) == words and describe_false_alarms(0.07) == "7 false alarms in 100"


def test_nothing_is_said_of_a_class_that_was_not_tested(tmp_path: Path) -> None:
    made = Made({"net": 0.8}, ("cat", "dog"), rows=40, groups=4, one_class=True, folds=2, seeds=(0,), pictures=0, positive="cat")
    make_study(tmp_path, made)
    store = open_results(tmp_path)
    summary = collect_summary(store)
    found = collect_clinical_results(store, summary)
    assert found.deciding is not None
    point = found.deciding.candidates[0].points[0]
    lacking = replace(point.statistics, sensitivity=replace(point.statistics.sensitivity, estimate=float("nan")))
    candidate = replace(found.deciding.candidates[0], points=(replace(point, goal=found.goal, statistics=lacking),))
    only = replace(found, levels=(replace(found.deciding, candidates=(candidate,)),))
    assert clinical_sentences(summary, only, "net") == []
