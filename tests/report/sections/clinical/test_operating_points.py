"""Operating points and the leaderboard of births on the page, each number from the stored logits by plain lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_clinical import BIRTHS, alarm_births, read_births
from made_reports import Reported, report
from made_study import make_study
from reading_html import Tags
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from phoropter.report.render.table import Table
from phoropter.report.sections.clinical.levels import level_table
from phoropter.report.sections.clinical.operating_points import points_table
from phoropter.report.sections.clinical.positive_words import describe_positive
from phoropter.report.summary.clinical.collect import collect_clinical_results
from phoropter.report.summary.clinical.model import ClinicalResults
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.model import StudySummary
from phoropter.results.positive_class import open_results


@pytest.fixture(scope="module")
def births(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    return report(tmp_path_factory.mktemp("births") / "study", BIRTHS)


@pytest.fixture(scope="module")
def page(births: Reported) -> Tags:
    return Tags(births.text)


def cells(row: dict[str, str]) -> dict[str, str]:
    """Without units in the headers."""
    return {name.removesuffix("\u00a0%").removesuffix(" %"): value for name, value in row.items()}


@pytest.mark.parametrize("level", ["group", "row"])
def test_every_goal_is_judged_on_rows_that_did_not_choose_it(births: Reported, page: Tags, level: str) -> None:
    answers = read_births(births.folder, "resnet18", level)
    table = page.columns(f"operating-points-per-{level}")
    assert list(table) == [
        "Threshold 0.5",
        *("80 % specificity", "90 % specificity", "95 % specificity", "90 % sensitivity", "95 % sensitivity"),
    ]
    for specificity in (0.8, 0.9, 0.95):
        check_row(cells(table[f"{specificity * 100:.0f} % specificity"]), answers, alarm_births(answers, specificity))
    check_row(cells(table["Threshold 0.5"]), answers, answers["p"] >= 0.5)


def check_row(row: dict[str, str], answers: dict[str, Any], alarms: Any) -> None:
    ill = answers["truth"] == 1
    sensitivity, specificity = alarms[ill].mean(), (~alarms[~ill]).mean()
    assert row["Sensitivity"] == f"{sensitivity * 100:.1f}" and row["Specificity"] == f"{specificity * 100:.1f}"
    assert row["PPV"] == f"{ill[alarms].mean() * 100:.1f}" and row["NPV"] == f"{(~ill[~alarms]).mean() * 100:.1f}"
    assert row["Alarms per 100"] == f"{alarms.mean() * 100:.1f}"
    ppv = sensitivity * 0.02 / (sensitivity * 0.02 + (1 - specificity) * 0.98)
    npv = specificity * 0.98 / (specificity * 0.98 + (1 - sensitivity) * 0.02)
    assert float(row["PPV at prevalence"]) == pytest.approx(ppv * 100, abs=0.06)
    assert float(row["NPV at prevalence"]) == pytest.approx(npv * 100, abs=0.06)
    assert row["LR+"] == f"{sensitivity / (1 - specificity):.2f}"
    assert row["LR\u2212"] == f"{(1 - sensitivity) / specificity:.2f}"


def test_two_seeds_on_the_same_births_are_at_most_as_sure_as_twice_the_births(births: Reported, page: Tags) -> None:
    answers = read_births(births.folder, "resnet18")
    alarms, ill = alarm_births(answers, 0.8), answers["truth"] == 1
    row = cells(page.columns("candidates-at-goal-per-group")["resnet18"])
    low, high = (float(v) for v in row["95\u00a0%\u00a0interval of Sensitivity"].split(" to "))
    share = alarms[ill].mean()
    once, twice = (proportion_confint(share * n, n, method="wilson") for n in (ill.sum() / 2, ill.sum()))
    assert once[0] * 100 - 0.06 <= low <= twice[0] * 100 + 0.06 and twice[1] * 100 - 0.06 <= high <= once[1] * 100 + 0.06


def test_the_page_names_the_positive_class(births: Reported) -> None:
    assert "The positive class is ‘acidosis’." in births.text and "false alarm in five ‘healthy’ births, resnet18" in births.text


def test_the_leaderboard_of_births(births: Reported, page: Tags) -> None:
    for name, row in page.columns("leaderboard-per-group").items():
        answers = read_births(births.folder, name)
        each = [answers["seed"] == seed for seed in (0, 1)]  # 15 births a fold cannot carry an area: of a repeat together
        truth, p = answers["truth"], answers["p"]
        values = {k.removesuffix("\u00a0%"): v for k, v in row.items()}
        assert values["ROC-AUC"] == f"{np.mean([roc_auc_score(truth[s], p[s]) for s in each]):.3f}"
        assert values["Average precision"] == f"{np.mean([average_precision_score(truth[s], p[s]) for s in each]):.3f}"
        assert values["Log-loss"] == f"{log_loss(truth, p):.3f}"
        assert cells(row)["Accuracy"] == f"{((p > 0.5) == truth).mean() * 100:.1f}"
    first = answers["truth"][answers["seed"] == 0]
    assert f"{first.sum()} of {len(first)} births are ‘acidosis’." in births.text
    assert f"{len(first)} independent births" in births.text and "ROC-AUC, Average precision" in births.text


def test_the_note_says_which_areas_are_means_over_splits(tmp_path: Path) -> None:
    summary, clinical = results_of(tmp_path)
    level = clinical.deciding
    assert level is not None
    whole = {name: replace(estimand, kind="per-split") for name, estimand in level.estimands.items()}
    note = level_table(summary, replace(level, estimands=whole)).note
    assert note.startswith("ROC-AUC, Average precision") and ": mean over splits. Interval: " in note


def results_of(folder: Path, **changes: Any) -> tuple[StudySummary, ClinicalResults]:
    """Without the page, which takes longer."""
    make_study(folder, replace(BIRTHS, seeds=(0,), **changes))
    store = open_results(folder)
    summary = collect_summary(store)
    return summary, collect_clinical_results(store, summary)


def rows_of(table: Table) -> dict[str, dict[str, Any]]:
    names = [column.name for column in table.columns]
    return {str(row.values[0]): dict(zip(names, row.values, strict=True)) for row in table.rows}


@pytest.mark.parametrize(("rule", "words"), [("max", "the highest probability"), ("vote", "the share of the answers")])
def test_the_rule_of_aggregation_is_that_of_the_study(tmp_path: Path, rule: str, words: str) -> None:
    summary, clinical = results_of(tmp_path, study_keys={"aggregate": rule})
    assert clinical.deciding is not None and clinical.deciding.rule == words
    answers = read_births(tmp_path, "vit_tiny", "group", rule)
    row = rows_of(level_table(summary, clinical.deciding))["vit_tiny"]
    assert row["ROC-AUC"] == pytest.approx(roc_auc_score(answers["truth"], answers["p"]))


def test_without_a_stated_class_the_last_is_positive_and_the_page_says_how_to_change_it(tmp_path: Path) -> None:
    summary, clinical = results_of(tmp_path, positive="", study_keys={})
    words = describe_positive(summary, clinical)
    assert "‘healthy’ counts as positive, the last of the two" in words and "data: {positive: acidosis}" in words
    answers = read_births(tmp_path, "resnet18")  # healthy is looked for: its probability, and acidosis is the negative
    turned = {**answers, "truth": 1 - answers["truth"], "p": 1 - answers["p"]}
    assert clinical.deciding is not None
    row = rows_of(points_table(summary, clinical, clinical.deciding))["90 % specificity"]
    assert row["Sensitivity"] == pytest.approx(alarm_births(turned, 0.9)[turned["truth"] == 1].mean())


def test_people_with_several_classes_have_no_answer_of_their_own(tmp_path: Path) -> None:
    _, clinical = results_of(tmp_path, one_class=False)
    assert [level.level for level in clinical.levels] == ["row"]
    parts = [part for run in open_results(tmp_path).runs() if (part := run.load_predictions()) is not None]
    pairs = {(g, label) for part in parts if part.groups is not None for g, label in zip(part.groups, part.labels, strict=True)}
    mixed = len(pairs) - len({group for group, _ in pairs})  # of two classes: the groups that are named twice
    assert clinical.missing == {"group": f"{mixed} of 60"}


def test_curves_say_what_they_show(births: Reported) -> None:
    answers = read_births(births.folder, "resnet18")
    shares = []
    for seed in (0, 1):
        mine = answers["seed"] == seed
        order = np.argsort(-answers["p"][mine], kind="stable")
        found = np.cumsum(answers["truth"][mine][order])
        at = np.flatnonzero(found >= 0.5 * found[-1])[0]
        shares.append(found[at] / (at + 1))
    assert f"at a recall of 50 % the precision of resnet18 is {np.mean(shares) * 100:.0f} %" in births.text


def test_one_split_without_inner_validation_has_the_plain_threshold_alone(tmp_path: Path) -> None:
    summary, clinical = results_of(tmp_path / "without", folds=1)
    assert clinical.deciding is not None and clinical.deciding.level == "group"
    table = points_table(summary, clinical, clinical.deciding)
    assert list(rows_of(table)) == ["Threshold 0.5"]
    assert "No other threshold can be chosen without looking at tested rows" in table.note


def test_one_split_takes_its_threshold_from_the_births_of_its_validation_part(tmp_path: Path) -> None:
    _, clinical = results_of(tmp_path, folds=1, validation=300)
    assert clinical.deciding is not None
    point = clinical.deciding.find_candidate("resnet18").find_point(clinical.goal)
    key = next(r.key for r in open_results(tmp_path).runs() if r.candidate_name == "resnet18")
    with np.load(tmp_path / "runs" / key / "validation.npz") as file:
        p = 1 / (1 + np.exp(file["logits"][:, 1].astype(float) - file["logits"][:, 0]))
        names = np.unique(file["group"])
        scores = np.array([p[file["group"] == n].mean() for n in names])
        healthy = np.array([file["label"][file["group"] == n][0] == 1 for n in names])
    allowed = [t for t in scores if (scores[healthy] >= t).mean() <= 0.2 + 1e-12]
    assert point is not None and point.thresholds == pytest.approx([min(allowed)])
