"""Published figures stand beside those of the study: all metrics, by each candidate, recomputed from the predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import Made, make_study
from sklearn import metrics as sk

from phoropter.report.render.table import MeanStd
from phoropter.report.sections.candidates.published import published_table
from phoropter.report.sections.published_figures import read_published
from phoropter.report.summary.collect import collect_summary

MADE = Made(
    accuracies={"a": 0.9, "b": 0.75},
    classes=("x", "y", "z"),
    rows=180,
    folds=3,
    seeds=(0,),
    pictures=0,
    epochs=1,
    published={"b": {"macro_precision": 81.5, "accuracy": 0.8}, "not run": {"accuracy": 91}, "a": {"a metric of their own": 3.5}},
)


def test_every_published_figure_has_ours_beside_it(tmp_path: Path) -> None:
    store = make_study(tmp_path, MADE)
    summary = collect_summary(store)
    table = published_table(summary)
    assert table is not None and summary.metrics[0] == "accuracy", "what is published does not decide who is first"
    heads = [c.name for c in table.columns]
    metrics = ["Accuracy", "Macro precision", "a metric of their own"]
    assert heads == ["Candidate", *(w for m in metrics for w in (m, f"{m}, published"))]
    rows = {str(row.values[0]): dict(zip(heads, row.values, strict=True)) for row in table.rows}
    assert list(rows) == ["a", "b", "not run"]
    answers = [p for run in store.runs() if run.candidate_name == "b" and (p := run.load_predictions()) is not None]
    labels = np.concatenate([p.labels for p in answers])
    right = np.concatenate([p.logits.argmax(1) for p in answers]) == labels
    precision = np.mean([sk.precision_score(p.labels, p.logits.argmax(1), average="macro", zero_division=0) for p in answers])
    for name, ours, theirs in (("Accuracy", right.mean(), 0.8), ("Macro precision", precision, 0.815)):
        shown = rows["b"][name]
        assert isinstance(shown, MeanStd) and shown.mean == pytest.approx(float(ours))
        assert rows["b"][f"{name}, published"] == pytest.approx(theirs)
    assert rows["not run"]["Accuracy"] is None and rows["not run"]["Accuracy, published"] == pytest.approx(0.91)
    assert rows["a"]["a metric of their own"] is None and rows["a"]["a metric of their own, published"] == 3.5


def test_a_smoke_version_and_a_study_without_a_source_publish_nothing(tmp_path: Path) -> None:
    smoke = collect_summary(make_study(tmp_path / "smoke", replace(MADE, scale=["2 folds instead of 5"])))
    assert read_published(smoke) == {} and published_table(smoke) is None
    assert published_table(collect_summary(make_study(tmp_path / "none", replace(MADE, published={})))) is None
