"""Estimates the time left of a study from what its runs have taken so far. No torch here.

Before the first run there are forecasts alone (study/cost.py). As soon as something was measured, forecasts only say how runs
compare with each other: a run takes what its forecast says times how far off the forecasts of its candidate were, else those of
runs of its kind, else those of all. So an estimate is right where runs of a candidate are alike, however slow the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
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
    """Runs that one process computes together.

    said: forecasts of their feature passes, and of the rest · epochs, passes: how far they are with these, once they have begun
    """

    keys: tuple[str, ...]
    began: float
    said: tuple[RunForecast, RunForecast]
    epochs: _Progress | None = None
    passes: _Progress | None = None

    def find_pass_seconds(self, now: float) -> float:
        return 0.0 if self.passes is None else self.passes.find_seconds(now)


class _Sums:
    """Forecast and measured seconds, added up by candidate and kind: as many numbers for ten thousand runs as for ten."""

    def __init__(self) -> None:
        self.by_name: dict[tuple[str, str], tuple[float, float, int]] = {}  # (candidate, kind) → said, taken, how many

    def add(self, said: RunForecast, taken: float, count: int = 1) -> None:
        """count: -1 takes away what was added before"""
        name = said.candidate, said.kind
        seconds, measured, number = self.by_name.get(name, (0.0, 0.0, 0))
        self.by_name[name] = seconds + count * said.seconds, measured + count * taken, number + count
        if not self.by_name[name][2]:
            del self.by_name[name]  # and with it what rounding has left

    def with_more(self, pairs: Iterable[tuple[RunForecast, float]]) -> _Sums:
        """These sums and those of more forecasts with what they took."""
        sums = _Sums()
        sums.by_name = dict(self.by_name)
        for said, taken in pairs:
            sums.add(said, taken)
        return sums

    def knows(self, forecast: RunForecast) -> bool:
        return (forecast.candidate, forecast.kind) in self.by_name

    def list_forecasts(self) -> list[RunForecast]:
        """One for each candidate and kind, of all its seconds."""
        return [RunForecast(*name, seconds) for name, (seconds, _, _) in self.by_name.items()]

    def find_ratio(self, forecast: RunForecast) -> float:
        """Measured by forecast seconds: of its candidate, else of its kind, else of all; 1 before anything is known."""
        if self.knows(forecast):
            alike = [(forecast.candidate, forecast.kind)]
        else:
            alike = [name for name in self.by_name if name[1] == forecast.kind] or list(self.by_name)
        said, taken = (sum(self.by_name[name][i] for name in alike) for i in (0, 1))
        return taken / said if alike else 1.0

    def sum_kinds(self) -> dict[str, tuple[float, float]]:
        """Kind → forecast and measured seconds."""
        sums: dict[str, tuple[float, float]] = {}
        for (_, kind), (said, taken, _) in self.by_name.items():
            before = sums.get(kind, (0.0, 0.0))
            sums[kind] = before[0] + said, before[1] + taken
        return sums


class TimeLeft:
    """Follows runs and estimates when all are done.

    clock: seconds, from any beginning
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.forecasts: dict[str, RunForecast] = {}
        self.left: set[str] = set()
        self.groups: dict[int, _Group] = {}
        self.waiting = _Sums()  # of the runs that are left and in no group
        self.spent = _Sums()  # of finished groups but the first
        self.first_spent: tuple[RunForecast, float] | None = None

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
            self._drop_group(event.worker)

    def add_forecasts(self, forecasts: Mapping[str, RunForecast]) -> None:
        """Of all missing runs; what is known already stays, as several processes forecast the same."""
        for key in forecasts.keys() - self.forecasts.keys():
            self.forecasts[key] = forecasts[key]
            self.left.add(key)
            self._count_waiting(key, 1)

    def begin_runs(self, worker: int, keys: Iterable[str]) -> None:
        """A process begins runs; what it computed before is finished, unless it begins that again."""
        known = tuple(key for key in keys if key in self.left)
        if worker in self.groups and not set(known).intersection(self.groups[worker].keys):
            self._close_group(worker)
        self._drop_group(worker)
        if known:
            self.groups[worker] = _Group(known, self.clock(), _sum_forecasts([self.forecasts[key] for key in known]))
            for key in known:
                self._count_waiting(key, -1)

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
        held = {key for group in self.groups.values() for key in group.keys}
        for key in self.left.intersection(keys):
            self.left.remove(key)
            if key not in held:
                self._count_waiting(key, -1)
        for worker, group in list(self.groups.items()):
            if not self.left.intersection(group.keys):
                self._close_group(worker)

    def estimate_seconds(self, workers: int = 1) -> float | None:
        """Seconds until all runs are done by this many processes; None where nothing is known."""
        if not self.left:
            return None
        measured = self._sum_measured()
        running = [self._estimate_group(group, measured) for group in self.groups.values()]
        waiting = sum(part.seconds * measured.find_ratio(part) for part in self.waiting.list_forecasts())
        return max([(waiting + sum(running)) / max(workers, len(running), 1), *running])

    def sum_by_kind(self) -> dict[str, tuple[float, float]]:
        """Kind of run → forecast and measured seconds of the runs that are finished."""
        sums = self._sum_spent().sum_kinds()
        sums.pop(PASS_KIND, None)  # whose networks' speeds are measured by themselves
        return sums

    def _sum_spent(self) -> _Sums:
        return self.spent.with_more([] if self.first_spent is None else [self.first_spent])

    def _count_waiting(self, key: str, sign: int) -> None:
        for part in _split_forecast(self.forecasts[key]):
            self.waiting.add(part, 0.0, sign)

    def _drop_group(self, worker: int) -> None:
        """What it held is not computed: it waits again."""
        if group := self.groups.pop(worker, None):
            for key in self.left.intersection(group.keys):
                self._count_waiting(key, 1)

    def _note_spent(self, said: RunForecast, taken: float) -> None:
        if self.first_spent is None:
            self.first_spent = said, taken
        else:
            self.spent.add(said, taken)

    def _close_group(self, worker: int) -> None:
        group, now = self.groups.pop(worker), self.clock()
        self.left.difference_update(group.keys)
        passes, rest = group.said
        in_passes = group.find_pass_seconds(now)
        self._note_spent(rest, now - group.began - in_passes)
        if group.passes and group.passes.done >= MIN_SHARE and passes.seconds:
            self._note_spent(replace(passes, seconds=passes.seconds * group.passes.done), in_passes)

    def _estimate_group(self, group: _Group, measured: _Sums) -> float:
        """Seconds until a group is done: of its passes by their own speed, of the rest as its candidate's other runs took."""
        passes, rest = group.said
        expected_passes, expected_rest = (part.seconds * measured.find_ratio(part) for part in (passes, rest))
        now, left = self.clock(), 0.0
        taken = now - group.began - group.find_pass_seconds(now)
        if group.passes is not None:
            by_itself = group.passes.find_left(now)
            left = (1 - group.passes.share) * expected_passes if by_itself is None else by_itself
        elif group.epochs is None:
            left = expected_passes
        if group.epochs is None:
            return left + _subtract_spent(expected_rest, taken)
        is_known = self._sum_spent().knows(rest)
        by_itself = None if is_known else group.epochs.find_left(now)
        return left + ((1 - group.epochs.share) * expected_rest if by_itself is None else by_itself)

    def _sum_measured(self) -> _Sums:
        """Of what was computed: finished groups, and the computed shares of those in progress."""
        first = self.first_spent
        more = [] if first is None or self.spent.knows(first[0]) else [first]  # it also pays for what a process loads once
        for group in self.groups.values():
            for progress, whole in zip((group.passes, group.epochs), group.said, strict=True):
                if progress and progress.done >= MIN_SHARE and whole.seconds:
                    said = replace(whole, seconds=whole.seconds * progress.done)
                    more.append((said, progress.find_seconds(self.clock())))
        return self.spent.with_more(more)


def _split_forecast(forecast: RunForecast) -> tuple[RunForecast, RunForecast]:
    """Its feature passes, which are a kind of their own, and the rest."""
    passes = RunForecast(forecast.candidate, PASS_KIND, forecast.pass_seconds)
    return passes, replace(forecast, seconds=forecast.seconds - forecast.pass_seconds, pass_seconds=0.0)


def _sum_forecasts(forecasts: Iterable[RunForecast]) -> tuple[RunForecast, RunForecast]:
    """Of the feature passes of runs that are computed together, and of the rest."""
    parts = [_split_forecast(forecast) for forecast in forecasts]
    passes, rest = (sum(each[i].seconds for each in parts) for i in (0, 1))
    return replace(parts[0][0], seconds=passes), replace(parts[0][1], seconds=max(rest, 1e-9))


def _subtract_spent(expected: float, spent: float) -> float:
    """What is left of an expected time; where that is over, a share of what it was exceeded by."""
    return max(expected - spent, OVERDUE_SHARE * (spent - expected))
