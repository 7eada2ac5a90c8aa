"""Which device a name means, whether this installation has it, and with how many threads the processor computes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from phoropter.core.errors import SpecError

_DEVICE_PATTERN = re.compile(r"cpu|mps|cuda(:\d+)?")


def resolve_device(name: str) -> torch.device:
    """`cpu`, `cuda`, `cuda:1`, `mps`, or `auto` (a GPU where there is one) → the device.

    Raises SpecError for another name, and for a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    if not _DEVICE_PATTERN.fullmatch(name):
        raise SpecError(f"device is '{name}', expected cpu, cuda, cuda:N, mps or auto; auto takes a GPU where there is one")
    if reason := _explain_absence(name):
        raise SpecError(f"device is '{name}', and {reason}; say cpu or auto")
    return torch.device(name)


def _explain_absence(name: str) -> str:
    """Why this installation cannot compute on a device; empty where it can."""
    if name == "mps":
        return "" if torch.backends.mps.is_available() else "this machine or this build of torch has no Apple GPU"
    if not name.startswith("cuda"):
        return ""
    if not torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        return f"this torch ({torch.__version__}) is built without CUDA"
    gpus = torch.cuda.device_count()
    if not gpus or not torch.cuda.is_available():
        return "no CUDA GPU is found"
    number = int(name.partition(":")[2] or 0)
    return "" if number < gpus else f"there {'is 1 CUDA GPU' if gpus == 1 else f'are {gpus} CUDA GPUs'}, counted from cuda:0"


def list_devices() -> tuple[str, ...]:
    """What `--device` takes on this machine, the processor first."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ("cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else []))


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Inside, torch computes with so many threads of the processor; behind it with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
