"""Batches across requests: who computes with whom, in what order, and what becomes of those that are given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from phoropter.data.images.pixels import Pixels
from phoropter.deploy.serve.batching import MicroBatcher, predict_in_few_sizes


class Network:
    """Answers each square by its mean, and notes the batches it was given. gate: that the first batch waits for."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.batches: list[int] = []
        self.gate, self.entered = gate, threading.Event()

    def __call__(self, pixels: Pixels) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        self.entered.set()
        if self.gate is not None:
            assert self.gate.wait(30)
        return pixels.array.mean((1, 2, 3), dtype=np.float32)[:, None]


def squares(*values: int) -> NDArray[np.uint8]:
    return np.stack([np.full((3, 2, 2), value, np.uint8) for value in values])


@contextmanager
def working(rows: int, wait_s: float = 0.0) -> Iterator[MicroBatcher]:
    batcher = MicroBatcher(rows, wait_s)
    batcher.start_thread()
    try:
        yield batcher
    finally:
        batcher.stop_thread()
        assert not batcher.is_running


def test_requests_that_wait_together_become_one_batch_and_each_gets_its_own() -> None:
    gate = threading.Event()
    network = Network(gate)

    async def ask(batcher: MicroBatcher) -> list[Any]:
        first = asyncio.create_task(batcher.predict_squares(network, squares(9)))
        await asyncio.to_thread(network.entered.wait, 30)
        others = [asyncio.create_task(batcher.predict_squares(network, squares(*v))) for v in ((1,), (2, 3), (4,), (5, 6, 7))]
        while batcher.n_waiting < 4:
            await asyncio.sleep(0.001)
        gate.set()
        return await asyncio.gather(first, *others)

    with working(rows=5) as batcher:
        answers = asyncio.run(ask(batcher))
    assert [a[:, 0].tolist() for a in answers] == [[9], [1], [2, 3], [4], [5, 6, 7]]
    assert network.batches == [1, 4, 4], "the last does not fit into the batch of the others, and its 3 are filled up to 4"


def test_a_batch_waits_for_a_request_that_is_being_prepared_and_a_lone_one_does_not() -> None:
    network = Network()

    async def ask(batcher: MicroBatcher) -> None:
        await asyncio.wait_for(batcher.predict_squares(network, squares(1)), 20)  # at once, not after a minute
        with batcher.expect_squares():
            first = asyncio.create_task(batcher.predict_squares(network, squares(2)))
            await asyncio.sleep(0.05)
            second = asyncio.create_task(batcher.predict_squares(network, squares(3, 4, 5)))
            await asyncio.gather(first, second)

    with working(rows=4, wait_s=60) as batcher:
        asyncio.run(ask(batcher))
    assert network.batches == [1, 4]


@pytest.mark.parametrize("most", [32, 20, 1])
def test_batches_have_few_sizes_and_every_row_its_own_answer(most: int) -> None:
    network = Network()
    for count in range(1, most + 1):
        given = squares(*range(count))
        assert predict_in_few_sizes(network, given, most)[:, 0].tolist() == list(range(count))
        sizes, network.batches = network.batches, []
        assert all(size & (size - 1) == 0 and size <= most for size in sizes)
        assert count <= sum(sizes) <= 4 / 3 * count + 1e-9


def test_a_long_request_lets_short_ones_in_between() -> None:
    gate = threading.Event()
    network = Network(gate)
    ends: list[str] = []

    async def ask(batcher: MicroBatcher) -> None:
        async def one(name: str, given: NDArray[np.uint8]) -> None:
            await batcher.predict_squares(network, given)
            ends.append(name)

        long = asyncio.create_task(one("long", squares(*range(20))))
        await asyncio.to_thread(network.entered.wait, 30)
        short = asyncio.create_task(one("short", squares(1)))
        while batcher.n_waiting < 1:
            await asyncio.sleep(0.001)
        gate.set()
        await asyncio.gather(long, short)

    with working(rows=2) as batcher:
        asyncio.run(ask(batcher))
    assert ends == ["short", "long"] and sum(network.batches) == 21 and max(network.batches) == 2


def test_networks_are_not_mixed_and_functions_run_alone_in_the_same_thread() -> None:
    gate = threading.Event()
    one, other = Network(gate), Network()

    async def ask(batcher: MicroBatcher) -> list[Any]:
        first = asyncio.create_task(batcher.predict_squares(one, squares(1)))
        await asyncio.to_thread(one.entered.wait, 30)
        rest = [batcher.predict_squares(n, squares(2)) for n in (one, other, one)]
        tasks = [asyncio.create_task(t) for t in (*rest, batcher.run_alone(lambda: threading.current_thread().name))]
        while batcher.n_waiting < 4:
            await asyncio.sleep(0.001)
        gate.set()
        return await asyncio.gather(first, *tasks)

    with working(rows=8) as batcher:
        assert asyncio.run(ask(batcher))[-1] == "predict"
    assert one.batches == [1, 2] and other.batches == [1]


def test_what_a_network_raises_reaches_every_request_of_its_batch_and_the_next_one_is_computed() -> None:
    def broken(pixels: Pixels) -> NDArray[np.float32]:
        raise ValueError("no such layer")

    async def ask(batcher: MicroBatcher) -> list[Any]:
        bad = await asyncio.gather(*(batcher.predict_squares(broken, squares(1)) for _ in range(2)), return_exceptions=True)
        return [*bad, await batcher.predict_squares(Network(), squares(7))]

    with working(rows=4) as batcher:
        first, second, good = asyncio.run(ask(batcher))
    assert isinstance(first, ValueError) and isinstance(second, ValueError) and good.tolist() == [[7]]


def test_a_request_that_is_given_up_is_not_computed() -> None:
    gate = threading.Event()
    network = Network(gate)

    async def ask(batcher: MicroBatcher) -> None:
        first = asyncio.create_task(batcher.predict_squares(network, squares(1)))
        await asyncio.to_thread(network.entered.wait, 30)
        second = asyncio.create_task(batcher.predict_squares(network, squares(2, 3)))
        while batcher.n_waiting < 1:
            await asyncio.sleep(0.001)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.set()
        await first
        await batcher.predict_squares(network, squares(4))

    with working(rows=4) as batcher:
        asyncio.run(ask(batcher))
    assert network.batches == [1, 1]


def test_after_the_end_nothing_waits_for_ever() -> None:
    with working(rows=4) as batcher:
        pass

    async def ask() -> None:
        await batcher.predict_squares(Network(), squares(1))

    with pytest.raises(RuntimeError, match="has stopped"):
        asyncio.run(ask())
