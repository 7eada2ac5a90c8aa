"""Under shift on the page: values, losses, sentence and figure from stored answers by plain lines; and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_study import Made, make_study
from sklearn.metrics import roc_auc_score

from phoropter.core.seeds import named_generator
from phoropter.report.figures.shift_curves import ShiftPanel, shift_figure
from phoropter.report.render.metric_format import MetricFormat
from phoropter.report.render.section import FoldedBlocks, Section
from phoropter.report.render.table import IntervalBounds, Table
from phoropter.report.sections.predictions.under_shift import _describe_loss, shift_section
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.report_input import ReportInput
from phoropter.report.summary.shift.shift_results import collect_shift_results
from phoropter.results.intervals.interval_rules import ConfidenceInterval
from phoropter.results.metrics.registry import METRICS
from phoropter.results.positive_class import open_results
from phoropter.results.shift.answer_file import load_shift_answers, write_shift_answers
from phoropter.results.shift.corruption_kinds import Corruption
from phoropter.results.shift.curves import ShiftLoss
from phoropter.results.store import Run, Store

ASKED = (Corruption("jpeg", 10.0), Corruption("jpeg", 30.0), Corruption("brightness", 0.5), Corruption("brightness", 1.5))
HARM = {10.0: 6.0, 30.0: 2.0, 0.5: 3.0, 1.5: 1.0}
MADE = Made({"a": 0.9, "b": 0.85, "c": 0.7}, rows=300, groups=50, seeds=(0,), pictures=0)
Choose = Callable[[Run, Corruption], bool]


def make_shifted(folder: Path, made: Made = MADE, has_answer: Choose = lambda run, corruption: True) -> Store:
    """A made study with answers that are noisier the more harm a level does."""
    make_study(folder, made)
    store = Store(folder)
    store.write_study({**store.study, "shift": [asdict(c) for c in ASKED]})
    for run in store.runs():
        predictions = run.load_predictions()
        assert predictions is not None
        for corruption in ASKED:
            if has_answer(run, corruption):
                noise = named_generator(run.key, corruption.key).normal(0, HARM[corruption.level], predictions.logits.shape)
                answers = {corruption.key: (predictions.logits + noise).astype(np.float32)}
                write_shift_answers(folder, run.key, predictions.logits, answers)
    return store


def section_of(folder: Path) -> Section | None:
    store = open_results(folder)
    nothing: Any = None
    return shift_section(ReportInput(store, collect_summary(store), nothing))


def tables_of(section: Section) -> dict[str, list[dict[str, Any]]]:
    tables = [t for b in section.blocks if isinstance(b, FoldedBlocks) for t in b.blocks if isinstance(t, Table)]
    return {t.name: [dict(zip([c.name for c in t.columns], row.values, strict=True)) for row in t.rows] for t in tables}


def stored_answers(store: Store, name: str, key: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """labels, clean logits and those at a corruption, of all runs of a candidate."""
    parts = []
    for run in store.runs():
        if run.candidate_name == name:
            predictions = run.load_predictions()
            assert predictions is not None
            given = load_shift_answers(store.folder, run.key, predictions.logits)
            parts.append((predictions.labels, predictions.logits, given[key]))
    labels, clean, shifted = (np.concatenate(column) for column in zip(*parts, strict=True))
    return labels, clean, shifted


def test_values_and_losses_are_those_of_the_stored_answers(tmp_path: Path) -> None:
    store = make_shifted(tmp_path)
    section = section_of(tmp_path)
    assert section is not None
    tables = tables_of(section)
    assert list(tables) == ["under-jpeg", "under-brightness"]
    seen = 0
    for name, kind in (("under-jpeg", "jpeg"), ("under-brightness", "brightness")):
        for row in tables[name]:
            level = row["Level"]
            if level == "as is":
                labels, clean, _ = stored_answers(store, row["Candidate"], ASKED[0].key)
                assert row["Accuracy"] == pytest.approx((clean.argmax(1) == labels).mean()) and row["Loss"] is None
                continue
            corruption = next(c for c in ASKED if (c.kind, f"{c.level:g}") == (kind, level))
            labels, clean, shifted = stored_answers(store, row["Candidate"], corruption.key)
            before, after = (clean.argmax(1) == labels).mean(), (shifted.argmax(1) == labels).mean()
            assert row["Accuracy"] == pytest.approx(after) and row["Loss"] == pytest.approx(before - after)
            bounds = row["95\u00a0% interval of the loss"]
            assert isinstance(bounds, IntervalBounds) and bounds.low < row["Loss"] < bounds.high
            seen += 1
    assert seen == 3 * 4


def test_the_sentence_names_the_level_where_the_first_loses_most(tmp_path: Path) -> None:
    store = make_shifted(tmp_path)
    section = section_of(tmp_path)
    assert section is not None
    lost = {}
    for name in ("a", "b", "c"):
        labels, clean, shifted = stored_answers(store, name, ASKED[0].key)
        lost[name] = 100 * ((clean.argmax(1) == labels).mean() - (shifted.argmax(1) == labels).mean())
    said = section.paragraphs[0]
    assert said.startswith(f"At JPEG quality 10, a loses {lost['a']:.1f} points in accuracy (95 % interval ")
    assert f"b loses {lost['b']:.1f} points (" in said and f"c loses {lost['c']:.1f} points (" in said


def test_a_bound_that_rounds_to_nothing_has_no_sign() -> None:
    value = ConfidenceInterval(0.8, 0.7, 0.9, 0.95, "", 40)
    said = _describe_loss("a", ShiftLoss(value, -0.008, -0.026, 0.0002), MetricFormat.from_metric(METRICS["accuracy"]), False)
    assert said == "a gains 0.8 points (0.0 to 2.6)"


def test_of_two_classes_the_positive_one_comes_last_whichever_was_stored_first(tmp_path: Path) -> None:
    made = replace(MADE, classes=("ill", "well"), positive="ill", metrics=("roc_auc",), accuracies={"a": 0.8}, folds=2)
    store = make_shifted(tmp_path, made)
    reordered = open_results(tmp_path)
    found = collect_shift_results(reordered, collect_summary(reordered))
    assert found is not None
    loss = found.candidates[0].losses[ASKED[1].key]
    values = []
    for run in store.runs():
        predictions = run.load_predictions()
        assert predictions is not None
        logits = load_shift_answers(tmp_path, run.key, predictions.logits)[ASKED[1].key]
        values.append(roc_auc_score(predictions.labels == 0, logits[:, 0] - logits[:, 1]))
    assert loss.value.estimate == pytest.approx(np.mean(values))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    make_shifted(tmp_path, has_answer=lambda run, c: not (run.candidate_name == "b" and c.kind == "jpeg"))
    section = section_of(tmp_path)
    assert section is not None
    assert "Not evaluated at every level: b (5 runs)." in section.paragraphs
    rows = tables_of(section)["under-jpeg"]
    assert [r["Candidate"] for r in rows].count("b") == 1  # as it is
    assert [r["Candidate"] for r in tables_of(section)["under-brightness"]].count("b") == 3


def test_without_answers_the_section_says_so_and_without_the_question_there_is_none(tmp_path: Path) -> None:
    make_shifted(tmp_path / "none", has_answer=lambda run, c: False)
    section = section_of(tmp_path / "none")
    assert section is not None and not section.blocks
    assert "Not evaluated at every level: a (5 runs), b (5 runs) and c (5 runs)." in section.paragraphs
    make_study(tmp_path / "plain", MADE)
    assert section_of(tmp_path / "plain") is None


def test_imported_predictions_are_named_and_not_missing(tmp_path: Path) -> None:
    make_shifted(tmp_path, has_answer=lambda run, c: run.candidate_name != "c")
    store = open_results(tmp_path)
    summary = collect_summary(store)
    imported = next(c for c in summary.candidates if c.name == "c")
    for line in imported.runs:
        line.record["candidate"]["table"] = {"predictions": "theirs.csv"}
    nothing: Any = None
    section = shift_section(ReportInput(store, summary, nothing))
    assert section is not None and any(p.startswith("c cannot be evaluated: imported") for p in section.paragraphs)
    assert not any("Not evaluated" in p for p in section.paragraphs)


def test_the_figure_has_a_panel_for_each_kind_and_a_narrow_form() -> None:
    values = np.array([[0.9, 0.88, 0.92], [np.nan, np.nan, np.nan], [0.7, 0.65, 0.74]])
    panels = [ShiftPanel(f"kind {i}", "level", ["as is", "1", "2"], {"a": values, "b": values - 0.1}) for i in range(3)]
    figure = shift_figure(panels, MetricFormat.from_metric(METRICS["accuracy"]), left_out=2)
    assert figure.wide and figure.inline_svg.count("at-narrow") == 1 and figure.svg.startswith(b"<?xml")
    assert "2 more candidates are in the tables" in figure.caption
    assert "kind 2, a: as is 90.0 %, 1 –, 2 70.0 %" in figure.alt_text
    assert all(figure.inline_svg.count(f"kind {i}") >= 2 for i in range(3))
