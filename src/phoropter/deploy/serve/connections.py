"""Connections that do nothing are closed, so that a few clients cannot hold all of them.

uvicorn ends a connection that is silent after an answer. It waits for ever for the rest of a first header that comes letter by
letter, and for a client that does not read its answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_S = 15.0  # within which the header of a request must be there, from the connection or the last answer on
STALLED_S = 60.0  # that an answer waits for a client which reads nothing of it
_LOOKS = 4  # in IDLE_S


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with a bound on what is waited for."""

    idle_s, stalled_s = IDLE_S, STALLED_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seen: Any = None
        self._since = self.loop.time()
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._timer = self.loop.call_later(self.idle_s / _LOOKS, self._close_if_idle)

    def _close_if_idle(self) -> None:
        computing = self.cycle is not None and not self.cycle.response_complete
        unread = self.transport.get_write_buffer_size()
        state, now = (self.cycle, computing, unread), self.loop.time()
        if state != self._seen:
            self._seen, self._since = state, now if self._seen is not None else self._since
        longest = self.stalled_s if unread else float("inf") if computing else self.idle_s
        if now - self._since >= longest:
            self.transport.abort()
        else:
            self._look_later()
