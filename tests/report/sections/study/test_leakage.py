"""The section on leaks: what it says was looked for, and its counts, found again in the predictions files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import Made, make_study

from phoropter.data.leakage.audit import audit_splits
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.splits.protocol import Split
from phoropter.report.render.table import Table
from phoropter.report.sections.study.leakage import leakage_section
from phoropter.report.summary import compare
from phoropter.report.summary.collect import collect_summary
from phoropter.report.summary.report_input import ReportInput
from phoropter.results.store import Store

TWICE = 7  # pictures that are another's, byte for byte
MADE = Made(
    {"one": 0.8, "other": 0.7}, rows=120, groups=30, sites=("north", "south"), overlap=True, folds=4, seeds=(0,), pictures=0
)


def section(store: Store) -> tuple[tuple[str, ...], dict[str, tuple]]:
    summary = collect_summary(store)
    found = leakage_section(ReportInput(store, summary, compare.compare_candidates(store, summary)))
    tables = [b for b in found.blocks if isinstance(b, Table)]
    return found.paragraphs, {str(row.values[0]): row.values for table in tables for row in table.rows}


def test_the_section_names_every_check(tmp_path: Path) -> None:
    text, rows = section(make_study(tmp_path, replace(MADE, audit=[])))
    for words in (
        "rows, groups and sites",
        "overlap in time",
        "near-duplicate",
        "features of a network",
        "fitted beforehand",
        "teachers",
    ):
        assert words in text[0]
    assert text[0].endswith("Nothing was found.") and not rows


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[dict[str, np.ndarray]]]:
    """A study whose groups straddle its folds, audited; and the tested rows of each fold, read with numpy alone."""
    store = make_study(tmp_path_factory.mktemp("leaks"), MADE)
    read = []
    for item in store.study["plan"]:
        if item["candidate"] == "one":
            with np.load(store.folder / "runs" / item["key"] / "predictions.npz") as file:
                read.append({name: file[name] for name in ("id", "label", "group", "site")})
    ids, labels, groups, sites = (np.concatenate([fold[name] for fold in read]) for name in ("id", "label", "group", "site"))
    images = np.random.default_rng(0).integers(0, 256, (len(ids), 4, 4, 3), dtype=np.uint8)
    images[:TWICE] = images[-TWICE:]  # the first fold's and the last's
    columns = {"ids": ids.tolist(), "groups": groups.tolist(), "sites": sites.tolist()}
    dataset = from_arrays(images, [MADE.classes[k] for k in labels], name="made", **columns)
    member = np.repeat(np.arange(len(read)), [len(fold["id"]) for fold in read])
    rows = np.arange(len(ids))
    splits = [Split(0, 0, k, 4, f"fold {k + 1}", rows[member != k], rows[member == k]) for k in range(4)]
    found = [f.plain() for f in audit_splits(dataset, splits, allow_group_overlap=True)]
    store.write_study({**store.study, "audit": found})
    return store, read


def test_counts_are_recomputed_from_predictions_files(folds: tuple[Store, list[dict[str, np.ndarray]]]) -> None:
    store, read = folds
    _, rows = section(store)
    for kind, column in (("groups", "group"), ("sites", "site")):
        met = []
        for k, fold in enumerate(read):
            trained = {str(name) for j, other in enumerate(read) if j != k for name in other[column]}
            met.append((sum(str(name) in trained for name in fold[column]), len(fold["id"])))
        worst = max(met, key=lambda pair: pair[0] / pair[1])
        assert tuple(rows[kind][2:6]) == (*worst, worst[0] / worst[1], sum(count > 0 for count, _ in met)), kind
    assert rows["exact duplicates"][2] == TWICE and rows["exact duplicates"][5] == 2
