"""The parts of the page that come of the record: audit, branches, rungs, trends, hardest groups, margin; and the model card."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_reports import Reported, finding
from made_study import Made, make_study
from reading_html import Tags
from scipy.optimize import minimize_scalar

from phoropter.report.conclusion import write_conclusion
from phoropter.report.model_card import _describe_loading, build_model_card, list_limitations
from phoropter.report.page import collect_notices
from phoropter.report.sections.candidates import comparisons
from phoropter.report.sections.study import leakage
from phoropter.report.sections.study.provenance import reproduce_commands
from phoropter.report.sections.training import trends
from phoropter.report.summary import compare
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Store

SMALL = Made(accuracies={"a": 0.9, "b": 0.8}, classes=("x", "y"), rows=80, folds=2, seeds=(0,), epochs=1, pictures=0)


def findings_of(store: Store) -> ReportInput:
    summary = collect_summary(store)
    return ReportInput(store, summary, compare.compare_candidates(store, summary))


def test_branches_are_averaged_over_runs_and_useless_ones_are_named(whole: Reported) -> None:
    page = Tags(whole.text)
    first, second = page.tables["branches"][1:]
    runs = [r.record["branches"] for r in Store(whole.folder).runs() if "branches" in r.record]
    assert len(runs) == 10
    for i, row in enumerate((first, second)):
        alone = [r[i]["accuracy"] * 100 for r in runs]
        worth = [(r[i]["fused"] - r[i]["without"]) * 100 for r in runs]
        assert row[2] == f"{np.mean(alone):.1f} ± {np.std(alone, ddof=1):.1f}"
        assert row[5].startswith(f"{np.mean(worth):+.1f}" if np.mean(worth) > 0.05 else "0.0")
    assert "less than 0.2 points, or raises it: efficientnet_b0 in resnet50 + efficientnet_b0." in page.text


def test_screening_rounds_list_candidates_best_first(whole: Reported) -> None:
    rows = Tags(whole.text).tables["screening"][1:]
    assert [r[2] for r in rows] == ["b", "a", "c", "b", "a"] and [r[4] for r in rows] == ["yes", "yes", "no", "yes", "no"]
    assert rows[0][3] == "81.5" and "all, briefly: a tenth of the rows." in Tags(whole.text).text


def test_runs_on_the_same_rows_under_one_seed_are_told_apart_by_their_repeat(tmp_path: Path) -> None:
    """Curves of one repeat are never drawn together with those of another, as paired runs are."""
    summary = collect_summary(make_study(tmp_path, replace(SMALL, epochs=6, validation_history=True)))
    for candidate, repeat in zip(summary.candidates, (0, 1), strict=True):
        candidate.runs = [replace(r, split=(0, repeat, r.split[2])) for r in candidate.runs]
    one, two = trends.collect_learning_curves(summary, "train_accuracy")
    assert one.splits != two.splits and [s[0] for s in one.splits] == [s[0] for s in two.splits]
    assert one.splits == tuple((r.test_rows_digest, 0, 0) for r in summary.candidates[0].runs)


def test_trends_and_crossings_are_those_of_the_histories(whole: Reported) -> None:
    page = Tags(whole.text)
    curves: dict[str, list[list[float]]] = {}
    for run in Store(whole.folder).runs():
        with (run.folder / "history.csv").open() as file:
            curves.setdefault(run.candidate_name, []).append([float(row["train_accuracy"]) for row in csv.DictReader(file)])
    rows = {(r[0], r[1]): r for r in page.tables["trends"][1:]}
    for name, values in curves.items():
        mean, u = np.mean(values, axis=0), np.log(np.arange(1, 7))
        b, a = np.polyfit(u, mean, 1)
        row = rows[name, "logarithmic"]
        assert row[2] == f"{a:.3f} + {b:.3f} ln x" and row[6] == f"{np.corrcoef(u, mean)[0, 1] ** 2:.3f}" and row[8] == "10"
    assert "Trends are fitted to the accuracy on the training rows" in page.text


def test_hardest_groups_of_every_candidate(whole: Reported) -> None:
    for name, row in Tags(whole.text).columns("worst-groups").items():
        right: dict[str, list[bool]] = {}
        for run in Store(whole.folder).runs():
            if run.candidate_name == name and (said := run.load_predictions()) is not None and said.groups is not None:
                for group, hit in zip(said.groups, said.logits.argmax(1) == said.labels, strict=True):
                    right.setdefault(str(group), []).append(bool(hit))
        shares = sorted(np.mean(hits) for hits in right.values())
        assert row["Hardest group\u00a0%"] == f"{shares[0] * 100:.1f}"
        assert row["Hardest fifth\u00a0%"] == f"{np.mean(shares[:3]) * 100:.1f}"  # 14 groups
        assert row["All groups\u00a0%"] == f"{np.mean(shares) * 100:.1f}"


def test_temperatures_are_fitted_on_the_validation_rows(whole: Reported) -> None:
    columns = Tags(whole.text).columns("calibration")
    assert columns.pop("majority-class baseline")["Temperature"] == "–"
    for name, row in columns.items():
        fitted = []
        for run in Store(whole.folder).runs():
            if run.candidate_name == name and (aside := run.load_predictions("validation")) is not None:
                z, y = aside.logits.astype(np.float64), aside.labels

                def loss(log_t: float, z: np.ndarray = z, y: np.ndarray = y) -> float:
                    s = z / np.exp(log_t)
                    return float(np.mean(np.log(np.exp(s - s.max(1, keepdims=True)).sum(1)) + s.max(1) - s[np.arange(len(y)), y]))

                fitted.append(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))
        mean, std = (float(v) for v in row["Temperature"].split(" ± "))
        assert (mean, std) == pytest.approx((np.mean(fitted), np.std(fitted, ddof=1)), abs=0.006)


# ----------------------------------------------------------------------------------------------------------- the audit


def test_findings_have_a_table_and_thumbnails_of_their_pairs(whole: Reported, hostile: Reported) -> None:
    page = Tags(whole.text)
    assert page.tables["leakage"][1][:6] == ["label conflicts", "note", "3", "84", "3.6", "2"]
    alts = [a["alt"] for tag, a in page.tags if tag == "img"]
    assert "first: internal/00001.png" in alts and "second: internal/00002.png" in alts and "calm and fun" in page.text
    with (whole.page.parent / "tables" / "leakage-label-conflicts.csv").open() as file:
        assert list(csv.reader(file))[1] == ["internal/00001.png", "internal/00002.png", "calm and fun"]
    other = Tags(hostile.text)
    assert "test <b>x</b>" in other.text and "training y&z" in other.text and "Examples (groups): <i>g</i>." in other.text
    assert "The audit found leakage. near duplicates lie on both sides" in other.text


def test_an_audit_without_findings_differs_from_no_audit(tmp_path: Path) -> None:
    clean = findings_of(make_study(tmp_path / "clean", replace(SMALL, audit=[])))
    unknown = findings_of(make_study(tmp_path / "unknown", SMALL))
    assert (
        "Nothing was found" in leakage.leakage_section(clean).paragraphs[0]
        and "nothing is known about leakage" in leakage.leakage_section(unknown).paragraphs[0]
    )
    unsearched = finding("skipped", "note", [], "Near-identical pictures were not looked for")
    text = leakage.leakage_section(findings_of(make_study(tmp_path / "some", replace(SMALL, audit=[unsearched])))).paragraphs
    assert "Nothing was found" in text[0] and text[1] == "Near-identical pictures were not looked for."
    assert collect_notices(clean.summary) == [] and "No leakage audit is recorded." in list_limitations(unknown)
    assert not any("leakage audit" in line for line in list_limitations(clean))


# ---------------------------------------------------------------------------------------------------------- the margin


def test_candidates_within_the_equivalence_margin_are_practically_the_same(tmp_path: Path) -> None:
    made = replace(SMALL, accuracies={"a": 0.9, "b": 0.9}, rows=600, folds=5, margin=0.2)
    found = findings_of(make_study(tmp_path / "wide", made))
    (pair,) = found.comparisons.pairs
    assert pair.low > -0.2 and pair.high < 0.2 and pair.verdict == "practically the same"
    assert write_conclusion(found.summary, found.comparisons)[0][0] == "Both candidates are practically the same on unseen rows."
    assert "lies within ±20.0 points" in " ".join(comparisons.explain_comparisons(found.comparisons, found.summary))
    narrow = findings_of(make_study(tmp_path / "narrow", replace(made, margin=0.001, seed=1)))
    assert narrow.comparisons.pairs[0].verdict == "cannot tell"


# ------------------------------------------------------------------------------------------------------- the model card


def test_the_model_card_repeats_the_page(whole: Reported) -> None:
    text = (whole.page.parent / "model-card.md").read_text(encoding="utf-8")
    board = Tags(whole.text).columns("leaderboard")
    name, row = next(iter(board.items()))
    assert text.startswith(f"# Model card: {name.replace('_', chr(92) + '_')}\n")
    assert f"| {row['Accuracy' + chr(160) + '%']} | {row[list(row)[2]]} |" in text
    worst = Tags(whole.text).columns("worst-groups")[name]
    assert f"its accuracy is {worst['Hardest fifth' + chr(160) + '%']} %" in text
    said = (whole.page.parent / "conclusion.txt").read_text().splitlines()
    assert all(line.replace("_", "\\_") in text for line in said)
    for title in (
        "Data",
        "Evaluation",
        "Results",
        "Hardest groups and classes",
        "Cost",
        "Limitations",
        "Loading the model",
        "Versions",
    ):
        assert f"\n## {title}\n" in text
    assert "No bundle of it was saved" in text and "torch 2.13.0" in text


def test_the_model_card_of_an_average_says_what_makes_a_model_of_it(tmp_path: Path) -> None:
    """Its runs save no bundle, whatever `save_models` says."""
    found = findings_of(make_study(tmp_path, replace(SMALL, rows=60, folds=2)))
    first, member = found.summary.candidates[:2]
    first.runs[0].record["candidate"] = {"members": [member.name]}
    assert _describe_loading(found) == [
        f"It averages {member.name}: `phoropter refit` makes one model of them, trained on all rows."
    ]
    member.runs[0].record["candidate"] = {"table": {"baseline": "mean-image"}}
    assert member.table_kind, "a member without a network"
    (said,) = _describe_loading(found)
    assert said.startswith(f"It averages answers of {member.name} too") and "phoropter refit" not in said


def test_the_model_card_lists_what_limits_the_study(tmp_path: Path, hostile: Reported) -> None:
    made = replace(SMALL, shuffled=True, rows=120, folds=4, audit=[], scale=["at most 120 rows"], missing=1)
    found = findings_of(make_study(tmp_path, made))
    lines = list_limitations(found)
    assert any(line.startswith("It ranks first, but it is not shown to be better than ") for line in lines)
    assert "Changed for a smoke version of the study: at most 120 rows." in lines
    assert any("Only 7 of 8 runs" in line for line in lines) and any("have no groups" in line for line in lines)
    assert "no lead is claimed for a candidate that is not clearly better than guessing" in build_model_card(found)
    text = (hostile.page.parent / "model-card.md").read_text(encoding="utf-8")
    assert "<img" not in text.replace("\\<img", "") and "<script" not in text.replace("\\<script", "")


def test_overlapping_groups_and_few_of_them_are_limits(tmp_path: Path) -> None:
    lines = list_limitations(
        findings_of(make_study(tmp_path, replace(SMALL, groups=6, overlap=True, audit=[finding("groups", "warn", [["g"]])])))
    )
    assert any("expect lower accuracy on new people" in line for line in lines)
    assert "The interval rests on only 6 groups." in lines
    assert any(line.startswith("groups lie on both sides") for line in lines)


def test_the_model_card_shows_how_to_load_a_saved_bundle(tmp_path: Path) -> None:
    store = make_study(tmp_path, SMALL)
    best = collect_summary(store).candidates[0]
    key = best.runs[1].key
    (store.run(key).folder / "bundle").mkdir()
    text = build_model_card(findings_of(store))
    assert f'load(Path("runs/{key}/bundle"))' in text
    assert f"trained on {best.runs[1].n_train} rows and tested on {best.runs[1].n_test}" in text


@pytest.mark.parametrize(
    ("command", "where"),
    [
        ("phoropter run a.yaml", "runs/made"),
        ("phoropter demo -o '/x/my demo' --seed 1", "'/x/my demo'"),
        ("phoropter run a.yaml --out=there", "there"),
        ("python study.py", "made"),
    ],
)
def test_the_report_command_names_the_results_folder(command: str, where: str) -> None:
    summary: Any = SimpleNamespace(study={"command": command}, folder=Path("made"))
    assert reproduce_commands(summary)[-1] == f"phoropter report {where}"
