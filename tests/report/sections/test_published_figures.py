"""Published figures beside ours: which agree, judged from intervals computed here a second time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_study import Made, make_study
from statsmodels.stats.proportion import proportion_confint

from phoropter.report.render.table import IntervalBounds, MeanStd
from phoropter.report.sections.candidates.published import agreement_table, published_table
from phoropter.report.sections.claim_sentences import describe_claim
from phoropter.report.sections.published_figures import compare_figures
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.questions import NO_ANSWERS

CLAIM = "a is ahead of b."


def made_with(about: dict[str, Any], **changes: Any) -> Made:
    made = Made(accuracies={"a": 0.9, "b": 0.75}, rows=400, folds=2, seeds=(0,), pictures=0, epochs=1, **changes)
    return replace(made, study_keys={"about": {"source": "a paper", **about}})


def test_shares_are_judged_by_two_wilson_intervals(tmp_path: Path) -> None:
    figures = {"a": {"accuracy": 0.9049}, "b": {"accuracy": 0.9012}}
    made = made_with({"claim": CLAIM, "published": figures, "published_sample": {"rows": 1000}})
    summary = collect_summary(make_study(tmp_path, made))
    by_name = {f.candidate: f for f in compare_figures(summary)}
    for name, figure in by_name.items():
        low, high = proportion_confint(round(figures[name]["accuracy"] * 1000), 1000, method="wilson")
        assert figure.derived is not None
        assert (figure.derived.low, figure.derived.high) == (pytest.approx(low, abs=4e-4), pytest.approx(high, abs=4e-4))
        arms = np.hypot([figure.ours - figure.low, figure.high - figure.ours], [high - 0.9, 0.9 - low])
        shown = figure.ours - figures[name]["accuracy"]
        holds_zero = shown - arms[0] <= 0 <= shown + arms[1]
        assert (figure.agreement == "agrees") == holds_zero
    assert (by_name["a"].agreement, by_name["b"].agreement) == ("agrees", "lower here")
    claim, headline, count = describe_claim(summary, NO_ANSWERS)
    assert claim == "Claimed by its source: a is ahead of b."
    assert headline.startswith("a: published 90.5 % accuracy (95 % interval 88.5 % to 92.2 %), here ")
    assert headline.endswith(": they agree within what both can know.")
    assert count == "Of 2 published values of accuracy with ours beside them, 1 agrees and 1 is lower here."
    table = agreement_table(summary)
    assert table is not None and [row.values[-1] for row in table.rows] == ["agrees", "lower here"]
    assert "Wilson's interval of 1,000 tested rows" in table.note


def test_without_rows_or_runs_nobody_can_judge(tmp_path: Path) -> None:
    made = made_with({"claim": CLAIM, "published": {"a": {"accuracy": 0.99}}})
    summary = collect_summary(make_study(tmp_path, made))
    (figure,) = compare_figures(summary)
    assert figure.agreement == "cannot be judged" and agreement_table(summary) is None
    _, headline = describe_claim(summary, NO_ANSWERS)
    assert headline.endswith("its figure lies outside the interval here.") and "cannot be known" in headline


def test_figures_with_spread_and_of_unseen_sites(tmp_path: Path) -> None:
    figures = {"a": {"roc_auc": {"value": 0.9, "std": 0.02}, "unseen_roc_auc": 0.62}}
    sample = {"runs": 30, "folds": 10, "unseen_positives": 40, "unseen_negatives": 711}
    made = made_with(
        {"claim": CLAIM, "published": figures, "published_sample": sample}, classes=("no", "yes"), external=200, sites=("A", "B")
    )
    made = replace(made, study_keys={**made.study_keys, "metrics": ["roc_auc"]})
    summary = collect_summary(make_study(tmp_path, made))
    (candidate, *_) = summary.candidates
    assert candidate.external_test is not None
    inside, unseen = compare_figures(summary)
    assert inside.derived is not None and unseen.derived is not None
    assert inside.derived.high - inside.derived.low == pytest.approx(2 * 2.0452 * 0.02 * np.sqrt(1 / 30 + 1 / 9) + 0.01, abs=1e-4)
    assert unseen.ours == candidate.external_test.metrics["roc_auc"] and unseen.agreement == "higher here"
    table = published_table(summary)
    assert table is not None
    row = dict(zip([c.name for c in table.columns], table.rows[0].values, strict=True))
    assert row["ROC-AUC, published"] == MeanStd(0.9, 0.02) and row["ROC-AUC, unseen sites, published"] == 0.62
    ours = row["ROC-AUC, unseen sites"]
    assert isinstance(ours, MeanStd) and ours.mean == unseen.ours and np.isnan(ours.std)
    judged = agreement_table(summary)
    assert judged is not None and [r.values[1] for r in judged.rows] == ["held-out rows", "sites never trained on"]
    assert judged.rows[1].values[3] == IntervalBounds(unseen.derived.low, unseen.derived.high)


def test_a_smoke_version_says_its_claim_and_compares_nothing(tmp_path: Path) -> None:
    made = made_with({"claim": CLAIM, "published": {"a": {"accuracy": 0.9}}}, scale=["2 folds instead of 5"])
    summary = collect_summary(make_study(tmp_path, made))
    assert describe_claim(summary, NO_ANSWERS)[1:] == ["A smoke version is not compared with published figures."]
    assert compare_figures(summary) == []
    without = made_with({"published": {"a": {"accuracy": 0.9}}})
    assert describe_claim(collect_summary(make_study(tmp_path / "none", without)), NO_ANSWERS) == []
