"""The CSV of all wrong answers: each once, what every candidate answered beside it, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import Made, make_study

from phoropter.core.storage.csv_cells import read_csv_rows
from phoropter.report.sections.predictions.mistakes_file import write_mistakes_file
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.compare import compare_candidates
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Store

MADE = Made(
    accuracies={"=cmd|' /C calc'!A0": 0.85, "b": 0.7},
    classes=("@calm", "-1+1", "fun"),
    rows=90,
    groups=9,
    sites=("north", "south"),
    folds=3,
    seeds=(0, 1),
    pictures=0,
    epochs=1,
)


def write_file(store: Store, path: Path) -> list[dict[str, str]]:
    summary = collect_summary(store)
    write_mistakes_file(ReportInput(store, summary, compare_candidates(store, summary)), path)
    return read_csv_rows(path)


def test_every_wrong_answer_is_there_once_with_what_all_candidates_answered(tmp_path: Path) -> None:
    store = make_study(tmp_path / "s", MADE)
    rows = {(r["seed"], r["repeat"], r["fold"], r["id"]): r for r in write_file(store, tmp_path / "mistakes.csv")}
    expected: set[tuple[str, str, str, str]] = set()
    for run in store.runs():
        said, place, name = run.load_predictions(), run.record["split"], run.candidate_name
        assert said is not None and said.groups is not None and said.sites is not None
        powers = np.exp(said.logits.astype(np.float64) - said.logits.max(1, keepdims=True))
        shares = powers / powers.sum(1, keepdims=True)
        for i, sample in enumerate(said.ids):
            key = (str(run.record["seed"]), str(place["repeat"] + 1), str(place["fold"] + 1), str(sample))
            wrong = said.logits[i].argmax() != said.labels[i]
            expected |= {key} if wrong else set()
            if key in rows:
                row = rows[key]
                assert (row["true"], row["group"], row["site"]) == (MADE.classes[said.labels[i]], said.groups[i], said.sites[i])
                assert row[f"{name}: predicted"] == MADE.classes[int(said.logits[i].argmax())]
                assert float(row[f"{name}: probability"]) == pytest.approx(shares[i].max(), rel=1e-5)
            else:
                assert not wrong
    assert set(rows) == expected and len(rows) > 20


def test_no_cell_is_a_formula(tmp_path: Path) -> None:
    write_file(make_study(tmp_path / "s", MADE), tmp_path / "mistakes.csv")
    with (tmp_path / "mistakes.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'@calm" in cells and any(cell.startswith("'=cmd") for cell in cells)
    assert not [c for c in cells if c[:1] in tuple("=+-@\t\r")]


def test_a_candidate_without_a_run_on_a_split_has_empty_cells(tmp_path: Path) -> None:
    rows = write_file(make_study(tmp_path / "s", replace(MADE, accuracies={"a": 0.6, "b": 0.6}, missing=1)), tmp_path / "m.csv")
    last = [r for r in rows if (r["seed"], r["fold"]) == ("1", "3")]
    assert last and all(r["b: predicted"] == r["b: probability"] == "" and r["a: predicted"] for r in last)
    assert all(r["b: predicted"] for r in rows if r not in last)


def test_groups_and_sites_stay_empty_where_there_are_none(tmp_path: Path) -> None:
    rows = write_file(make_study(tmp_path / "s", replace(MADE, groups=0, sites=())), tmp_path / "m.csv")
    assert rows and all(r["group"] == r["site"] == "" for r in rows)
