"""benchmarks/scheduling.py: the simulated claims against list schedules and cases worked out by hand."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def scheduling(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scheduling as module

    yield module
    sys.modules.pop("scheduling", None)


def simulate(scheduling: Any, work: list[float], workers: int, lost_h: float = np.inf, draw: Any = None, **costs: float) -> Any:
    nothing = {"start": 0.0, "listed": 0.0, "tried": 0.0, "kept": 0.0}
    return scheduling.Simulation(np.array(work), workers, scheduling.Costs(**{**nothing, **costs}), lost_h, draw).run_all()


@pytest.mark.parametrize("workers", [1, 3, 7, 50])
def test_where_claims_cost_nothing_it_is_the_list_schedule(scheduling: Any, workers: int) -> None:
    work = np.random.default_rng(workers).exponential(10, 40)
    ends = [0.0] * workers  # each run goes to the worker that is free first (Graham 1969)
    for seconds in work:
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    assert simulate(scheduling, list(work), workers).seconds == pytest.approx(max(ends))


def test_costs_are_those_of_lists_and_of_attempts(scheduling: Any) -> None:
    # Both list two runs (2 · 1 s) after 5 s. The first takes run 0 at once; the second tries it in vain (0.5 s) and takes run 1.
    found = simulate(scheduling, [10.0, 10.0], 2, start=5.0, listed=1.0, tried=0.5, kept=0.25)
    assert found.seconds == 5 + 2 + 0.5 + 10 + 0.25 and found.losses == 0


class FixedLosses:
    def __init__(self, *seconds: float) -> None:
        self.seconds = iter(seconds)

    def exponential(self, mean: float) -> float:
        return next(self.seconds, np.inf)


def test_a_lost_run_goes_on_from_its_checkpoint_by_whoever_is_there(scheduling: Any) -> None:
    # Checkpoints at 20 and 40 s; lost at 50; back at 170, where 60 s are left
    alone = simulate(scheduling, [100.0], 1, lost_h=1.0, draw=FixedLosses(50.0))
    assert (alone.seconds, alone.lost_s, alone.losses) == (50 + 120 + 60, 10.0, 1)
    # A second worker is done with its own run at 30, finds nothing and looks each second: at 51 it takes what is free since 50.5
    both = simulate(scheduling, [100.0, 30.0], 2, lost_h=1.0, draw=FixedLosses(50.5, np.inf))
    assert (both.seconds, both.lost_s) == (51 + 60, pytest.approx(10.5))


def test_no_order_exceeds_the_bound_and_the_measured_runs_are_drawn(scheduling: Any) -> None:
    draw = np.random.default_rng(0)
    work = scheduling.draw_work(83, 0.0, draw)
    known = {seconds for each in scheduling.MEASURED.values() for seconds in each}
    assert len(work) == 83 and set(work.tolist()) <= known
    assert scheduling.draw_work(83, 600.0, draw).mean() == pytest.approx(600)
    for workers in (2, 20, 83):
        seconds = simulate(scheduling, list(work), workers).seconds
        assert work.sum() / (workers * seconds) <= scheduling.bound_efficiency(work, workers) + 1e-9
