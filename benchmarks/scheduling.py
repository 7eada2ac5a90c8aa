"""How well workers are used that claim runs in one results folder: a simulation of events, with failures and pre-emption.

    python -m benchmarks.scheduling [--seed 0]

A worker lists the missing runs, goes through them in the order of the plan and takes each that nobody holds, as
`_Worker.compute_all` does; at the end of the list it makes a new one, and waits a second first where it took nothing. A worker is
lost at random (pre-empted, killed: once in LOST_H hours on average) and is back after BACK_S seconds. Its run is free at once;
whoever takes it goes on from its last checkpoint. What a list and an attempt to claim cost is measured first, on a folder of this
machine.

Efficiency is the work of all runs over workers × the time until the last run is done. Beside it stands what no order of undivided
runs could exceed: work / (workers × max(work / workers, the longest run)).

Runs wait for no others here. Their times are those of MEASURED, 80 runs of a study of eight trained candidates on 10 folds: a run
is drawn as one of a candidate's ten. The plan has the candidates one after another, as plans have.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import tempfile
import time
from bisect import bisect_left, insort
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phoropter.results.store import Store
from phoropter.study.worker import POLL_INTERVAL_S, ComputeOptions

OUT = Path(__file__).parent / "results" / "scheduling.json"
LOST_H, BACK_S, START_S = 4.0, 120.0, 10.0
SIZES = ((1_000, (8, 16, 64, 256)), (100_000, (8, 64, 256, 1_024)))
MEAN_S = (0.0, 600.0)  # of a run: as measured, and for networks of the usual size on a GPU
# Seconds of training and prediction in the records of a study of 600 pictures of scenes (MobileNets trained, fused and taught, on
# two shared cores of an AMD EPYC, whose neighbours are part of the spread): for each candidate its ten folds
MEASURED: dict[str, list[float]] = {
    "V1": [45.3, 29.8, 26.2, 30.9, 29.2, 57.3, 43.4, 33.9, 73.6, 114.1],
    "V2": [35.3, 51.7, 21.5, 47.6, 46.0, 15.7, 38.4, 31.4, 28.5, 44.3],
    "small net": [16.9, 20.3, 21.2, 15.1, 21.7, 19.4, 30.0, 26.6, 20.6, 12.5],
    "features": [57.3, 52.0, 48.3, 46.5, 40.4, 41.4, 6.3, 25.2, 20.9, 21.4],
    "logits": [145.9, 143.8, 116.7, 157.0, 104.2, 49.8, 32.1, 93.9, 48.5, 49.8],
    "warm": [11.8, 12.8, 17.7, 11.6, 17.0, 13.5, 10.8, 12.8, 13.2, 11.6],
    "taught soft": [29.1, 24.5, 29.8, 35.5, 40.7, 36.6, 46.3, 24.9, 41.3, 38.7],
    "taught hard": [20.7, 13.9, 12.5, 25.2, 23.1, 24.9, 31.7, 37.5, 27.9, 22.0],
}


@dataclass(frozen=True)
class Costs:
    """Seconds.

    start: of a process, before it lists runs · listed: of each run in a list · tried: of each attempt to claim one that is held
    or done · kept: of each run beyond its work (benchmarks/overhead.py)
    """

    start: float = START_S
    listed: float = 1e-5
    tried: float = 3e-4
    kept: float = 0.015


@dataclass(frozen=True)
class Outcome:
    """seconds: until the last run is done · lost_s: work that was done twice · losses: of workers"""

    seconds: float
    lost_s: float
    losses: int


class Simulation:
    """The claims of workers on the runs of a plan.

    work: (N,) seconds of each run, in the order of the plan · lost_h: mean hours between losses of a worker; infinity: none
    """

    def __init__(self, work: NDArray[np.float64], workers: int, costs: Costs, lost_h: float, draw: np.random.Generator) -> None:
        self.left, self.costs, self.draw = work.copy(), costs, draw
        self.lost_s, self.losses = lost_h * 3600, 0
        self.free = list(range(len(work)))  # nobody holds them, and they are not done
        self.done_at = np.full(len(work), np.inf)
        self.n_done, self.done_twice = 0, 0.0
        self.numbers = itertools.count()
        self.events: list[tuple[float, int, str, int, int]] = []  # second, order, what, worker, which life of the worker
        self.life, self.place = [0] * workers, [0] * workers
        self.listed_at, self.took = [0.0] * workers, [False] * workers
        self.held: list[tuple[int, float] | None] = [None] * workers  # a run, and since when

    def run_all(self) -> Outcome:
        """Until every run is done."""
        for worker in range(len(self.life)):
            self._begin_life(worker, 0.0)
        while True:
            now, _, what, worker, life = heapq.heappop(self.events)
            if life != self.life[worker]:
                continue  # of a process that is gone
            if what == "list":
                self.place[worker], self.listed_at[worker], self.took[worker] = 0, now, False
                n_missing = len(self.left) - self.n_done
                self._plan_event(now + self.costs.listed * len(self.left), "claim", worker) if n_missing else None
            elif what == "claim":
                self._claim_next(worker, now)
            elif what == "done":
                self._finish_run(worker, now)
                if self.n_done == len(self.left):
                    return Outcome(now, self.done_twice, self.losses)
            else:
                self._lose_worker(worker, now)

    def _plan_event(self, second: float, what: str, worker: int) -> None:
        heapq.heappush(self.events, (second, next(self.numbers), what, worker, self.life[worker]))

    def _begin_life(self, worker: int, now: float) -> None:
        self._plan_event(now + self.costs.start, "list", worker)
        if np.isfinite(self.lost_s):
            self._plan_event(now + self.draw.exponential(self.lost_s), "lost", worker)

    def _claim_next(self, worker: int, now: float) -> None:
        """Tries what its list has from its place on; runs that were done before the list was made are not in it."""
        at = bisect_left(self.free, self.place[worker])
        run = self.free[at] if at < len(self.free) else len(self.left)
        passed = int((self.done_at[self.place[worker] : run] > self.listed_at[worker]).sum())
        now += passed * self.costs.tried
        if run == len(self.left):
            self._plan_event(now + (0 if self.took[worker] else POLL_INTERVAL_S), "list", worker)
            return
        del self.free[at]
        self.held[worker], self.place[worker], self.took[worker] = (run, now), run + 1, True
        self._plan_event(now + self.left[run] + self.costs.kept, "done", worker)

    def _finish_run(self, worker: int, now: float) -> None:
        held = self.held[worker]
        assert held is not None
        self.done_at[held[0]] = now
        self.n_done, self.held[worker] = self.n_done + 1, None
        self._plan_event(now, "claim", worker)

    def _lose_worker(self, worker: int, now: float) -> None:
        self.losses += 1
        self.life[worker] += 1
        if (held := self.held[worker]) is not None:
            run, since = held
            worked = min(max(now - since, 0.0), self.left[run])
            kept = worked // ComputeOptions.checkpoint_s * ComputeOptions.checkpoint_s
            self.left[run] -= kept
            self.done_twice += worked - kept
            insort(self.free, run)
            self.held[worker] = None
        self._begin_life(worker, now + BACK_S)


def draw_work(count: int, mean_s: float, draw: np.random.Generator) -> NDArray[np.float64]:
    """(count,) seconds of runs, candidate after candidate. mean_s: of all; 0: as they were measured"""
    names = list(MEASURED)
    each = [draw.choice(MEASURED[name], size=part) for name, part in zip(names, _share_out(count, len(names)), strict=True)]
    work: NDArray[np.float64] = np.concatenate(each)
    return work * (mean_s / work.mean()) if mean_s else work


def _share_out(count: int, parts: int) -> list[int]:
    return [len(part) for part in np.array_split(np.arange(count), parts)]


def bound_efficiency(work: NDArray[np.float64], workers: int) -> float:
    """What no order of undivided runs on so many workers can exceed."""
    return float(work.sum() / (workers * max(work.sum() / workers, work.max())))


def measure_claims(count: int = 2_000) -> Costs:
    """Seconds of a list and of an attempt, in a folder of this machine with so many runs that are done."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        keys = [f"{number:032x}" for number in range(count)]
        for key in keys:
            with store.create_run(key) as run:
                run.write_record({})
        for key in keys:
            assert key in store  # reads the files, once for a process
        began = time.perf_counter()
        assert all(key in store for key in keys)
        listed = (time.perf_counter() - began) / count
        began = time.perf_counter()
        for key in keys[:500]:
            with store.hold_lease(key) as mine:
                assert not mine
        return Costs(listed=listed, tried=(time.perf_counter() - began) / 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    costs, rows = measure_claims(), []
    print(f"{costs}; a worker is lost every {LOST_H:g} h and back after {BACK_S:g} s\n")
    print("   runs  mean of a run  workers  efficiency  no order exceeds  done twice  losses      took")
    for count, worker_counts in SIZES:
        for mean_s in MEAN_S:
            for workers in worker_counts:
                draw = np.random.default_rng([seed, count, workers])
                work = draw_work(count, mean_s, draw)
                found = Simulation(work, workers, costs, LOST_H, draw).run_all()
                reached, most = float(work.sum() / (workers * found.seconds)), bound_efficiency(work, workers)
                twice = found.lost_s / work.sum()
                print(f"{count:7,}  {work.mean():11.0f} s  {workers:7,}  {reached:10.1%}  {most:16.1%}", end="")
                print(f"  {twice:10.2%}  {found.losses:6,}  {found.seconds / 3600:6.1f} h", flush=True)
                figures = {"efficiency": reached, "bound": most, "done_twice": twice, "losses": found.losses}
                rows.append({"runs": count, "mean_s": work.mean(), "workers": workers, "hours": found.seconds / 3600, **figures})
    OUT.write_text(json.dumps({"costs": vars(costs), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
