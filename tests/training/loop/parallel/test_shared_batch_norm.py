"""Batch norm over several processes equals batch norm over the whole batch: values, gradients, running statistics.

The processes are threads here, whose sums wait for each other.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from phoropter.training.loop.parallel.shared_batch_norm import SharedBatchNorm

torch.set_num_threads(1)


class Threads:
    """Sums over threads: each brings its tensors, waits for all, and takes the sum."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier = size, threading.Barrier(size)
        self.brought: dict[int, list[torch.Tensor]] = {}

    def sum_of(self, rank: int) -> Any:
        def sum_tensors(tensors: Sequence[torch.Tensor]) -> None:
            self.brought[rank] = [t.clone() for t in tensors]
            self.barrier.wait(20)
            sums = [sum(parts) for parts in zip(*(self.brought[r] for r in range(self.size)), strict=True)]
            self.barrier.wait(20)
            for tensor, total in zip(tensors, sums, strict=True):
                tensor.copy_(total)

        return sum_tensors


def run_in_threads(work: Any, size: int) -> list[Any]:
    found: list[Any] = [None] * size
    threads = [threading.Thread(target=lambda r=r: found.__setitem__(r, work(r))) for r in range(size)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm2d(3, momentum=0.3), (4, 4)),
        (nn.BatchNorm1d(3), ()),
        (nn.BatchNorm1d(3, momentum=None), (5,)),
        (nn.BatchNorm2d(3, affine=False), (2, 3)),
        (nn.BatchNorm2d(3, track_running_stats=False), (2, 3)),
    ],
    ids=["2d", "rows", "cumulative", "without weights", "without running statistics"],
)
@pytest.mark.parametrize("cuts", [[0, 3, 7], [0, 1, 1, 7], [0, 7, 7]], ids=["two", "three, one of them idle", "one of two idle"])
def test_it_equals_batch_norm_of_the_whole_batch(norm: nn.Module, shape: tuple[int, ...], cuts: list[int]) -> None:
    torch.manual_seed(0)
    x, slope = torch.randn(7, 3, *shape, dtype=torch.float64) * 2 + 5, torch.randn(7, 3, *shape, dtype=torch.float64)
    size, sums = len(cuts) - 1, Threads(len(cuts) - 1)

    def work(rank: int) -> Any:
        own = copy.deepcopy(norm).double()
        rows = slice(cuts[rank], cuts[rank + 1])
        counts = rows.stop > rows.start
        part = x[rows if counts else slice(0, 1)].clone().requires_grad_()
        with SharedBatchNorm(sums.sum_of(rank), rank, size, counts):
            out = own(part)
            (out * (slope[rows] if counts else 0)).sum().backward()
        return own, out, part.grad, counts

    found = run_in_threads(work, size)
    whole, given = copy.deepcopy(norm).double(), x.clone().requires_grad_()
    expected = whole(given)
    (expected * slope).sum().backward()
    assert given.grad is not None
    torch.testing.assert_close(torch.cat([out for _, out, _, counts in found if counts]), expected)
    torch.testing.assert_close(torch.cat([grad for *_, grad, counts in found if counts]), given.grad)
    assert all((grad == 0).all() for *_, grad, counts in found if not counts)
    for own, *_ in found:
        for name, value in own.named_buffers():  # running statistics, the same in each
            torch.testing.assert_close(value, whole.get_buffer(name))
    for name, parameter in whole.named_parameters():
        torch.testing.assert_close(sum(own.get_parameter(name).grad for own, *_ in found), parameter.grad)


def test_half_precision_goes_in_and_out_and_is_summed_in_float32() -> None:
    x = (torch.randn(8, 3, 4, 4) + 100).bfloat16()
    norm = nn.BatchNorm2d(3)
    with SharedBatchNorm(lambda tensors: None, 0, 1):
        out = norm(x)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), nn.BatchNorm2d(3)(x.float()), atol=0.02, rtol=0.01)
    torch.testing.assert_close(norm.running_mean, 0.1 * x.float().mean((0, 2, 3)))


def test_networks_that_predict_are_left_alone() -> None:
    def refuse(tensors: Sequence[torch.Tensor]) -> None:
        raise AssertionError("nothing is to be summed")

    norm, x = nn.BatchNorm2d(3).eval(), torch.randn(2, 3, 4, 4)
    with SharedBatchNorm(refuse, 0, 2):
        torch.testing.assert_close(norm(x), x / (1 + 1e-5) ** 0.5)
