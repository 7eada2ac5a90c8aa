"""How many cores this process may use, which in a container or under a batch system are fewer than the machine has."""

from __future__ import annotations

import os
from pathlib import Path


def count_usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many cores this process may use: those it is bound to, and no more than its container is given time for.

    quota: `cpu.max` of a control group of version 2: microseconds of processor time in a period of so many, or `max`
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        given, period = quota.read_text().split()[:2]
        return bound if given == "max" else max(1, min(bound, int(given) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return bound
