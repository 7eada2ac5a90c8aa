"""One thread computes for all requests: squares that wait at the same time become one batch of the network.

A batch is what waits already; where other requests are being prepared it waits for them a few milliseconds, and a lone request
never waits. A request of many windows gives one batch after the other and never two at once, so that short requests come in
between. Whatever changes or reads a network's state (an explanation) runs in the same thread, alone.

A row's logits depend on its batch in their last bits (1e-6), as they do in any batch of a study.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from phoropter.data.images.pixels import InMemoryPixels
from phoropter.deploy.predictions import SquarePredictor

Answer = TypeVar("Answer")


def predict_in_few_sizes(compute: SquarePredictor, squares: NDArray[np.uint8], most: int) -> NDArray[np.float32]:
    """(N, 3, S, S) squares → (N, C) logits, in batches whose sizes are powers of two, at most a quarter of a batch being padding.

    oneDNN keeps kernels of each size that it has met: with all sizes to 32 a small network grew by 140 MiB, with these by 10.
    """
    parts, at = [], 0
    while at < len(squares):
        left = len(squares) - at
        size = 1 << (left.bit_length() - 1)
        if 3 * size <= 2 * left and 2 * size <= most:
            size *= 2
        piece = squares[at : at + size]
        padding = np.zeros((size - len(piece), *piece.shape[1:]), dtype=np.uint8)
        parts.append(compute(InMemoryPixels(np.concatenate([piece, padding])))[: len(piece)])
        at += len(piece)
    return np.concatenate(parts)


@dataclass(eq=False)
class _Waiting:
    """Squares for a network, or a function that runs alone; the future that its request awaits."""

    compute: Callable[..., Any]
    squares: NDArray[np.uint8] | None = None
    future: Future[Any] = field(default_factory=Future)

    @property
    def rows(self) -> int:
        return 0 if self.squares is None else len(self.squares)


class MicroBatcher:
    """Computes batches of at most `batch_rows` rows in a thread of its own.

    wait_s:   longest time a batch waits for requests that are being prepared
    on_batch: called with the rows of each batch, before it is computed
    """

    def __init__(self, batch_rows: int, wait_s: float, on_batch: Callable[[int], object] = lambda rows: None) -> None:
        self.batch_rows, self.wait_s, self.on_batch = batch_rows, wait_s, on_batch
        self._queue: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._preparing, self._stopped = 0, False
        self._thread = threading.Thread(target=self._work, name="predict", daemon=True)

    def start_thread(self) -> None:
        """Begins to compute."""
        self._thread.start()

    def stop_thread(self) -> None:
        """Ends after the batch that is computed now; what still waits is cancelled."""
        with self._changed:
            self._stopped = True
            while self._queue:
                self._queue.popleft().future.cancel()
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(30)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive() and not self._stopped

    @property
    def n_waiting(self) -> int:
        """Pieces that are not yet computed."""
        return len(self._queue)

    @contextmanager
    def expect_squares(self) -> Iterator[None]:
        """While a request is prepared whose squares come next: a batch waits for it a moment."""
        self._preparing += 1
        try:
            yield
        finally:
            self._preparing -= 1

    async def predict_squares(self, compute: SquarePredictor, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 3, S, S) squares → (N, C) logits, in pieces of at most `batch_rows` rows. Cancelling drops what waits."""
        parts = []
        for start in range(0, len(squares), self.batch_rows):
            parts.append(await self._wait_for(_Waiting(compute, squares[start : start + self.batch_rows])))
        return np.concatenate(parts)

    async def run_alone(self, compute: Callable[[], Answer]) -> Answer:
        """The answer of a function that runs in the thread of the networks."""
        answer: Answer = await self._wait_for(_Waiting(compute))
        return answer

    async def _wait_for(self, waiting: _Waiting) -> Any:
        with self._changed:
            if self._stopped:
                raise RuntimeError("the server has stopped")
            self._queue.append(waiting)
            self._changed.notify()
        return await asyncio.wrap_future(waiting.future)

    def _work(self) -> None:
        while batch := self._take_batch():
            wanted = [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()]
            if wanted:
                self._compute_batch(wanted)

    def _take_batch(self) -> list[_Waiting]:
        """What is computed next: a function alone, or squares of one network. Empty when the server stops."""
        with self._changed:
            while not self._queue and not self._stopped:
                self._changed.wait()
            if self._stopped:
                return []
            first = self._queue.popleft()
            batch, until = [first], time.monotonic() + self.wait_s
            while first.squares is not None:
                batch += self._pop_matching(first, self.batch_rows - sum(waiting.rows for waiting in batch))
                left = until - time.monotonic()
                full = sum(waiting.rows for waiting in batch) >= self.batch_rows
                if full or left <= 0 or not self._preparing or self._stopped:
                    break
                self._changed.wait(left)
        return batch

    def _pop_matching(self, first: _Waiting, room: int) -> list[_Waiting]:
        """Those that wait for the same network and fit into a batch, in order; the others stay in their order."""
        found: list[_Waiting] = []
        kept: deque[_Waiting] = deque()
        for waiting in self._queue:
            if waiting.compute is first.compute and waiting.squares is not None and waiting.rows <= room:
                found.append(waiting)
                room -= waiting.rows
            else:
                kept.append(waiting)
        self._queue = kept
        return found

    def _compute_batch(self, batch: list[_Waiting]) -> None:
        """Sets the futures: to the answers, or all to what was raised."""
        try:
            if batch[0].squares is None:
                batch[0].future.set_result(batch[0].compute())
                return
            squares = [waiting.squares for waiting in batch if waiting.squares is not None]
            self.on_batch(sum(map(len, squares)))
            logits = predict_in_few_sizes(batch[0].compute, np.concatenate(squares), self.batch_rows)
            stops = np.cumsum([len(part) for part in squares])
            for waiting, part in zip(batch, np.split(logits, stops[:-1]), strict=True):
                waiting.future.set_result(part)
        except BaseException as error:  # a request must never wait for an answer that cannot come
            for waiting in batch:
                if not waiting.future.done():
                    waiting.future.set_exception(error)
