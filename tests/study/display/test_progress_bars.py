"""Bars as a terminal shows them, and lines as a log holds them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console
from rich.progress import Progress

from phoropter.study.display.progress_bars import _make_columns, _ProgressBars, show_progress
from phoropter.study.display.time_left import RunForecast
from phoropter.study.progress import ProgressEvent

FORECAST = ProgressEvent("forecast", note={f"k{n}": RunForecast("net", "trained", 600.0) for n in range(4)})


class Terminal:
    """A terminal of 120 columns whose bars are read as text."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(8), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
        self.console = Console(file=io.StringIO(), force_terminal=True, width=120)
        self.bars = Progress(*columns, console=self.console, auto_refresh=False)
        self.show = _ProgressBars("study", self.bars)

    def read_lines(self) -> list[str]:
        with self.console.capture() as shown:
            self.console.print(self.bars.get_renderable())
        return [" ".join(line.replace("━", "").replace("╸", "").split()) for line in shown.get().splitlines()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    yield Terminal()


def test_a_feature_pass_moves_by_batch_and_counts_towards_the_time_left(terminal: Terminal) -> None:
    terminal.show(FORECAST)
    terminal.show(ProgressEvent("start", "net · 4 heads", 0, 4, keys=("k0", "k1", "k2", "k3")))
    for done in (16, 32):
        terminal.show(ProgressEvent("features", "resnet50", done, 360))
        study, run = terminal.read_lines()
        assert run == f"computing features of resnet50 {done}/360"
        assert study.startswith(("study 0/4 about 40 min", "study 0/4 about 39 min"))


def test_when_the_features_are_there_the_heads_are_named(terminal: Terminal) -> None:
    terminal.show(ProgressEvent("decoding", "", 5, 5))
    assert terminal.read_lines()[1].startswith("preparing 0/?")
    terminal.show(FORECAST)
    terminal.show(ProgressEvent("start", "net · 4 heads", 0, 4, keys=("k0", "k1", "k2", "k3")))
    for done, words in ((300, "computing features of resnet50 300/360"), (360, "net · 4 heads 0/?")):
        terminal.show(ProgressEvent("features", "resnet50", done, 360))
        assert terminal.read_lines()[1] == words


def test_each_process_has_a_named_bar_and_the_study_is_above(terminal: Terminal) -> None:
    terminal.show.time_left.clock = lambda: 0.0
    terminal.show(FORECAST)
    for worker in (1, 2):
        terminal.show(ProgressEvent("start", f"net · fold {worker}", 0, 4, keys=(f"k{worker}",), worker=worker))
    note = {"epoch": 1, "epochs": 5, "step": 1, "steps": 2, "images_per_s": 33.0}
    terminal.show.time_left.clock = lambda: 60.0  # a tenth of a run: as forecast
    terminal.show(ProgressEvent("tick", "net · fold 2", note=note, worker=2))
    study, one, two = terminal.read_lines()
    assert study == "study 0/4 about 19 min left" and one.startswith("worker 1 · net · fold 1")
    assert two == "worker 2 · net · fold 2 0/5 epoch 1/5 · 33 images/s"
    terminal.show(ProgressEvent("waiting", done=1, total=4, worker=1))
    assert terminal.read_lines()[1].startswith("worker 1 · waiting for runs another process computes")


def test_a_clock_begins_with_what_it_stands_beside(terminal: Terminal) -> None:
    show, clock = terminal.show, iter(range(0, 1000, 10))
    terminal.bars.get_time = lambda: float(next(clock))
    for title in ("net · fold 1", "net · fold 2"):
        show(ProgressEvent("start", title, 0, 4, keys=("k0",)))
        began = terminal.bars.tasks[1].start_time
        show(ProgressEvent("features", "net", 1, 2))
        assert terminal.bars.tasks[1].start_time > began, "what is done now is another thing"
        again = terminal.bars.tasks[1].start_time
        show(ProgressEvent("features", "net", 1, 2))
        assert terminal.bars.tasks[1].start_time == again


def test_no_bar_says_that_no_time_is_left(terminal: Terminal) -> None:
    terminal.show(FORECAST)
    terminal.show(ProgressEvent("start", "net", 3, 4, keys=("k0", "k1", "k2", "k3")))
    terminal.show(ProgressEvent("done", "net", 4, 4, keys=("k0", "k1", "k2", "k3")))
    assert terminal.read_lines()[0] == "study 4/4"


@pytest.mark.parametrize("width", [80, 100, 130])
def test_in_a_narrow_terminal_numbers_are_whole(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    bars = Progress(*_make_columns(width), console=console, auto_refresh=False)
    show = _ProgressBars("scenes", bars)
    show(FORECAST)
    show(ProgressEvent("start", "small CNN · stratified 5-fold, fold 2 of 5, seed 0", 12, 20, keys=("k0",), worker=12))
    note = {"epoch": 13, "epochs": 20, "train_loss": 1.234, "train_accuracy": 0.512, "images_per_s": 1234.0}
    show(ProgressEvent("epoch", "small CNN · stratified 5-fold, fold 2 of 5, seed 0", note=note, worker=12))
    with console.capture() as shown:
        console.print(bars.get_renderable())
    study, run = shown.get().splitlines()
    assert (
        "12/20" in study
        and "0:00:00" in study
        and "13/20" in run
        and "0:00:00" in run
        and run.startswith("worker 12 · small CNN")
    )
    assert all(len(line) <= width for line in (study, run))


def test_a_failure_is_a_line_above_the_bars(terminal: Terminal) -> None:
    terminal.show(ProgressEvent("failed", "net · fold 1", 1, 4, {"error": "no memory"}, ("k0",)))
    assert "[1/4] net · fold 1: FAILED: no memory" in terminal.console.file.getvalue()  # type: ignore[attr-defined]


def test_what_a_plan_settles_is_told_once(terminal: Terminal) -> None:
    log = io.StringIO()
    with show_progress("study", Console(file=log, force_terminal=False, width=200)) as show:
        for worker in (1, 2):  # every process tells it
            show(ProgressEvent("settled", "5 seeds, since [all] is frozen", worker=worker))
            terminal.show(ProgressEvent("settled", "5 seeds, since [all] is frozen", worker=worker))
    assert log.getvalue() == "5 seeds, since [all] is frozen\n"
    assert str(terminal.console.file.getvalue()).count("5 seeds, since [all] is frozen") == 1


def test_a_log_has_a_line_for_each_run_with_the_time_left() -> None:
    file = io.StringIO()
    with show_progress("study", Console(file=file, force_terminal=False, width=200)) as show:
        show(FORECAST)
        show(ProgressEvent("start", "net", 0, 4, keys=("k0",)))
        show(ProgressEvent("features", "net", 16, 360))
        show(ProgressEvent("features", "net", 32, 360))
        show(ProgressEvent("done", "net · fold 1", 1, 4, {"accuracy": 0.5}, ("k0",)))
    lines = file.getvalue().splitlines()
    assert lines[0] == "computing features of net (360)" and len(lines) == 2
    assert lines[1].startswith("[1/4] net · fold 1: accuracy 0.5000 (") and lines[1].endswith("left)")
