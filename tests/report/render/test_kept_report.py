"""A report is told again from what was kept, as long as neither the results nor its files have changed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from phoropter.report.render import kept_report
from phoropter.report.render.kept_report import WrittenReport, keep_report, read_kept_report
from phoropter.report.render.table import Column, IntervalBounds, MeanStd, Table, TableRow

BOARD = Table(
    "leaderboard",
    "Candidates by accuracy",
    (Column("Candidate"), Column("Accuracy", "percent", digits=2), Column("Interval", "percent"), Column("Training", "duration")),
    (
        TableRow(("a | b", MeanStd(0.1 + 0.2, float("nan")), IntervalBounds(0.5, float("inf")), 1 / 3), "leader"),
        TableRow(("baseline", None, None, float("nan")), "baseline"),
        TableRow(("third", MeanStd(0.25, 0.5), IntervalBounds(0.0, 1.0), 7)),
    ),
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A results folder with one run and a page, of which is kept what was said."""
    for name in (
        "study.json",
        "runs/a/record.json",
        "report/index.html",
        "report/tables/leaderboard.csv",
        "work/b/now.json",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    keep_report(tmp_path, WrittenReport(tmp_path / "report" / "index.html", BOARD, ("First.", "Second.")))
    return tmp_path


def test_what_was_said_is_told_again_to_the_last_bit(results: Path) -> None:
    told = read_kept_report(results)
    assert told is not None and told.page == results / "report" / "index.html" and told.conclusion == ("First.", "Second.")
    assert repr(dataclasses.replace(told.leaderboard, rows=())) == repr(dataclasses.replace(BOARD, rows=()))
    assert list(map(repr, told.leaderboard.rows)) == list(map(repr, BOARD.rows))


def _touch(path: Path) -> None:
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


CHANGES: dict[str, Callable[[Path], object]] = {
    "a run changed": lambda folder: _touch(folder / "runs" / "a" / "record.json"),
    "a run is new": lambda folder: (folder / "runs" / "b.json").write_text(""),
    "study.json is larger": lambda folder: (folder / "study.json").write_text("other text"),
    "the page is gone": lambda folder: (folder / "report" / "index.html").unlink(),
    "a table is gone": lambda folder: (folder / "report" / "tables" / "leaderboard.csv").unlink(),
    "the page was edited": lambda folder: _touch(folder / "report" / "index.html"),
    "what was kept is damaged": lambda folder: (folder / "report.json").write_text(
        (folder / "report.json").read_text().replace("First.", "Third.")
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_is_told_of_what_changed(results: Path, change: str) -> None:
    CHANGES[change](results)
    assert read_kept_report(results) is None


def test_work_in_progress_does_not_count(results: Path) -> None:
    _touch(results / "work" / "b" / "now.json")
    assert read_kept_report(results) is not None


def test_nothing_is_told_by_other_versions(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_report.metadata, "version", lambda name: "0.0")
    assert read_kept_report(results) is None
