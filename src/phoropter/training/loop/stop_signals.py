"""Stopping on request: the first SIGINT, SIGTERM or SIGHUP ends a study at the next safe point, a second one at once.

    with handle_stop_signals():              # once a process, in its main thread
        ...                                  # a signal raises StopRequest here
        with defer_stop(save) as requests:   # here it calls `save`; the code inside ends when it suits, GRACE_S at most
            ...

StopRequest is a KeyboardInterrupt, so that no `except Exception` takes it for a failed run.

Left out: Windows' own console events but Ctrl-C, which Python delivers as SIGINT.
"""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
GRACE_S = 5.0  # what a deferred stop may take; then it is raised wherever the code is


class StopRequest(KeyboardInterrupt):
    """Somebody asked the process to stop, by a signal of this number."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(f"stopped by {self.cause}")

    @property
    def cause(self) -> str:
        """What asked, in words: the name of the signal."""
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP, as shells count."""
        return 128 + self.number


class BudgetSpent(StopRequest):
    """The time that a study may take is over, and it has stopped as after SIGTERM. budget: in words"""

    def __init__(self, budget: str) -> None:
        self.budget = budget
        super().__init__(signal.SIGTERM)

    @property
    def cause(self) -> str:
        return f"the budget of {self.budget}"


class _StopHandler:
    """What the process does with signals: raises StopRequest, or tells the innermost deferral."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self.deferrals: list[tuple[Callable[[], None], list[int], float | None]] = []
        self.timer: threading.Timer | None = None
        self.closed = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.closed:
            return
        if self.requested is not None:
            raise StopRequest(self.requested)
        self.requested = number
        if not self.deferrals:
            self._raise_later(GRACE_S)  # once more, should the first be lost in a destructor, which swallows exceptions
            raise StopRequest(number)
        on_request, requests, grace_s = self.deferrals[-1]
        requests.append(number)
        if grace_s is not None:
            self._raise_later(grace_s)
        on_request()

    def _raise_later(self, seconds: float) -> None:
        self.timer = threading.Timer(seconds, signal_main_thread, [self.requested])
        self.timer.daemon = True
        self.timer.start()

    def close(self) -> None:
        """Lets no later signal of the timer reach whoever handles signals next."""
        self.closed = True
        if self.timer is not None:
            self.timer.cancel()
            self.timer.join()

    def reopen(self) -> None:
        """Forgets a request; the next signal is the first."""
        self.close()
        self.requested, self.timer, self.closed = None, None, False


_handler: _StopHandler | None = None  # signals belong to the process, and so does this


@contextmanager
def handle_stop_signals(names: Sequence[str] = STOP_SIGNALS) -> Iterator[None]:
    """Within it, signals that ask to stop raise StopRequest. Inside another, or outside the main thread, it does nothing.

    names: of the signals; those that the system lacks are left out
    A handler of SIGTERM or SIGHUP that somebody else has set stays, as does `nohup`.
    """
    global _handler
    if _handler is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _handler = _StopHandler()
    before: dict[int, Any] = {}
    try:
        for number in _list_free_signals(names):
            before[number] = signal.signal(number, _handler)
        yield
    finally:
        _handler.close()
        for number, earlier in before.items():
            signal.signal(number, earlier)
        _handler = None


def _list_free_signals(names: Sequence[str]) -> Iterator[int]:
    for name in names:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        current = None if number is None else signal.getsignal(number)
        # SIGINT in any case: a script that starts us in the background has it ignored, and may ask by SIGINT all the same
        if number is not None and current is not None and (name == "SIGINT" or current is signal.SIG_DFL):
            yield number


@contextmanager
def defer_stop(on_request: Callable[[], None], grace_s: float | None = GRACE_S) -> Iterator[list[int]]:
    """Within it, the first signal calls `on_request` and is added to the list that is yielded; leaving it raises StopRequest.

    grace_s: seconds after which StopRequest is raised inside; None: never. A second signal raises it at once.
    Outside the main thread nothing is deferred: whoever started the thread handles signals.
    """
    requests: list[int] = []
    with handle_stop_signals():
        handler = _handler if threading.current_thread() is threading.main_thread() else None
        if handler is None:
            yield requests
            return
        handler.deferrals.append((on_request, requests, grace_s))
        try:
            yield requests
        except Exception as error:
            if requests:  # else the request would be lost with the run that failed
                raise StopRequest(requests[0]) from error
            raise
        finally:
            handler.deferrals.pop()
        if requests:
            raise StopRequest(requests[0])


def forget_stop_request() -> None:
    """Takes back a request that was obeyed, in a process that has more to do: the next signal asks anew."""
    if _handler is not None:
        _handler.reopen()


def stop_this_process() -> None:
    """Asks this process to stop as SIGTERM would; called in another thread. Nothing happens where it handles no stop signals."""
    if _handler is not None:
        signal_main_thread(signal.SIGTERM)


def signal_main_thread(number: int | None) -> None:
    """Sends a signal to the main thread of this process, also where it waits in a system call; called in another thread."""
    main = threading.main_thread().ident
    if number is None or main is None:
        return
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, number)
    else:  # Windows
        _thread.interrupt_main(signal.Signals(number))
