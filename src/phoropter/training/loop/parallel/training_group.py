"""TrainingGroup: processes that train one network together, each on its share of every batch.

The first process leads: it decides what is trained, validates, saves and writes; the others add their shares of the gradients.
What the host must know travels between processors by gloo, so that no GPU is waited for: before each batch and after each
backward pass all agree whether to go on. An error in one process therefore ends the run in all, and none waits for ever.

Left out: sums that overlap with the backward pass, as torch's DistributedDataParallel has them.
"""

from __future__ import annotations

import atexit
import enum
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from phoropter.core.errors import RunError, SpecError, cut_message
from phoropter.core.storage.checksums import print_notice
from phoropter.training.loop.stop_signals import StopRequest

BUCKET_BYTES = 64 * 1024**2  # gradients that are summed in one message
_PATIENCE = timedelta(days=30)  # while the first computes features; that a process has died is noticed at once all the same

Found = TypeVar("Found")


class Standing(enum.IntEnum):
    """How a process stands when all meet; the highest counts for all."""

    FINE = 0
    SHORT_OF_MEMORY = 1
    LEFT = 2


@dataclass(frozen=True)
class Dismissal:
    """The first process says that a study is over. reason: the error by which it ended, in words"""

    reason: str | None


class TrainingGroup:
    """This process among those of one training.

    rank: its number from 0, the one that leads · size: how many there are · device: it computes on
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        self.is_broken = False  # whether the others cannot be reached, or wait for what does not come
        self.is_busy = False  # whether it trains now
        self._parted = False  # whether the training has ended early for all

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    def find_share(self, rows: int) -> slice:
        """Which of the rows of a batch are this process's: consecutive ones, as many as the others have or one more."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    # ------------------------------------------------------------------------------------------------------------- agreement

    def begin_training(self) -> None:
        """To be called before the first meeting of each training."""
        self._parted = False

    def meet(self, standing: Standing = Standing.FINE, reason: str = "") -> Standing:
        """Waits for all; returns the highest standing. Raises RunError where another process left. reason: why this one leaves"""
        highest = Standing(self._exchange(lambda: _take_highest(int(standing))))
        if highest < Standing.LEFT:
            return highest
        self._parted = True
        reasons: list[Any] = [None] * self.size
        self._exchange(lambda: dist.all_gather_object(reasons, reason))
        if standing < Standing.LEFT:
            told = next((f": process {i} says {words}" for i, words in enumerate(reasons) if words), "")
            raise RunError(f"another process left this training{told}")
        return highest

    def part(self, error: BaseException) -> None:
        """Tells the others at their next meeting that this process trains no further, and why; nothing where they know."""
        if not self._parted:
            self.meet(Standing.LEFT, cut_message(error) if isinstance(error, Exception) else "")

    def give_up(self, error: BaseException) -> StopRequest:
        """What to raise after an error at which the others cannot be met: all end, and nothing that was saved is lost."""
        self.break_off()
        print_notice(
            f"process {self.rank} of {self.size} cannot go on with the others ({cut_message(error)}): all of them end, and the "
            "same command goes on from the last checkpoint"
        )
        return StopRequest(signal.SIGTERM)

    def break_off(self) -> None:
        """To be called where this process is about to end while the others wait for it, who notice."""
        self.is_broken = self._parted = True

    def dismiss(self, error: BaseException | None = None) -> None:
        """To be called by the first process at the end of a study; those that wait for a message get a Dismissal.

        error: by which it ended
        """
        if not self.is_broken:
            self.send_message(Dismissal(None if error is None else f"{cut_message(error)} ({type(error).__name__})"))

    def close(self) -> None:
        """To be called at the end of the process."""
        if not self.is_broken:
            dist.destroy_process_group()

    # -------------------------------------------------------------------------------------------------------------- messages

    def send_message(self, message: Any) -> None:
        """Gives all others an object, which `receive_message` returns; called by the first process alone."""
        self._broadcast(message)

    def receive_message(self) -> Any:
        """Waits for what the first process sends."""
        return self._broadcast(None)

    def _broadcast(self, message: Any) -> Any:
        held = [message]
        self._exchange(lambda: dist.broadcast_object_list(held, src=0, device=torch.device("cpu")))
        return held[0]

    def sum_tensors(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces each tensor by its sum over all processes, which is the same bits in each; small ones travel together."""
        for bucket in _fill_buckets(tensors):
            flat = torch.cat([t.reshape(-1) for t in bucket]) if len(bucket) > 1 else bucket[0].contiguous().view(-1)
            self._exchange(lambda flat=flat: dist.all_reduce(flat))  # type: ignore[misc]
            for tensor, summed in zip(bucket, torch.split(flat, [t.numel() for t in bucket]), strict=True):
                tensor.copy_(summed.view(tensor.shape))

    def _exchange(self, call: Callable[[], Found]) -> Found:
        try:
            return call()
        except RuntimeError as error:  # of torch.distributed: a process is gone
            raise self.give_up(error) from error


def _take_highest(number: int) -> int:
    highest = torch.tensor(number)
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    return int(highest)


def _fill_buckets(tensors: Sequence[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Tensors of one type in lists of at most BUCKET_BYTES, larger ones alone; in an order that is the same in each process."""
    buckets: list[list[torch.Tensor]] = []
    of_type: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)
    room: dict[torch.dtype, int] = defaultdict(int)
    for tensor in tensors:
        if tensor.nbytes > room[tensor.dtype]:
            of_type[tensor.dtype] = []
            buckets.append(of_type[tensor.dtype])
            room[tensor.dtype] = BUCKET_BYTES
        of_type[tensor.dtype].append(tensor)
        room[tensor.dtype] -= tensor.nbytes
    return buckets


# ------------------------------------------------------------------------------------------------------------------- torchrun


_met: list[TrainingGroup] = []  # the group of this process, once it has met the others


def meet_group(device: str) -> TrainingGroup:
    """The group of this process, which is joined at the first call and left when the process ends.

    Raises what `join_group` raises, SpecError for another device than before, and RunError where the others were lost before.
    """
    if not _met:
        _met.append(join_group(device))
        atexit.register(_met[0].close)
    group = _met[0]
    if group.is_broken:
        raise RunError("a process of torchrun was lost in an earlier study: start all of them again")
    if device not in ("auto", group.device.type):
        raise SpecError(f"device is '{device}', and the processes of torchrun have met on {group.device.type}: say auto")
    return group


def join_group(device: str) -> TrainingGroup:
    """Meets the other processes of torchrun. device: `auto`, `cpu` or `cuda`; each process takes the GPU of its own number.

    Raises SpecError for another device, and where there are fewer GPUs than processes on this machine.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise SpecError(f"device is '{device}', and torchrun gives each process the GPU of its number: say auto, cuda or cpu")
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    number, here = int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if on_gpu and torch.cuda.device_count() < here:
        raise SpecError(
            f"torchrun starts {here} processes on this machine, which has {torch.cuda.device_count()} CUDA GPUs: lower "
            "--nproc-per-node, or say --device cpu"
        )
    place = torch.device(f"cuda:{number}") if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(place)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    return TrainingGroup(dist.get_rank(), dist.get_world_size(), place)
