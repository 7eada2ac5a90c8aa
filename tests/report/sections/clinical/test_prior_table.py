"""The table of corrected priors, from the stored logits by Bayes' rule and scikit-learn's logistic regression."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_clinical import BIRTHS
from made_study import Made, make_study
from sklearn.linear_model import LogisticRegression

from phoropter.report.render.table import IntervalBounds, Table
from phoropter.report.sections.clinical.prior_table import prior_table
from phoropter.report.summary.clinical.collect import collect_clinical_results
from phoropter.report.summary.clinical.prior_shift import shift_candidate_priors
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.positive_class import open_results
from phoropter.results.store import Run

# labels of rows at random, a third of them of the first class: the recipe shows both equally often
WEIGHTED = replace(
    BIRTHS, accuracies={"net": 0.8}, one_class=False, seeds=(0,), recipe={"loss": {"class_weights": {"acidosis": 3}}}
)


def table_of(folder: Path, made: Made) -> Table | None:
    make_study(folder, made)
    store = open_results(folder)
    summary = collect_summary(store)
    nothing: Any = None
    return prior_table(ReportInput(store, summary, nothing, clinical=collect_clinical_results(store, summary)))


def test_probabilities_are_corrected_for_what_the_loss_saw(tmp_path: Path) -> None:
    table = table_of(tmp_path, WEIGHTED)
    assert table is not None
    row = dict(zip([c.name for c in table.columns], table.rows[0].values, strict=True))
    study = json.loads((tmp_path / "study.json").read_text())
    trained, data, truth, before, after = [], [], [], [], []
    for item in study["plan"]:
        with np.load(tmp_path / "runs" / item["key"] / "predictions.npz") as file:
            ill, z = file["label"] == 0, file["logits"].astype(float)
        n_ill, n_well = study["dataset"]["counts"][0] - ill.sum(), study["dataset"]["counts"][1] - (~ill).sum()
        p = 1 / (1 + np.exp(z[:, 1] - z[:, 0]))
        odds = p / (1 - p) / 3  # three times the weight: three times the odds
        trained.append(3 * n_ill / (3 * n_ill + n_well))
        data.append(n_ill / (n_ill + n_well))
        truth.append(ill)
        before.append(p)
        after.append(odds / (1 + odds))
    assert row["Trained on"] == pytest.approx(np.mean(trained)) and row["Training rows"] == pytest.approx(np.mean(data))
    y, p = np.concatenate(truth), np.concatenate(after)
    assert row["Observed"] == pytest.approx(y.mean()) and row["Corrected"] == pytest.approx(p.mean(), rel=1e-5)
    assert row["Predicted"] == pytest.approx(np.concatenate(before).mean(), rel=1e-5)
    line = LogisticRegression(C=np.inf, tol=1e-10, max_iter=2000).fit(np.log(p / (1 - p))[:, None], y)
    assert (row["Slope"], row["Intercept"]) == pytest.approx((line.coef_[0, 0], line.intercept_[0]), abs=1e-4)
    bounds = row["95\u00a0%\u00a0interval of slope"]
    assert isinstance(bounds, IntervalBounds) and bounds.low < line.coef_[0, 0] < bounds.high
    share = np.mean(trained)
    assert row["Shift to prevalence"] == pytest.approx(np.log(0.02 / 0.98) - np.log(share / (1 - share)))


def test_a_recipe_that_takes_classes_as_they_are_needs_no_correction(tmp_path: Path) -> None:
    assert table_of(tmp_path, replace(WEIGHTED, recipe={})) is None


@pytest.mark.parametrize(("recipe", "read"), [({}, False), (WEIGHTED.recipe, True)])
def test_predictions_are_read_only_where_a_recipe_draws_or_weights_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: dict[str, Any], read: bool
) -> None:
    make_study(tmp_path, replace(WEIGHTED, recipe=recipe))
    store = open_results(tmp_path)
    summary = collect_summary(store)
    parts: list[str] = []
    load = Run.load_predictions

    def count_reads(self: Run, part: str = "predictions") -> Any:
        parts.append(part)
        return load(self, part)

    monkeypatch.setattr(Run, "load_predictions", count_reads)
    found = shift_candidate_priors(store, summary, summary.candidates[0], 0)
    assert (found is not None) == read and bool(parts) == read
