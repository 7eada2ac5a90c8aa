"""Which GPU each worker process computes on: `--devices 0-7 --per-device 2` → the CUDA_VISIBLE_DEVICES of each process.

Each process sees its own GPU alone and calls it `cuda:0`, so that nothing it loads can allocate on another one. Numbers count the
GPUs that this process may see: where CUDA_VISIBLE_DEVICES is `4,5`, `--devices 1` is GPU 5.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from phoropter.core.errors import SpecError

VARIABLE = "CUDA_VISIBLE_DEVICES"


def assign_gpus(devices: str, per_device: int, visible: Sequence[str]) -> tuple[str, ...]:
    """The CUDA_VISIBLE_DEVICES of each worker: every GPU once, then every GPU again until each has `per_device` workers.

    devices: `all`, or numbers and ranges as in `0-3,6` · visible: name of each GPU that is there, by its number
    Raises SpecError for a list that is none, for a GPU named twice, and for one that is not there.
    """
    if per_device < 1:
        raise SpecError(f"--per-device is {per_device}, expected at least 1")
    if not visible:
        raise SpecError(
            f"--devices {devices}: no CUDA device is there, and this machine computes on its processor; use -j N for N processes"
        )
    numbers = list(range(len(visible))) if devices.strip() == "all" else _parse_numbers(devices)
    if absent := [number for number in numbers if number >= len(visible)]:
        there = "GPU 0 is" if len(visible) == 1 else f"GPUs 0 to {len(visible) - 1} are"
        raise SpecError(f"--devices {devices}: GPU {absent[0]} is not there; {there}")
    return tuple(visible[number] for _ in range(per_device) for number in numbers)


def list_visible_gpus() -> list[str]:
    """Name of each GPU that torch sees, by its number, as CUDA_VISIBLE_DEVICES spells it; empty where there is none."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    return (named or [str(number) for number in range(count)])[:count]


def _parse_numbers(devices: str) -> list[int]:
    numbers: list[int] = []
    for part in devices.split(","):
        found = re.fullmatch(r"\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*", part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if first > last:
            raise SpecError(f"--devices is '{devices}', expected numbers of GPUs such as 0-7 or 0,2, or all")
        numbers += range(first, last + 1)
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise SpecError(f"--devices {devices} names GPU {twice[0]} twice: use --per-device for several processes on each")
    return numbers
