"""A budget of time: when it is spent, a study stops as on SIGTERM, with a checkpoint of the run in hand. No torch here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from phoropter.core.durations import format_duration, parse_duration
from phoropter.core.errors import SpecError
from phoropter.study.progress import ProgressCallback, ProgressEvent
from phoropter.training.loop.stop_signals import BudgetSpent, StopRequest, forget_stop_request, stop_this_process

LOOK_INTERVAL_S = 0.5  # how often the clock is read where no event comes


class TimeBudget:
    """Seconds that studies may take together, from the moment this object is made.

    clock: seconds, from any beginning
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not seconds > 0:
            raise SpecError(f"budget: {seconds:g} s came, expected more than 0")
        self.seconds, self.clock, self.began = seconds, clock, clock()
        self.is_spent = False

    @classmethod
    def from_words(cls, words: str | float) -> TimeBudget:
        """Of `3h`, `90min`, `1h30min`, or a number of seconds. Raises SpecError for anything else."""
        try:
            return cls(parse_duration(words) if isinstance(words, str) else float(words))
        except ValueError as error:
            raise SpecError(f"budget: {error}") from None

    @contextmanager
    def watch_study(self, on_progress: ProgressCallback) -> Iterator[ProgressCallback]:
        """Within it, the process is asked to stop when the budget is spent; leaving it then raises BudgetSpent.

        Yields the callback for the study's events, each of which looks at the clock too. Raises SpecError outside the main
        thread, which alone can be asked to stop.
        """
        if threading.current_thread() is not threading.main_thread():
            raise SpecError("budget: a study can be stopped in the main thread of a process alone; leave it out, or run it there")
        ended = threading.Event()

        def follow_event(event: ProgressEvent) -> None:
            on_progress(event)
            self._stop_if_spent()

        def watch_clock() -> None:
            while not ended.wait(LOOK_INTERVAL_S):
                self._stop_if_spent()

        watcher = threading.Thread(target=watch_clock, name="budget", daemon=True)
        watcher.start()
        try:
            try:
                yield follow_event
            finally:
                ended.set()
                watcher.join()
        except StopRequest:
            if not self.is_spent:
                raise
            forget_stop_request()  # it was obeyed, and what is finished is reported next
            raise BudgetSpent(format_duration(self.seconds)) from None

    def _stop_if_spent(self) -> None:
        if not self.is_spent and self.clock() - self.began >= self.seconds:
            self.is_spent = True
            stop_this_process()
