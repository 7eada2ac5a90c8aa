"""A budget of time, on a clock that the test moves: where a study stops, and that it ends with the same bytes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from phoropter.api import Study
from phoropter.cli import main
from phoropter.core.errors import SpecError
from phoropter.results.store import Store
from phoropter.study.executors import execute_study
from phoropter.study.progress import ProgressEvent
from phoropter.study.scheduling.time_budget import TimeBudget
from phoropter.study.spec import StudySpec, read_study
from phoropter.study.worker import ComputeOptions
from phoropter.training.loop.stop_signals import BudgetSpent, StopRequest, handle_stop_signals, stop_this_process
from small_study import all_predictions

STUDY = """\
name: hasty
data: {digits: true, size: 32, max_samples: 80}
protocol: {split: stratified-k-fold, folds: 2, seeds: [0]}
recipe: {preset: scratch, epochs: 2}
candidates:
  - {name: cnn, backbone: test_resnet, weights: random}
  - {name: vit, backbone: test_vit, weights: random, size: 32}
"""


class Clock:
    """A second passes with each run that is done, and with each epoch half of one."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def follow_event(self, event: ProgressEvent) -> None:
        self.now += {"done": 1.0, "epoch": 0.5}.get(event.kind, 0.0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudySpec:
    file = tmp_path_factory.mktemp("study") / "study.yaml"
    file.write_text(STUDY)
    return read_study(file)[0]


def run(study: StudySpec, folder: Path, budget: TimeBudget | None, clock: Clock) -> Store:
    options = ComputeOptions("cpu", threads=1, folds_first=budget is not None)
    return execute_study(study, folder / "out", clock.follow_event, options=options, cache=folder / "cache", budget=budget)


def test_a_study_stops_when_its_budget_is_spent_and_goes_on_to_the_same_bytes(study: StudySpec, tmp_path: Path) -> None:
    clock = Clock()
    with handle_stop_signals(), pytest.raises(BudgetSpent, match=r"stopped by the budget of 4\.5 s") as caught:
        run(study, tmp_path / "a", TimeBudget(4.5, clock), clock)  # two runs of two seconds, and an epoch of the third
    assert caught.value.exit_code == 143
    store = Store(tmp_path / "a" / "out")
    done = [(row["candidate"], row["fold"]) for row in store.planned_rows if row["key"] in store]
    assert done == [("cnn", 0), ("vit", 0)] and store.read_failures() == {}
    assert len(list(store.folder.glob("work/*/checkpoint.pt"))) == 1
    whole = run(study, tmp_path / "a", None, clock)
    assert all_predictions(whole) == all_predictions(run(study, tmp_path / "b", None, clock))


def test_a_study_that_ends_in_time_is_not_stopped(study: StudySpec, tmp_path: Path) -> None:
    clock = Clock()
    assert len(list(run(study, tmp_path, TimeBudget(100, clock), clock).runs())) == 4


def test_where_no_event_comes_the_clock_is_looked_at_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phoropter.study.scheduling.time_budget.LOOK_INTERVAL_S", 0.01)
    clock, waiting = Clock(), threading.Event()
    with handle_stop_signals():
        with pytest.raises(BudgetSpent), TimeBudget(1, clock).watch_study(lambda event: None):
            clock.now = 1.0
            waiting.wait(30)
        with pytest.raises(
            StopRequest, match="SIGTERM"
        ) as caught:  # the budget was obeyed: a signal that comes then is the first
            stop_this_process()
            waiting.wait(30)
        assert not isinstance(caught.value, BudgetSpent)


def test_a_signal_within_the_budget_is_itself() -> None:
    with handle_stop_signals(), pytest.raises(StopRequest) as caught, TimeBudget(100).watch_study(lambda event: None):
        stop_this_process()
        threading.Event().wait(30)
    assert not isinstance(caught.value, BudgetSpent) and caught.value.cause == "SIGTERM"


@pytest.mark.parametrize(("words", "seconds"), [("3h", 10800), ("90min", 5400), ("1h30min", 5400), (12, 12)])
def test_budgets_in_words(words: str | float, seconds: float) -> None:
    assert TimeBudget.from_words(words).seconds == seconds


@pytest.mark.parametrize("words", ["3", "3 hours", "soon", "", "-1h", "0h", -3, float("nan")])
def test_what_is_no_duration_is_refused(words: str | float) -> None:
    with pytest.raises(SpecError, match="budget: "):
        TimeBudget.from_words(words)


def test_a_budget_outside_the_main_thread_is_refused() -> None:
    problems: list[Exception] = []

    def watch() -> None:
        try:
            with TimeBudget(1).watch_study(lambda event: None):
                pass
        except SpecError as error:
            problems.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert "main thread" in str(problems[0])


@pytest.fixture
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder in which every budget is spent when two runs are finished."""
    out = tmp_path / "out"
    monkeypatch.setenv("PHOROPTER_CACHE", str(tmp_path / "cache"))
    spent_after_two = TimeBudget(2, lambda: len(Store(out).list_run_folders()))
    monkeypatch.setattr(TimeBudget, "from_words", lambda words: spent_after_two)
    return out


def test_the_command_reports_what_is_finished_and_ends_as_one_that_was_stopped(study: StudySpec, two_runs: Path) -> None:
    arguments = ["run", str(Path(str(study.base)) / "study.yaml"), "-o", str(two_runs), "--device", "cpu", "--budget", "1h"]
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 143, ended.output
    assert "stopped by the budget of 2.0 s; finished runs and checkpoints are kept" in ended.output
    assert "refit" not in ended.output and "2 of 4" in (two_runs / "report" / "index.html").read_text()
    assert "2 of 4 runs done" in CliRunner().invoke(main, ["status", str(two_runs)]).output


def test_in_python_the_results_are_those_that_are_finished(study: StudySpec, two_runs: Path) -> None:
    hasty = Study(**{name: getattr(study, name) for name in study.model_fields_set})
    with pytest.warns(UserWarning, match=r"stopped by the budget of 2\.0 s; the same call goes on"):
        results = hasty.run(two_runs, device="cpu", quiet=True, budget="1h")
    assert sorted({run.record["split"]["fold"] for run in results.store.runs()}) == [0] and len(list(results.store.runs())) == 2


def test_the_places_of_python_are_those_of_the_command_line(study: StudySpec, tmp_path: Path) -> None:
    asked = Study(**{name: getattr(study, name) for name in study.model_fields_set})
    for places, words in (
        ({"address": "there:6379"}, "--address names a Ray cluster"),
        ({"per_device": 2}, "--per-device says how many processes share each GPU"),
        ({"executor": "ray", "devices": "0"}, "--devices names GPUs of this machine"),
    ):
        with pytest.raises(SpecError, match=words):
            asked.run(tmp_path / "out", quiet=True, **places)  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "study.json").exists()
