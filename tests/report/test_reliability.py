"""The lines beside the conclusion: each of their numbers recomputed, and a warning where the study gives reason for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from made_reports import Reported, finding
from made_study import Made, make_study
from read_again import again_of
from reading_html import Tags

from phoropter.report.reliability import describe_reliability
from phoropter.report.render.document import ReliabilityFact
from phoropter.report.sections.clinical.positive_words import describe_positive, find_outcome_rule
from phoropter.report.summary.clinical.collect import collect_clinical_results
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Store

SMALL = Made(accuracies={"a": 0.9, "b": 0.8}, classes=("x", "y"), rows=120, folds=3, seeds=(0,), epochs=1, pictures=0, audit=[])


def facts_of(store: Store) -> dict[str, ReliabilityFact]:
    summary = collect_summary(store)
    return {f.label: f for f in describe_reliability(ReportInput(store, summary, compare_candidates(store, summary)))}


def test_every_number_is_that_of_the_study(whole: Reported) -> None:
    facts, again = facts_of(Store(whole.folder)), again_of(whole.folder)
    first = again.order[0]
    assert facts["Runs"].text == f"all {sum(map(len, again.runs.values()))} finished" and not facts["Runs"].is_warning
    people = np.unique(again.together(first, "group"))
    assert facts["Independent units"].text == f"{len(people)} groups, few: intervals are wide"
    confidence = np.concatenate([r["p"].max(1) for r in again.runs[first]])
    accuracy = again.together(first, "answer") == again.together(first, "label")
    over = (confidence.mean() - accuracy.mean()) * 100
    words = f"{abs(over):.1f} points {'above' if over > 0 else 'below'} its accuracy, for {first}"
    assert facts["Mean confidence"].text == words
    assert facts["Better than guessing"].text == "shown for every candidate"
    assert facts["Leakage audit"].text == "no leakage found, 1 note"
    assert f"detects a true difference of {facts['Detectable difference'].text.split()[0]} points" in Tags(whole.text).text


def test_each_line_leads_to_a_section_of_the_page(whole: Reported, hostile: Reported) -> None:
    for reported in (whole, hostile):
        ids = {a.get("id") for _, a in Tags(reported.text).tags}
        assert {f.section for f in facts_of(Store(reported.folder)).values()} <= ids


def test_what_limits_a_study_is_a_warning(tmp_path: Path) -> None:
    audit = [finding("groups", "warn", [["g"]]), finding("skipped", "note", [])]
    made = replace(SMALL, groups=6, overlap=True, missing=1, audit=audit, scale=["fewer rows"])
    facts = facts_of(make_study(tmp_path / "limited", made))
    assert facts["Runs"] == ReliabilityFact("Runs", "5 of 6 finished; a smoke version of the study", True, "provenance")
    assert facts["Leakage audit"].text == "1 finding, 1 check could not be made" and facts["Leakage audit"].is_warning
    assert facts["Independent units"].text == "6 groups, few: intervals are wide, on both sides of the split"
    noise = facts_of(make_study(tmp_path / "noise", replace(SMALL, shuffled=True)))
    assert noise["Better than guessing"].text == "shown for none of 2 candidates" and noise["Better than guessing"].is_warning
    unknown = facts_of(make_study(tmp_path / "unknown", replace(SMALL, audit=None)))
    assert unknown["Leakage audit"] == ReliabilityFact("Leakage audit", "not recorded", True, "leakage")
    assert not unknown["Independent units"].is_warning


def test_the_positive_class_is_named_with_the_rule_that_makes_it(tmp_path: Path) -> None:
    made = replace(SMALL, classes=("normal", "high-risk"), positive="high-risk")
    assert clinical_facts(make_study(tmp_path / "a", made))["Positive class"].text == "high-risk"
    store = make_study(tmp_path / "b", made)
    store.study["study"].setdefault("data", {})["outcome"] = "pH<=7.15"
    assert clinical_facts(store)["Positive class"].text == "high-risk (by pH<=7.15)"


def clinical_facts(store: Store) -> dict[str, ReliabilityFact]:
    summary = collect_summary(store)
    clinical = collect_clinical_results(store, summary)
    inputs = ReportInput(store, summary, compare_candidates(store, summary), clinical=clinical)
    rule = find_outcome_rule(summary)
    assert (f"The classes are by the outcome {rule}." in describe_positive(summary, clinical)) == bool(rule)
    return {f.label: f for f in describe_reliability(inputs)}
