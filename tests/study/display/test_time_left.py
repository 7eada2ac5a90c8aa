"""The time left, against computations by hand on a clock that the test moves."""

from __future__ import annotations

import pytest

from phoropter.study.display.time_left import RunForecast, TimeLeft
from phoropter.study.progress import ProgressEvent


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def follow(clock: Clock, **seconds: float) -> TimeLeft:
    """Runs named CANDIDATE_NUMBER, as they were forecast."""
    left = TimeLeft(clock)
    left.add_forecasts({name: RunForecast(name.partition("_")[0], "trained", s) for name, s in seconds.items()})
    return left


def test_before_anything_is_measured_the_forecasts_count(clock: Clock) -> None:
    left = follow(clock, a_0=10, a_1=10, b_0=40)
    assert left.estimate_seconds() == 60
    left.begin_runs(0, ["a_0"])
    clock.now = 4
    assert left.estimate_seconds() == 56
    assert TimeLeft(clock).estimate_seconds() is None


def test_a_finished_run_tells_of_its_candidate_and_of_those_that_have_none_yet(clock: Clock) -> None:
    left = follow(clock, a_0=10, a_1=10, b_0=40, b_1=40)
    left.begin_runs(0, ["a_0"])
    clock.now = 30  # three times as long as forecast
    left.finish_runs(["a_0"])
    assert left.estimate_seconds() == 30 + 2 * 120
    left.begin_runs(0, ["b_0"])
    clock.now = 32
    left.note_share(0, 0.1)
    clock.now = 50
    left.note_share(0, 0.5)  # 18 s for four tenths of 40 s
    ratio = 18 / (0.4 * 40)
    assert left.estimate_seconds() == pytest.approx(30 + 0.5 * 18 / 0.4 + ratio * 40)
    clock.now = 80
    left.finish_runs(["b_0"])
    left.begin_runs(0, ["b_1"])
    clock.now = 81
    left.note_share(0, 0.25)  # of a candidate that is known: what its first run took, however fast this one begins
    assert left.estimate_seconds() == pytest.approx(30 + 0.75 * 50)


def test_the_first_run_of_all_which_loads_what_all_need_counts_until_there_is_another(clock: Clock) -> None:
    left = follow(clock, a_0=10, a_1=10, a_2=10)
    for at, key in ((40, "a_0"), (60, "a_1")):
        left.begin_runs(0, [key])
        clock.now = at
        left.finish_runs([key])
        assert left.estimate_seconds() == {"a_0": 80, "a_1": 20}[key]


def test_a_run_that_takes_longer_than_it_should_is_never_about_to_end(clock: Clock) -> None:
    left = follow(clock, a_0=10)
    left.begin_runs(0, ["a_0"])
    clock.now = 50
    assert left.estimate_seconds() == 0.25 * 40
    left.finish_runs(["a_0"])
    assert left.estimate_seconds() is None


def test_a_feature_pass_has_its_own_speed_and_what_follows_that_of_its_kind(clock: Clock) -> None:
    left = TimeLeft(clock)
    left.add_forecasts({"p_0": RunForecast("p", "heads", 60, 50), "p_1": RunForecast("p", "heads", 10)})
    left.add_forecasts({"q_0": RunForecast("q", "heads", 35, 25)})
    left.begin_runs(0, ["p_0", "p_1"])
    clock.now = 5  # building the network, and the first block
    left.note_pass(0, 0.1)
    clock.now = 23
    left.note_pass(0, 0.2)  # 18 s for a tenth of what was forecast to take 50
    speed = 18 / (0.1 * 50)
    assert left.estimate_seconds() == pytest.approx(18 * 8 + (speed * 20 - 5) + speed * (25 + 10))
    clock.now = 83
    left.note_pass(0, 1.0)
    clock.now = 95
    left.finish_runs(["p_0", "p_1"])
    passes, heads = (83 - 5) / (0.9 * 50), (95 - (83 - 5)) / 20
    assert left.sum_by_kind() == {"heads": (20, 95 - 78)}
    assert left.estimate_seconds() == pytest.approx(passes * 25 + heads * 10)


def test_processes_share_what_is_left_and_the_longest_run_bounds_it(clock: Clock) -> None:
    left = follow(clock, a_0=10, a_1=10, a_2=10, a_3=10)
    left.begin_runs(1, ["a_0"])
    left.begin_runs(2, ["a_1"])
    assert left.estimate_seconds(2) == 20
    left.finish_runs(["a_2", "a_3"])
    for worker, share in ((1, 0.1), (2, 0.1)):
        left.note_share(worker, share)
    clock.now = 8
    left.note_share(1, 0.9)
    left.note_share(2, 0.2)
    assert left.estimate_seconds(2) == pytest.approx(0.8 * 8 / 0.1), "the longer of the two"


def test_a_process_that_begins_something_else_has_finished_what_it_had(clock: Clock) -> None:
    left = follow(clock, a_0=10, a_1=10)
    left.begin_runs(1, ["a_0"])
    clock.now = 20
    left.begin_runs(1, ["a_1"])
    assert left.left == {"a_1"} and left.estimate_seconds() == 20
    assert left.sum_by_kind() == {"trained": (10, 20)}


def test_a_run_that_is_begun_again_is_not_finished(clock: Clock) -> None:
    left = follow(clock, a_0=10, a_1=10)
    left.begin_runs(1, ["a_0"])
    clock.now = 5
    left.begin_runs(1, ["a_0"])
    assert left.left == {"a_0", "a_1"} and left.estimate_seconds() == 20 and not left.sum_by_kind()
    left.follow_event(ProgressEvent("lost", worker=1))
    clock.now = 8
    left.begin_runs(1, ["a_1"])
    assert left.left == {"a_0", "a_1"} and not left.sum_by_kind(), "what was lost with its process was not computed"


def test_events_of_a_study_are_followed(clock: Clock) -> None:
    left = TimeLeft(clock)
    forecasts = {f"a_{n}": RunForecast("a", "trained", 10.0) for n in range(3)}
    left.follow_event(ProgressEvent("forecast", note=dict(forecasts)))
    left.follow_event(ProgressEvent("start", keys=("a_0",), worker=1))
    clock.now = 5
    left.follow_event(ProgressEvent("tick", note={"epoch": 2, "epochs": 4, "step": 5, "steps": 10}, worker=1))
    epochs = left.groups[1].epochs
    assert epochs is not None and (epochs.first, epochs.began) == (pytest.approx(1.5 / 4), 5)
    clock.now = 6
    left.follow_event(ProgressEvent("epoch", note={"epoch": 2, "epochs": 4}, worker=1))
    speed = 1 / (0.125 * 10)
    assert epochs.share == 0.5 and left.estimate_seconds() == pytest.approx(0.5 * 1 / 0.125 + 2 * 10 * speed)
    left.follow_event(ProgressEvent("done", keys=("a_0",)))
    left.follow_event(ProgressEvent("failed", keys=("a_1",)))
    assert left.left == {"a_2"} and left.estimate_seconds() == pytest.approx(6)
    left.follow_event(ProgressEvent("forecast", note=dict(forecasts)))  # another process tells the same
    assert left.left == {"a_2"}
