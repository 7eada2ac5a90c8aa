"""The questions of a study answered from its store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_study import Made, make_study

from phoropter.report.planned_sentences import describe_answer
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.questions import QuestionAnswers, answer_questions
from phoropter.results.questions.planned import Contrast, ContrastUnit

LEVELS = ("none", "mixup", "cutmix")
ACCURACIES = {f"{net} · augment {k}": 0.8 for net in ("a", "b") for k in LEVELS}
SETTINGS = {name: {"recipe.augment": name.rpartition(" ")[2]} for name in ACCURACIES}
UNIT = ContrastUnit("a", ("a · augment cutmix",), ("a · augment none",))


def answered(folder: Path, *contrasts: Contrast, **changes: Any) -> QuestionAnswers:
    fields = {
        "accuracies": ACCURACIES,
        "settings": SETTINGS,
        "classes": ("x", "y"),
        "rows": 150,
        "seeds": (0,),
        "pictures": 0,
        "epochs": 1,
    }
    store = make_study(folder, Made(**{**fields, "contrasts": [c.to_plain() for c in contrasts], **changes}))
    summary = collect_summary(store)
    return answer_questions(store, summary, compare_candidates(store, summary).design)


def contrast(metric: str = "accuracy", unit: ContrastUnit = UNIT) -> Contrast:
    return Contrast("primary", metric, "recipe.augment", "cutmix", "none", (unit,))


def test_planned_contrasts_come_from_the_record_and_main_effects_from_the_settings(tmp_path: Path) -> None:
    found = answered(tmp_path, contrast())
    assert [a.contrast.role for a in found.planned] == ["primary"]
    assert [a.contrast.title for a in found.main_effects] == ["augment: mixup against none", "augment: cutmix against none"]
    assert all(a.contrast.role == "exploratory" and a.verdict == "cannot tell" for a in found.main_effects)


def test_the_margin_of_the_study_is_one_of_its_first_metric(tmp_path: Path) -> None:
    found = answered(tmp_path, contrast(), contrast("macro_f1"), margin=0.5)
    assert [a.rows.verdict for a in found.planned] == ["practically the same", "cannot tell"]


def test_the_winner_is_corrected_only_over_candidates_tested_on_the_same_rows(tmp_path: Path) -> None:
    best = answered(tmp_path / "whole").best
    assert best is not None and best.n_candidates == 6 and best.corrected < best.plain
    assert answered(tmp_path / "cut", missing=1).best.n_candidates == 5  # type: ignore[union-attr]  # without the incomplete one
    assert answered(tmp_path / "alone", accuracies={"a": 0.9}, settings={}).best is None


def test_the_plain_value_of_the_winner_is_that_of_the_leaderboard(tmp_path: Path) -> None:
    for metric in ("accuracy", "macro_f1", "roc_auc"):
        store = make_study(
            tmp_path / metric, Made(accuracies=ACCURACIES, rows=120, classes=("x", "y"), pictures=0, metrics=(metric,))
        )
        summary = collect_summary(store)
        best = answer_questions(store, summary, compare_candidates(store, summary).design).best
        assert best is not None and best.plain == pytest.approx(summary.candidates[0].metric_mean(metric), abs=1e-9)


def test_a_candidate_without_runs_leaves_its_contrast_unanswered(tmp_path: Path) -> None:
    gone = ContrastUnit("a", ("gone",), ("a · augment none",))
    (answer,) = answered(tmp_path, contrast(unit=gone)).planned
    assert answer.note == "there are no scores of gone" and np.isnan(answer.difference)


@pytest.mark.parametrize("metric", ["log_loss", "roc_auc"])
def test_a_contrast_has_the_estimand_of_its_own_metric(tmp_path: Path, metric: str) -> None:
    """Its difference is that of the values on the leaderboard."""
    fields = {"metrics": ("accuracy", metric)}
    store = make_study(
        tmp_path,
        Made(
            accuracies=ACCURACIES,
            settings=SETTINGS,
            classes=("x", "y"),
            rows=150,
            seeds=(0,),
            pictures=0,
            epochs=1,
            contrasts=[contrast(metric).to_plain()],
            **fields,
        ),
    )  # type: ignore[arg-type]
    summary = collect_summary(store)
    (answer,) = answer_questions(store, summary, compare_candidates(store, summary).design).planned
    values = {c.name: c.metric_mean(metric) for c in summary.candidates}
    assert answer.difference == pytest.approx(values["a · augment cutmix"] - values["a · augment none"], abs=1e-9)


def test_a_planned_lead_of_candidates_worse_than_guessing_is_withdrawn(tmp_path: Path) -> None:
    poor = {name: 0.35 if name.endswith("cutmix") else 0.1 for name in ACCURACIES}
    (answer,) = answered(tmp_path / "poor", contrast(), accuracies=poor).planned
    assert answer.is_guessing and answer.rows.result.low > 0 and answer.verdict == answer.rows.verdict == "cannot tell"
    said = describe_answer(answer, "on unseen rows")
    assert said.endswith("on unseen rows, but the better side is not clearly better than guessing")
    better = {name: 0.97 if name.endswith("cutmix") else 0.1 for name in ACCURACIES}
    (answer,) = answered(tmp_path / "good", contrast(), accuracies=better).planned
    assert not answer.is_guessing and answer.rows.verdict == "ahead"
