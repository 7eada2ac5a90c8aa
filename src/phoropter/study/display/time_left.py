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
class _Progress:
    """Progress that is heard of from some moment on, when a share `first` is there: of a run that goes on, more than nothing.

    share: the latest, 0 to 1 · began, ended: of what was heard of
    """

    first: float
    began: float
    share: float
    ended: float | None = None

    @property
    def done(self) -> float:
        """The share that was computed while it was heard of."""
        return self.share - self.first

    def move_to(self, share: float, now: float) -> None:
        self.ended = now if share >= 1 and self.ended is None else self.ended
        self.share = share

    def find_seconds(self, now: float) -> float:
        """What `done` has taken."""
        return (now if self.ended is None else self.ended) - self.began

    def find_left(self, now: float) -> float | None:
        """Seconds until all is done, by its own speed; None where too little is done to tell."""
        return (1 - self.share) * self.find_seconds(now) / self.done if self.done >= MIN_SHARE else None


@dataclass(eq=False)
class _Group:
    """Runs that one process computes together. epochs, passes: how far they are with these, once they have begun"""

    keys: tuple[str, ...]
    began: float
    epochs: _Progress | None = None
    passes: _Progress | None = None

    def find_pass_seconds(self, now: float) -> float:
        return 0.0 if self.passes is None else self.passes.find_seconds(now)


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
        elif event.kind in ("tick", "epoch"):
            self.note_share(event.worker, event.epochs_done / event.note["epochs"])
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
            group.epochs = group.epochs or _Progress(share, self.clock(), share)
            group.epochs.move_to(share, self.clock())

    def note_pass(self, worker: int, share: float) -> None:
        """How much of its feature passes a process has computed of its runs, 0 to 1."""
        if group := self.groups.get(worker):
            group.passes = group.passes or _Progress(share, self.clock(), share)
            group.passes.move_to(share, self.clock())

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
        if group.passes and group.passes.done >= MIN_SHARE and passes.seconds:
            self.spent.append((replace(passes, seconds=passes.seconds * group.passes.done), in_passes))

    def _estimate_group(self, group: _Group) -> float:
        """Seconds until a group is done: of its passes by their own speed, of the rest as its candidate's other runs took."""
        passes, rest = self._sum_forecasts(group)
        now, left = self.clock(), 0.0
        taken = now - group.began - group.find_pass_seconds(now)
        if group.passes is not None:
            by_itself = group.passes.find_left(now)
            left = (1 - group.passes.share) * self._scale(passes) if by_itself is None else by_itself
        elif group.epochs is None:
            left = self._scale(passes)
        if group.epochs is None:
            return left + _subtract_spent(self._scale(rest), taken)
        is_known = any((said.candidate, said.kind) == (rest.candidate, rest.kind) for said, _ in self.spent)
        by_itself = None if is_known else group.epochs.find_left(now)
        return left + ((1 - group.epochs.share) * self._scale(rest) if by_itself is None else by_itself)

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
        names = [(said.candidate, said.kind) for said, _ in self.spent]
        is_repeated = bool(names) and names[0] in names[1:]
        yield from self.spent[is_repeated:]  # the first run also pays for what a process loads once
        for group in self.groups.values():
            for progress, whole in zip((group.passes, group.epochs), self._sum_forecasts(group), strict=True):
                if progress and progress.done >= MIN_SHARE and whole.seconds:
                    yield replace(whole, seconds=whole.seconds * progress.done), progress.find_seconds(self.clock())


def _split_forecast(forecast: RunForecast) -> tuple[RunForecast, RunForecast]:
    """Its feature passes, which are a kind of their own, and the rest."""
    passes = RunForecast(forecast.candidate, PASS_KIND, forecast.pass_seconds)
    return passes, replace(forecast, seconds=forecast.seconds - forecast.pass_seconds, pass_seconds=0.0)


def _subtract_spent(expected: float, spent: float) -> float:
    """What is left of an expected time; where that is over, a share of what it was exceeded by."""
    return max(expected - spent, OVERDUE_SHARE * (spent - expected))
