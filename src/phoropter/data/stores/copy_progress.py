"""How far the copy of data from a store is, told in a line now and then: a bar would stand in the way of that of a study."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from phoropter.core.durations import format_duration
from phoropter.core.files import format_bytes
from phoropter.core.storage.checksums import print_notice

FIRST_S = 10.0  # until the first line; each later one after a tenth of the time so far, so that a long copy fills no log


class CopyProgress:
    """Counts bytes that several threads have fetched, and tells them.

    total: bytes that there are to fetch · clock: seconds
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.clock = total, clock
        self.done = 0
        self.began = clock()
        self.due = self.began + FIRST_S
        self.lock = threading.Lock()

    def add_bytes(self, count: int) -> None:
        """Counts bytes that were written, and prints a line if it is time."""
        with self.lock:
            self.done += count
            now = self.clock()
            if now < self.due or self.done >= self.total:
                return
            took = now - self.began
            self.due = now + max(FIRST_S, took / 10)
            left = format_duration(took * (self.total - self.done) / self.done)
            part = f"{format_bytes(self.done)} of {format_bytes(self.total)} ({100 * self.done // self.total} %)"
        print_notice(f"copied {part}, about {left} left")
