"""The tables of planned contrasts and of main effects, computed again from the predictions with numpy alone."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_reports import Reported, report
from made_study import Made, make_study
from reading_html import Tags
from scipy import stats

from phoropter.report.sections.candidates.contrasts import contrasts_section, main_effects_table
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.questions import answer_questions
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.questions.planned import PlannedCandidate, PlannedQuestions, family_effects, settle_contrasts
from phoropter.results.store import Store

NETS, LEVELS = ("net a", "net b", "net c"), ("none", "cutmix", "mixup")
ACCURACIES = {f"{net} · augment {k}": 0.8 + 0.1 * (k == "cutmix") for net in NETS for k in LEVELS}
FAMILIES = {"net a": "cnn", "net b": "attention", "net c": "cnn"}
SETTINGS = {name: {"recipe.augment": name.rpartition(" ")[2]} for name in ACCURACIES}
ASKED = {
    "primary": {"contrast": {"factor": "recipe.augment", "level": "cutmix", "against": "none"}},
    "secondary": [
        {"contrast": {"candidate": "net a", "against": "net b"}},
        {"metric": "macro_f1", "contrast": {"factor": "recipe.augment", "level": "mixup", "against": "none"}},
    ],
}


def made_sweep(**changes: Any) -> Made:
    candidates = [PlannedCandidate(n, n.split(" · ")[0], (n.split(" · ")[0],), FAMILIES[n[:5]], SETTINGS[n]) for n in ACCURACIES]
    contrasts = settle_contrasts(PlannedQuestions.model_validate(ASKED), candidates, ["accuracy", "macro_f1"])
    contrasts += family_effects(candidates, "accuracy")
    fields = {
        "accuracies": ACCURACIES,
        "settings": SETTINGS,
        "classes": ("x", "y"),
        "rows": 300,
        "seeds": (0,),
        "pictures": 0,
        "epochs": 1,
    }
    return Made(**{**fields, "contrasts": [c.to_plain() for c in contrasts], **changes})


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reported]:
    yield report(tmp_path_factory.mktemp("asked") / "study", made_sweep())


@pytest.fixture
def page(asked: Reported) -> Tags:
    return Tags(asked.text)


def right_by_fold(folder: Path) -> dict[str, np.ndarray]:
    """Candidate → (5, 60) right answers, fold by fold."""
    found: dict[str, list[np.ndarray]] = {}
    for run in Store(folder).runs():
        p = run.load_predictions()
        assert p is not None
        found.setdefault(run.candidate_name, []).append((run.record["split"]["fold"], (p.logits.argmax(1) == p.labels) * 1.0))
    return {name: np.stack([rows for _, rows in sorted(each, key=lambda e: e[0])]) for name, each in found.items()}


def contrast_of_rows(right: dict[str, np.ndarray], level: str) -> np.ndarray:
    return np.mean([right[f"{net} · augment {level}"] - right[f"{net} · augment none"] for net in NETS], axis=0)


def numbers(row: dict[str, str], column: str) -> list[float]:
    return [float(v) for v in row[column].replace("\u2212", "-").split(" to ")]


def test_the_primary_contrast_is_a_paired_t_of_the_rows(asked: Reported, page: Tags) -> None:
    row = page.columns("contrasts-accuracy")["augment: cutmix against none (primary)"]
    d = contrast_of_rows(right_by_fold(asked.folder), "cutmix")
    low, high = numbers(row, "On new rows points")
    se = np.sqrt(((d - d.mean()) ** 2).sum() / (d.size * (d.size - 1)))
    assert numbers(row, "Difference points") == [pytest.approx(d.mean() * 100, abs=0.06)]
    assert (high + low) / 2 == pytest.approx(d.mean() * 100, abs=0.06)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, d.size - 1) * se * 100, rel=0.03)
    assert row["Verdict on new rows"] == row["Verdict trained again"] == "ahead" and row["Wins"] == "3 of 3"


def test_each_network_has_its_own_difference(asked: Reported, page: Tags) -> None:
    right = right_by_fold(asked.folder)
    shown = {name: numbers(row, "Difference points")[0] for name, row in page.columns("contrast-1-by-candidate").items()}
    assert shown == {
        net: pytest.approx(100 * (right[f"{net} · augment cutmix"].mean() - right[f"{net} · augment none"].mean()), abs=0.06)
        for net in NETS
    }


def test_candidates_are_averaged_over_all_their_variants(asked: Reported, page: Tags) -> None:
    right = right_by_fold(asked.folder)
    mean = {net: np.mean([right[f"{net} · augment {k}"] for k in LEVELS], axis=0) for net in NETS}
    row = page.columns("contrasts-accuracy")["net a against net b (secondary)"]
    difference = mean["net a"] - mean["net b"]
    assert numbers(row, "Difference points") == [pytest.approx(difference.mean() * 100, abs=0.06)]
    assert row["Wins"] == f"{(difference.mean(axis=1) > 0).sum()} of 5 splits"


def test_a_metric_of_its_own_has_a_table_of_its_own(page: Tags) -> None:
    assert list(page.columns("contrasts-macro-f1")) == ["augment: mixup against none (secondary)"]


def test_main_effects_compare_every_level_with_the_first_and_have_no_verdict(asked: Reported, page: Tags) -> None:
    rows = page.columns("effects-recipe-augment")
    assert list(rows) == ["cutmix", "mixup"] and not any("erdict" in column for row in rows.values() for column in row)
    right = right_by_fold(asked.folder)
    for level, row in rows.items():
        assert numbers(row, "Difference points") == [pytest.approx(contrast_of_rows(right, level).mean() * 100, abs=0.06)]
    assert "Exploratory: not planned beforehand" in page.text


def test_families_are_compared_and_called_not_planned(asked: Reported, page: Tags) -> None:
    (row,) = page.columns("effects-family").values()
    right = right_by_fold(asked.folder)
    mean = {f: np.mean([r for n, r in right.items() if FAMILIES[n[:5]] == f], axis=0) for f in ("cnn", "attention")}
    d = mean["attention"] - mean["cnn"]
    low, high = numbers(row, "On new rows points")
    assert numbers(row, "Difference points") == [pytest.approx(d.mean() * 100, abs=0.06)]
    se = np.sqrt(((d - d.mean()) ** 2).sum() / (d.size * (d.size - 1)))
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, d.size - 1) * se * 100, rel=0.03)
    assert row["Wins"] == f"{(d.mean(axis=1) > 0).sum()} of 5 splits" and not any("erdict" in column for column in row)
    assert page.text.count("Exploratory: not planned beforehand") == 2, "of augmentations, and of families"


def test_p_is_corrected_for_the_planned_questions_and_all_else_is_called_exploratory(asked: Reported, page: Tags) -> None:
    assert (
        "p is corrected for the 3 questions (Holm)" in page.text
        and "All other comparisons on this page are exploratory" in page.text
    )
    with (asked.page.parent / "tables" / "contrasts-accuracy.csv").open(encoding="utf-8-sig") as file:
        assert [row["Contrast"] for row in csv.DictReader(file)] == [
            "augment: cutmix against none (primary)",
            "net a against net b (secondary)",
        ]


def test_the_conclusion_begins_with_the_planned_question(asked: Reported) -> None:
    said = (asked.page.parent / "conclusion.txt").read_text().splitlines()
    assert said[0].startswith("The planned question: augment cutmix is ahead of augment none by ")
    assert said[0].endswith(" on unseen rows, in 3 of 3 candidates; training again on other data of this size would repeat that.")
    assert said[1].startswith("At one false alarm in ten ")  # what a clinic gets, right behind
    assert said[2] == "On none of the 2 secondary questions is a difference shown."
    assert said[3].startswith("Exploratory, over all pairs: ")
    assert "Exploratory: the questions that this study planned are answered under Planned contrasts." in asked.text


def test_a_study_without_planned_contrasts_has_no_section_of_them(tmp_path: Path) -> None:
    store = make_study(tmp_path / "s", made_sweep(contrasts=(), rows=100))
    summary = collect_summary(store)
    comparisons = compare_candidates(store, summary)
    inputs = ReportInput(store, summary, comparisons, answer_questions(store, summary, comparisons.design))
    assert contrasts_section(inputs) is None
    effects = main_effects_table(inputs.answers.main_effects, "recipe.augment", "augment")
    assert effects is not None and len(effects.rows) == 2
