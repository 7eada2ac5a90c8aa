"""The allocator is tuned once, and not against the wishes of the user."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from phoropter.training.malloc import limit_malloc_arenas, tune_malloc


def test_the_users_own_variables_are_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "0")
    tune_malloc.cache_clear()
    try:
        assert tune_malloc() is False
    finally:
        tune_malloc.cache_clear()


COUNT_POOLS = """
import ctypes, threading
from phoropter.training.malloc import limit_malloc_arenas
if {limited}: assert limit_malloc_arenas(1)
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(4)
def allocate():
    together.wait()
    libc.malloc(100_000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out); libc.fflush(out)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is looked at")
@pytest.mark.parametrize(("limited", "expected"), [(True, {1}), (False, {2, 3, 4, 5})])
def test_all_threads_share_so_many_pools(limited: bool, expected: set[int]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_POOLS.format(limited=limited)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"<heap nr=", done.stdout)) in expected


def test_limits_on_pools_respect_the_users_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    assert limit_malloc_arenas(1) is False
