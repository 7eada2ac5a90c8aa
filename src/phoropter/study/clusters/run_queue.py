"""Hands out the runs of a plan whose needs are done, whoever computes them, until every run is done or has failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Protocol

from phoropter.core.errors import RunError
from phoropter.results.store import Store
from phoropter.study.compute import is_batched, make_batch_key
from phoropter.study.plan import Plan, PlannedRun
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.study.records.run_record import describe_failure
from phoropter.study.scheduling.run_order import order_by_folds

MAX_LOSSES = 3  # processes that a run may cost: it is begun again twice, as by the supervisor of this machine's workers


class TaskLauncher(Protocol):
    """Starts tasks somewhere. A task ends when each of its runs is in the results folder or has a note why it failed."""

    def start_task(self, keys: frozenset[str]) -> Any:
        """Starts a task for these runs; returns something hashable that stands for it."""

    def wait_for_any(self, tasks: list[Any]) -> list[Any]:
        """Those of the tasks that have ended; returns after a moment at most."""

    def collect_loss(self, task: Any) -> str | None:
        """How the process of an ended task was lost, in words; None where it was not. Raises what the task raised."""


class RunQueue:
    """The runs of one study on their way."""

    def __init__(
        self, planned: Plan, store: Store, launcher: TaskLauncher, on_progress: ProgressCallback, folds_first: bool = False
    ) -> None:
        """folds_first: as in ComputeOptions"""
        self.planned, self.store, self.launcher, self.on_progress = planned, store, launcher, on_progress
        missing = planned.missing_runs(store)
        in_order = order_by_folds(planned, missing) if folds_first else missing
        self.missing: dict[str, PlannedRun] = {run.key: run for run in in_order}
        self.running: dict[Any, frozenset[str]] = {}
        self.failed: dict[str, str] = {}  # key → why
        self.losses: Counter[str] = Counter()

    def compute_all(self, requests: list[int]) -> None:
        """Returns when every run is done or has failed, or when `requests` holds a signal that asked this process to stop.

        Raises what a task raises: it would stop a study in this process too.
        """
        while not requests:
            self._fail_orphans()
            for keys in self._group_ready():
                self._tell("start", sorted(keys))
                self.running[self.launcher.start_task(keys)] = keys
            if not self.running:
                return
            for task in self.launcher.wait_for_any(list(self.running)):
                self._settle(self.running.pop(task), self.launcher.collect_loss(task))

    def _group_ready(self) -> list[frozenset[str]]:
        """Keys of runs that wait for nothing and are in no task; those of one batch together."""
        busy = frozenset[str]().union(*self.running.values())
        groups: dict[str, set[str]] = {}
        for key, run in self.missing.items():
            if key not in busy and all(needed in self.store for needed in run.needs):
                groups.setdefault(make_batch_key(run) if is_batched(run) else key, set()).add(key)
        return [frozenset(keys) for keys in groups.values()]

    def _settle(self, keys: frozenset[str], loss: str | None) -> None:
        """Notes which runs of an ended task are done, which have failed, and which are begun again."""
        notes = self.store.read_failures()
        for key in sorted(keys):
            run = self.missing[key]
            if key in self.store:
                del self.missing[key]
                self._tell("done", [key], self.store.run(key).record["metrics"], run)
            elif loss is None:
                self._give_up(run, str(notes.get(key, {}).get("error", "it left no note")))
            else:
                self.losses[key] += 1
                if self.losses[key] >= MAX_LOSSES:
                    self._record_failure(run, f"the process that computed it was lost {MAX_LOSSES} times: {loss}")
                else:
                    self._tell("lost", [key], {"error": f"a process was lost ({loss}); {run.title}: begun again"})

    def _fail_orphans(self) -> None:
        """Fails the runs whose teacher or member has failed, and those that need them."""
        while orphans := [(run, key) for run in self.missing.values() for key in run.needs if key in self.failed]:
            run, key = orphans[0]
            self._record_failure(run, f"what it needs, {self.planned.by_key[key].title}, failed: {self.failed[key]}")

    def _record_failure(self, run: PlannedRun, words: str) -> None:
        self.store.record_failure(run.key, describe_failure(run, RunError(words)))
        self._give_up(run, words)

    def _give_up(self, run: PlannedRun, words: str) -> None:
        del self.missing[run.key]
        self.failed[run.key] = words
        self._tell("failed", [run.key], {"error": words}, run)

    def _tell(self, kind: str, keys: Iterable[str], note: dict[str, Any] | None = None, run: PlannedRun | None = None) -> None:
        keys, total = tuple(keys), len(self.planned.runs)
        title = (run or self.missing[keys[0]]).title
        done = total - len(self.missing) - len(self.failed)
        self.on_progress(ProgressEvent(kind, title, done, total, note or {}, keys))
