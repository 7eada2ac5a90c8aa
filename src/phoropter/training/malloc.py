"""Tells glibc's allocator to keep freed memory instead of returning it to the system after every batch.

By default glibc requests every array above a threshold (128 KiB to 32 MiB) from the system and returns it at once; in the next
step each of its pages is fetched and zeroed again. Measured on two virtual cores, that is 15 % of a training step of a small
network, and two thirds of resizing an image. No number changes by it. Without glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)
MAX_RETAINED_BYTES = 1 << 30  # free memory above this still goes back


@cache
def tune_malloc() -> bool:
    """Lets the allocator of this process keep up to MAX_RETAINED_BYTES of freed memory; returns whether it accepted.

    Nothing is changed where the user has set glibc's own variables (`MALLOC_TRIM_THRESHOLD_`, …).
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, MAX_RETAINED_BYTES) and mallopt(_TRIM_THRESHOLD, MAX_RETAINED_BYTES))


def limit_malloc_arenas(count: int) -> bool:
    """At most so many pools of free memory, of all threads together; returns whether the allocator accepted.

    By default a new thread may get a pool of its own, up to eight for each core, and what is free in one is not free for the
    others: a process with short threads grows until every pool has met the largest request.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_ARENA_MAX, count))
    except (AttributeError, OSError, TypeError):
        return False


def trim_malloc() -> bool:
    """Gives the freed memory that glibc keeps back to the system, so that what is measured next is its own.

    Returns whether there was any.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False
