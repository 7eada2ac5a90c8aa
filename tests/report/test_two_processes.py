"""A report read and written by two processes: the same bytes as by one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from made_study import Made, make_study

from phoropter.core.processes import side_by_side
from phoropter.report import page
from phoropter.report.page import create_report, read_report_input
from phoropter.report.summary import collect
from phoropter.results.store import Store

MADE = Made(accuracies={"a": 0.9, "b": 0.7, "c": 0.8}, classes=("x", "y"), rows=80, folds=3, seeds=(0, 1), groups=12)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has two processes share what they may share; holds how many tasks each call had, all of which must come back."""
    if sys.platform != "linux":
        pytest.skip("processes are forked on Linux alone")
    found: list[int] = []
    call = side_by_side._call_in_two_processes

    def note_calls(tasks: Any) -> dict[int, Any]:
        results = call(tasks)
        assert len(results) == len(tasks)
        found.append(len(tasks))
        return results

    monkeypatch.setattr(side_by_side, "_call_in_two_processes", note_calls)
    monkeypatch.setattr(collect, "MIN_SHARED_ROWS", 1)
    for module in (side_by_side, page):
        monkeypatch.setattr(module, "can_fork", lambda: True)
    return found


def read_files(at: Path) -> dict[Path, bytes]:
    return {p.relative_to(at): p.read_bytes() for p in at.rglob("*.*")}


def test_the_report_is_the_same_bytes_and_all_that_is_shared_can_be_sent(
    tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_study(tmp_path / "study", MADE)
    create_report(read_report_input(store.folder), tmp_path / "two")
    assert calls[0] == 3 and len(calls) == 2  # candidates, then sections
    for module in (side_by_side, page):
        monkeypatch.setattr(module, "can_fork", lambda: False)
    create_report(read_report_input(store.folder), tmp_path / "one")
    one, two = read_files(tmp_path / "one"), read_files(tmp_path / "two")
    assert len(calls) == 2 and one == two and Path("tables/mistakes.csv") in one and len(one) > 20


def test_candidates_are_read_by_one_process_where_it_says_how_far_it_is_or_splits_differ(
    tmp_path: Path, calls: list[int]
) -> None:
    store = make_study(tmp_path / "study", MADE)
    said: list[tuple[int, int]] = []
    collect.collect_summary(store, lambda done, total: said.append((done, total)))
    assert not calls and said[-1] == (18, 18)
    of_candidate: dict[str, list[str]] = {}
    for item in store.study["plan"]:
        of_candidate.setdefault(str(item["candidate"]), []).append(str(item["key"]))
    for number, keys in enumerate(of_candidate.values()):  # then no candidate has all splits, and numbers all people first
        shutil.rmtree(store.run(keys[number]).folder)
    assert [len(c.runs) for c in collect.collect_summary(Store(store.folder)).candidates] == [5, 5, 5] and not calls
