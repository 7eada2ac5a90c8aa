"""Estimates the time left of a study from what its runs have taken so far. No torch here.

Before the first run there are forecasts alone (study/cost.py). As soon as something was measured, forecasts only say how runs
compare with each other: a run takes what its forecast says times how far off the forecasts of its candidate were, else those of
runs of its kind, else those of all. So an estimate is right where runs of a candidate are alike, however slow the machine is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from phoropter.study.progress import ProgressEvent

MIN_SHARE = 0.03  # of a run, from which on its own speed counts
OVERDUE_SHARE = 0.25  # of what a run has taken beyond its estimate, that it is taken to need still


@dataclass(frozen=True)
class RunForecast:
    """What a run will take in seconds, by the speeds known before it. pass_seconds: of it for the features of frozen networks"""

    candidate: str
    kind: str
    seconds: float
    pass_seconds: float = 0.0


@dataclass(eq=False)
class _Group:
    """Runs that one process computes together. share: 0 to 1, of their forecast"""

    keys: tuple[str, ...]
    began: float
    share: float = 0.0


class TimeLeft:
    """Follows runs and estimates when all are done.

    clock: seconds, from any beginning
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.forecasts: dict[str, RunForecast] = {}
        self.left: set[str] = set()
        self.groups: dict[int, _Group] = {}
        self.spent: list[tuple[RunForecast, float]] = []  # what finished groups were forecast, and took

    def follow_event(self, event: ProgressEvent) -> None:
        """Takes what an event of a study says about its runs."""
        if event.kind == "forecast":
            self.add_forecasts(event.note)
        elif event.kind == "start":
            self.begin_runs(event.worker, event.keys)
        elif event.kind == "tick":
            self.note_share(
                event.worker, (event.note["epoch"] - 1 + event.note["step"] / event.note["steps"]) / event.note["epochs"]
            )
        elif event.kind == "epoch":
            self.note_share(event.worker, event.note["epoch"] / event.note["epochs"])
        elif event.kind == "features" and event.total:
            self.note_pass(event.worker, event.done / event.total)
        elif event.kind in ("done", "failed"):
            self.finish_runs(event.keys)
        elif event.kind == "lost":  # with its process; it is begun again
            self.groups.pop(event.worker, None)

    def add_forecasts(self, forecasts: Mapping[str, RunForecast]) -> None:
        """Of all missing runs; what is known already stays, as several processes forecast the same."""
        fresh = forecasts.keys() - self.forecasts.keys()
        self.forecasts.update({key: forecasts[key] for key in fresh})
        self.left |= fresh

    def begin_runs(self, worker: int, keys: Iterable[str]) -> None:
        """A process begins runs; what it computed before is finished, unless it begins that again."""
        known = tuple(key for key in keys if key in self.left)
        if worker in self.groups and not set(known).intersection(self.groups[worker].keys):
            self._close_group(worker)
        if known:
            self.groups[worker] = _Group(known, self.clock())

    def note_share(self, worker: int, share: float) -> None:
        """How much of its epochs a process has computed of its runs, 0 to 1."""
        if group := self.groups.get(worker):
            group.share = share

    def note_pass(self, worker: int, share: float) -> None:
        """How much of its feature passes a process has computed of its runs, 0 to 1."""
        if group := self.groups.get(worker):
            whole = self._sum_forecasts(group)
            group.share = share * min(1.0, sum(self.forecasts[key].pass_seconds for key in group.keys) / whole.seconds)

    def finish_runs(self, keys: Iterable[str]) -> None:
        """Runs are done, or have failed, wherever they were computed."""
        self.left.difference_update(keys)
        for worker, group in list(self.groups.items()):
            if not self.left.intersection(group.keys):
                self._close_group(worker)

    def estimate_seconds(self, workers: int = 1) -> float | None:
        """Seconds until all runs are done by this many processes; None where nothing is known."""
        if not self.left:
            return None
        running = {worker: self._estimate_group(group) for worker, group in self.groups.items()}
        held = {key for group in self.groups.values() for key in group.keys}
        waiting = sum(self._scale(self.forecasts[key]) for key in self.left - held)
        return max([(waiting + sum(running.values())) / max(workers, len(running), 1), *running.values()])

    def sum_by_kind(self) -> dict[str, tuple[float, float]]:
        """Kind of run → forecast and measured seconds of the runs that are finished."""
        sums: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for said, taken in self.spent:
            sums[said.kind] = sums[said.kind][0] + said.seconds, sums[said.kind][1] + taken
        return dict(sums)

    def _close_group(self, worker: int) -> None:
        group = self.groups.pop(worker)
        self.left.difference_update(group.keys)
        self.spent.append((self._sum_forecasts(group), self.clock() - group.began))

    def _estimate_group(self, group: _Group) -> float:
        whole, taken = self._sum_forecasts(group), self.clock() - group.began
        expected = taken / group.share if group.share >= MIN_SHARE else self._scale(whole)
        return max(expected - taken, OVERDUE_SHARE * (taken - expected))

    def _sum_forecasts(self, group: _Group) -> RunForecast:
        each = [self.forecasts[key] for key in group.keys]
        return RunForecast(each[0].candidate, each[0].kind, max(sum(f.seconds for f in each), 1e-9))

    def _scale(self, forecast: RunForecast) -> float:
        """The seconds of a forecast, corrected by what was measured."""
        return forecast.seconds * self._find_ratio(forecast)

    def _find_ratio(self, forecast: RunForecast) -> float:
        """Measured by forecast seconds: of its candidate, else of its kind, else of all; 1 before anything is known."""
        sums: defaultdict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for said, taken in self._list_measured():
            for name in (("candidate", said.candidate), ("kind", said.kind), ("all",)):
                sums[name][0] += taken
                sums[name][1] += said.seconds
        for name in (("candidate", forecast.candidate), ("kind", forecast.kind), ("all",)):
            if name in sums:
                return sums[name][0] / sums[name][1]
        return 1.0

    def _list_measured(self) -> Iterator[tuple[RunForecast, float]]:
        """Forecast and seconds of what was computed: finished groups, and the computed shares of those in progress."""
        yield from self.spent
        for group in self.groups.values():
            if group.share >= MIN_SHARE:
                whole = self._sum_forecasts(group)
                yield RunForecast(whole.candidate, whole.kind, whole.seconds * group.share), self.clock() - group.began
