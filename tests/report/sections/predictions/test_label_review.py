"""The section of likely wrong labels: a planted one comes first, with a CSV to correct; of guessing nothing is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import Made, make_study
from scipy.special import softmax

from phoropter.core.storage.csv_cells import read_csv_rows
from phoropter.report.page import write_report
from phoropter.report.sections.predictions.label_review import label_review_section
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.stats.confident_learning import average_by_row, find_suspected_labels
from phoropter.results.store import Store

MADE = Made(accuracies={"good": 0.75, "fair": 0.6}, classes=("x", "y", "z"), rows=240, groups=12, folds=3, seeds=(0, 1), epochs=1)


def input_of(store: Store) -> ReportInput:
    summary = collect_summary(store)
    return ReportInput(store, summary, compare_candidates(store, summary))


def test_the_table_and_the_file_hold_the_suspected_rows_in_order(tmp_path: Path) -> None:
    store = make_study(tmp_path / "s", MADE)
    inputs = input_of(store)
    first = [p for r in store.runs() if r.candidate_name == inputs.summary.candidates[0].name and (p := r.load_predictions())]
    rows = average_by_row(first)
    found = find_suspected_labels(rows.labels, rows.probabilities)
    section = label_review_section(inputs)
    assert section is not None and f"{len(found.rows)} rows of 240" in section.paragraphs[0] and len(found.rows) > 3
    page = write_report(tmp_path / "s")
    assert 'id="label-review"' in page.read_text(encoding="utf-8")
    written = read_csv_rows(page.parent / "tables" / "label-review.csv")
    assert [row["id"] for row in written] == rows.ids[found.rows].tolist()
    assert [row["suggested"] for row in written] == [MADE.classes[k] for k in found.suggested]
    assert all(row["corrected"] == "" and row["label"] != row["suggested"] for row in written)
    for row in written:  # numbers again, from the files of the runs
        shares = [softmax(p.logits[p.ids == row["id"]].astype(np.float64), axis=1)[0] for p in first if row["id"] in p.ids]
        mean = dict(zip(MADE.classes, np.mean(shares, axis=0), strict=True))
        assert len(shares) == 2 == int(row["predictions"])
        assert float(row["probability of the label"]) == pytest.approx(mean[row["label"]], rel=1e-4)
        assert float(row["probability of the suggested"]) == pytest.approx(mean[row["suggested"]], rel=1e-4)
    assert not (page.parent / "tables" / "label-review-first.csv").read_text(encoding="utf-8").count("corrected")


def test_a_guesser_suspects_nobody(tmp_path: Path) -> None:
    made = replace(MADE, accuracies={"poor": 1 / 3, "worse": 0.3}, rows=60)
    assert label_review_section(input_of(make_study(tmp_path / "s", made))) is None


def test_where_every_label_is_confirmed_there_is_no_section(tmp_path: Path) -> None:
    store = make_study(tmp_path / "s", replace(MADE, accuracies={"sure": 1 - 1e-9}))
    predictions = next(store.runs()).load_predictions()
    assert predictions is not None and np.mean(predictions.logits.argmax(1) == predictions.labels) > 0.99
    assert label_review_section(input_of(store)) is None
