"""Estimates the time left of a study from what its runs have taken so far. No torch here.

Before the first run there are forecasts alone (study/cost.py). As soon as something was measured, forecasts only say how runs
compare with each other: a run takes what its forecast says times how far off the forecasts of its candidate were, else those of
runs of its kind, else those of all. So an estimate is right where runs of a candidate are alike, however slow the machine is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from phoropter.study.progress import ProgressEvent

PASS_KIND = "pass"  # of forecasts of feature passes
MIN_SHARE = 0.03  # of a run or a pass, from which on its own speed counts
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
    """Runs that one process computes together.

    share: of their epochs, 0 to 1 · pass_share: of their feature passes; pass_first: what of these was there when they were first
    heard of, at pass_began: a pass that goes on from an earlier one does not begin at 0
    """

    keys: tuple[str, ...]
    began: float
    share: float = 0.0
    pass_share: float = 0.0
    pass_first: float | None = None
    pass_began: float = 0.0
    pass_ended: float = 0.0

    def find_pass_seconds(self, now: float) -> float:
        """What the feature passes have taken since they were first heard of; 0 before."""
        return 0.0 if self.pass_first is None else (self.pass_ended if self.pass_share >= 1 else now) - self.pass_began

    @property
    def pass_done(self) -> float:
        """The share of the passes that was computed in that time."""
        return 0.0 if self.pass_first is None else self.pass_share - self.pass_first


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
        group, now = self.groups.get(worker), self.clock()
        if group is None:
            return
        if group.pass_first is None:
            group.pass_first, group.pass_began = share, now
        group.pass_ended = now if share >= 1 > group.pass_share else group.pass_ended
        group.pass_share = share

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
        waiting = sum(self._scale(part) for key in self.left - held for part in _split_forecast(self.forecasts[key]))
        return max([(waiting + sum(running.values())) / max(workers, len(running), 1), *running.values()])

    def sum_by_kind(self) -> dict[str, tuple[float, float]]:
        """Kind of run → forecast and measured seconds of the runs that are finished."""
        sums: defaultdict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        for said, taken in self.spent:
            sums[said.kind] = sums[said.kind][0] + said.seconds, sums[said.kind][1] + taken
        sums.pop(PASS_KIND, None)  # whose networks' speeds are measured by themselves
        return dict(sums)

    def _close_group(self, worker: int) -> None:
        group, now = self.groups.pop(worker), self.clock()
        self.left.difference_update(group.keys)
        passes, rest = self._sum_forecasts(group)
        in_passes = group.find_pass_seconds(now)
        self.spent.append((rest, now - group.began - in_passes))
        if group.pass_done >= MIN_SHARE and passes.seconds:
            self.spent.append((replace(passes, seconds=passes.seconds * group.pass_done), in_passes))

    def _estimate_group(self, group: _Group) -> float:
        """Seconds until a group is done: the rest of its passes by their own speed, then the rest of its epochs by theirs."""
        passes, rest = self._sum_forecasts(group)
        now = self.clock()
        in_passes = group.find_pass_seconds(now)
        if group.pass_first is None and not group.share:
            return _subtract_spent(self._scale(passes) + self._scale(rest), now - group.began)
        left = 0.0
        if group.pass_first is not None:
            by_itself = group.pass_done >= MIN_SHARE
            left = (1 - group.pass_share) * (in_passes / group.pass_done if by_itself else self._scale(passes))
        taken = now - group.began - in_passes
        return left + _subtract_spent(taken / group.share if group.share >= MIN_SHARE else self._scale(rest), taken)

    def _sum_forecasts(self, group: _Group) -> tuple[RunForecast, RunForecast]:
        """Of the feature passes of its runs, and of the rest."""
        parts = [_split_forecast(self.forecasts[key]) for key in group.keys]
        passes, rest = (sum(each[i].seconds for each in parts) for i in (0, 1))
        return replace(parts[0][0], seconds=passes), replace(parts[0][1], seconds=max(rest, 1e-9))

    def _scale(self, forecast: RunForecast) -> float:
        """The seconds of a forecast, corrected by what was measured."""
        return forecast.seconds * self._find_ratio(forecast)

    def _find_ratio(self, forecast: RunForecast) -> float:
        """Measured by forecast seconds: of its candidate, else of its kind, else of all; 1 before anything is known."""
        names = ((forecast.candidate, forecast.kind), (forecast.kind,), ())
        sums: defaultdict[tuple[str, ...], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for said, taken in self._list_measured():
            for name in ((said.candidate, said.kind), (said.kind,), ()):
                sums[name][0] += taken
                sums[name][1] += said.seconds
        return next((sums[name][0] / sums[name][1] for name in names if name in sums), 1.0)

    def _list_measured(self) -> Iterator[tuple[RunForecast, float]]:
        """Forecast and seconds of what was computed: finished groups, and the computed shares of those in progress."""
        again = any(said.kind == self.spent[0][0].kind for said, _ in self.spent[1:])
        yield from self.spent[again:]  # without the first one, which also pays for what a process loads once
        for group in self.groups.values():
            passes, rest = self._sum_forecasts(group)
            in_passes = group.find_pass_seconds(self.clock())
            if group.share >= MIN_SHARE:
                yield replace(rest, seconds=rest.seconds * group.share), self.clock() - group.began - in_passes
            if group.pass_done >= MIN_SHARE and passes.seconds:
                yield replace(passes, seconds=passes.seconds * group.pass_done), in_passes


def _split_forecast(forecast: RunForecast) -> tuple[RunForecast, RunForecast]:
    """Its feature passes, which are a kind of their own, and the rest."""
    passes = RunForecast(forecast.candidate, PASS_KIND, forecast.pass_seconds)
    return passes, replace(forecast, seconds=forecast.seconds - forecast.pass_seconds, pass_seconds=0.0)


def _subtract_spent(expected: float, spent: float) -> float:
    """What is left of an expected time; where that is over, a share of what it was exceeded by."""
    return max(expected - spent, OVERDUE_SHARE * (spent - expected))
