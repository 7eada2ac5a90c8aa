"""How many cores this process may use, and of which processor. In a container or a batch system: fewer than there are.

joblib.cpu_count() answers the same question, but importing joblib takes 0.5 s, which `phoropter --help` would pay (this: 0.05 s,
measured in November 2026), and it rounds a quota of 1.5 cores up.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def count_usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores this process is bound to, but no more than the processor time its container is given, and at least one.

    In a job of SLURM no more than a task has asked for (`--cpus-per-task`): under `task/none` nothing binds it to them.
    quota: `cpu.max` of a control group: microseconds of processor time and the period they are for, or `max`. Version 1 has two
    files for it in the folder `cpu` beside it, and -1 where there is no quota
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if "SLURM_JOB_ID" in os.environ and asked.isdecimal():
        bound = max(1, min(bound, int(asked)))
    try:
        if quota.exists():
            given, period = quota.read_text().split()[:2]
        else:
            given, period = ((quota.parent / "cpu" / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return bound if given in ("max", "-1") else max(1, min(bound, int(given) // int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return bound


def count_default_threads() -> int:
    """Threads that torch computes with unless it is told: as many as OMP_NUM_THREADS says, but no more than the usable cores."""
    given, cores = os.environ.get("OMP_NUM_THREADS", ""), count_usable_cores()
    return min(cores, int(given)) if given.isdecimal() and int(given) else cores


def read_processor_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """The model of the processor, as the system tells it."""
    try:
        lines = info.read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
