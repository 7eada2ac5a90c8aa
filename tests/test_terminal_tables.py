"""Tables in a terminal: names wrap, numbers never do, what has no room is named; in a pipe they are plain and whole."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from phoropter.console import PIPED_WIDTH, make_console, make_text_table, print_results
from phoropter.report.render.kept_report import WrittenReport
from phoropter.report.render.table import Column, IntervalBounds, MeanStd, Table, TableRow

NAMES = (
    "swin_tiny_patch4_window7_224 · augment slit-cutmix · 5 seeds",
    "resnet_50 [bold]fused[/bold]",
    "majority-class baseline",
)
BOARD = Table(
    "leaderboard",
    "Candidates",
    (
        Column("Candidate"),
        Column("Accuracy", "percent"),
        Column("95\u00a0%\u00a0interval", "percent"),
        Column("Macro F1", "percent"),
        Column("Log-loss", "number", "", 3),
        Column("Parameters", "si"),
        Column("Training", "duration"),
    ),
    tuple(
        TableRow(
            (name, MeanStd(0.9123, 0.021), IntervalBounds(0.887, 0.9341), MeanStd(0.9, 0.03), 0.123, 25_557_032, 3725.0), role
        )
        for name, role in zip(NAMES, ("leader", "plain", "baseline"), strict=True)
    ),
)
NUMBERS = ("91.2 ± 2.1", "88.7 to 93.4", "90.0 ± 3.0", "0.123", "25.6 M", "1 h 2 min")
REPORT = WrittenReport(
    Path("runs/x/report/index.html"), BOARD, ("A sentence of the conclusion, long enough to need two lines. " * 2,)
)


def shown_at(width: int, terminal: bool) -> str:
    to = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system="standard" if terminal else None)
    print_results(to, REPORT)
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_names_wrap_and_numbers_do_not(width: int) -> None:
    text = shown_at(width, terminal=False)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    there = [n for n in NUMBERS if n in text]
    assert there == list(NUMBERS[: len(there)]) and len(there) >= 1
    assert all(text.count(n) == len(NAMES) for n in there), "each row has each number in one line"
    hidden = [n for n, number in zip((c.name for c in BOARD.columns[1:]), NUMBERS, strict=True) if number not in there]
    assert ("No room in this terminal" in text) == bool(hidden)
    assert all(name.replace("\u00a0", " ") in " ".join(text.split()) for name in hidden)
    assert "…" not in text and "\\" not in text


def test_all_columns_are_there_at_120_and_six_of_them_at_80() -> None:
    assert all(n in shown_at(120, terminal=False) for n in NUMBERS)
    assert [n for n in NUMBERS if n in shown_at(80, terminal=False)] == list(NUMBERS[:5])


def test_a_pipe_gets_plain_lines_and_a_terminal_bold_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[1m" in shown_at(100, terminal=True)
    piped = shown_at(PIPED_WIDTH, terminal=False)
    assert "\x1b" not in piped
    for name in NAMES:
        (line,) = [line for line in piped.splitlines() if line.startswith(name)]
        assert [n for n in NUMBERS if n in line] == list(NUMBERS)
    assert len([line for line in piped.splitlines() if line.startswith("A sentence")]) == 1
    assert make_console().width == PIPED_WIDTH, "the output of the tests is no terminal"


def test_columns_of_numbers_keep_their_width_beside_long_names() -> None:
    table = make_text_table(("name", "how"), ("runs",))
    table.add_row("x" * 90, "a description of several words that wraps", "1,234,567")
    to = Console(file=io.StringIO(), width=50, force_terminal=False)
    to.print(table)
    assert isinstance(to.file, io.StringIO)
    assert "1,234,567" in to.file.getvalue() and to.file.getvalue().count("x") == 90
