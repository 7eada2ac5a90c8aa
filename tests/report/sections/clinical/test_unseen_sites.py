"""Unseen sites on the page: each site's value, pairs and the spread, from the stored logits by plain lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_clinical import BIRTHS
from made_reports import WHOLE
from made_study import Made, make_study
from scipy.special import softmax

from phoropter.report.render.table import IntervalBounds
from phoropter.report.sections.clinical.unseen_sites import unseen_sites_section
from phoropter.report.summary.clinical.unseen_sites import answer_unseen_sites, measure_unseen_sites
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.clinical.site_spread import estimate_site_spread
from phoropter.results.metrics.registry import METRICS
from phoropter.results.positive_class import open_results
from phoropter.results.store import Store


def section_of(folder: Path, made: Made) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """Table → its rows, by column; and the paragraphs."""
    make_study(folder, made)
    store = open_results(folder)
    nothing: Any = None
    section = unseen_sites_section(ReportInput(store, collect_summary(store), nothing))
    assert section is not None
    tables = [b for b in [*section.iter_blocks(), *section.file_tables] if hasattr(b, "columns")]
    rows = {t.name: [dict(zip([c.name for c in t.columns], r.values, strict=True)) for r in t.rows] for t in tables}
    return rows, " ".join(section.paragraphs)


def read_external(folder: Path, candidate: str) -> dict[str, Any]:
    """The mean probabilities of all models of a candidate on the rows of the external part."""
    parts = []
    for run in Store(folder).runs():
        if run.candidate_name == candidate:
            with np.load(run.folder / "external.npz") as file:
                parts.append({name: file[name] for name in file.files})
    p = np.mean([softmax(part["logits"].astype(float), axis=1) for part in parts], axis=0)
    return {**parts[0], "right": p.argmax(axis=1) == parts[0]["label"]}


def test_each_site_of_the_external_test(tmp_path: Path) -> None:
    made = replace(
        WHOLE, seeds=(0,), features=0, pictures=0, validation=0, branches=False, screening=(), taught={}, audit_pictures=()
    )
    tables, said = section_of(tmp_path, made)
    first = tables["unseen-sites-of-all"][0]["Candidate"]
    answers = read_external(tmp_path, first)
    assert [row["Site"] for row in tables["unseen-sites"]] == ["north", "south"]
    for row in tables["unseen-sites"]:
        here = answers["site"] == row["Site"]
        assert row["Accuracy"] == pytest.approx(answers["right"][here].mean()) and row["Rows"] == here.sum()
        bounds = row["95\u00a0%\u00a0interval"]
        assert isinstance(bounds, IntervalBounds) and bounds.low < row["Accuracy"] <= bounds.high
    assert "From one unseen site to another" in said and "new site" not in said  # two sites have no spread
    for pair in tables["unseen-site-pairs"]:
        a, b = (read_external(tmp_path, pair[side])["right"] for side in ("Candidate", "Against"))
        assert pair["Difference in accuracy"] == pytest.approx(a.mean() - b.mean())
    assert len(tables["unseen-site-pairs"]) == 3


def test_sites_left_out_one_by_one_have_a_spread_and_a_prediction(tmp_path: Path) -> None:
    made = replace(BIRTHS, sites=tuple("abcde"), rows=600, metrics=("accuracy",), split="leave-one-site-out")
    tables, said = section_of(tmp_path, made)
    store = open_results(tmp_path)
    summary = collect_summary(store)
    found = answer_unseen_sites(store, summary, summary.candidates[0])
    assert found is not None and len(found.ids) == 600  # two rounds, averaged
    runs = [r for r in store.runs() if r.candidate_name == summary.candidates[0].name]
    sums: dict[str, Any] = {}
    for part in (p for r in runs if (p := r.load_predictions()) is not None):
        for name, label, site, z in zip(
            part.ids, part.labels, part.sites if part.sites is not None else (), part.logits, strict=True
        ):
            sums.setdefault(name, (site, label, []))[2].append(softmax(z.astype(float)))
    rows = {row["Hospital" if "Hospital" in row else "Site"]: row for row in tables["unseen-sites"]}
    for site in "abcde":
        right = [np.mean(ps, axis=0).argmax() == label for s, label, ps in sums.values() if s == site]
        assert rows[site]["Accuracy"] == pytest.approx(np.mean(right))
    measured = measure_unseen_sites(summary, found)
    assert measured is not None
    spread = estimate_site_spread(METRICS["accuracy"], measured.intervals)
    assert spread is not None and rows["A new site"]["95\u00a0%\u00a0interval"] == IntervalBounds(*spread.new_site[1:])
    assert rows["Mean over sites"]["Accuracy"] == pytest.approx(spread.mean.value)
    assert "At a new site" in said and "95 % prediction interval" in said


def test_sites_that_are_trained_on_are_no_unseen_ones(tmp_path: Path) -> None:
    make_study(tmp_path, BIRTHS)
    store = open_results(tmp_path)
    nothing: Any = None
    assert unseen_sites_section(ReportInput(store, collect_summary(store), nothing)) is None
