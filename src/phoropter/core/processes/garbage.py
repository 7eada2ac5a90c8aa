"""Cyclic garbage, looked for seldom.

Python looks for it after every 700 new objects, and among all objects there are once a quarter of them is new. A report makes
millions that stay, in records, tables and figures: looking took a fifteenth of its processor time and found next to nothing.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (50_000, 10, 100)  # new objects, and passes of the younger generations, before each pass: at most some MiB more are held

# The thresholds before each block that is open: blocks of two threads overlap, and the last to end restores what the first found
_open_blocks: list[tuple[int, int, int]] = []
_lock = threading.Lock()


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Looks for garbage as seldom as SELDOM says until the end; less often still, or never, where that was asked for already."""
    with _lock:
        before = gc.get_threshold()
        _open_blocks.append(before)
        gc.set_threshold(*(old and max(old, new) for old, new in zip(before, SELDOM, strict=True)))
    try:
        yield
    finally:
        with _lock:
            before = _open_blocks.pop()
            if not _open_blocks:
                gc.set_threshold(*before)


@contextmanager
def importing_for_good() -> Iterator[None]:
    """For imports of a process that ends with its command: what exists afterwards stays, and is never looked at again.

    torch makes half a million objects, and each later pass over all objects would take a tenth of a second. Where all was
    imported before, as for the second part of a study, nothing is kept: the garbage of the first would stay for ever.
    """
    before = len(sys.modules)
    with collecting_seldom():
        yield
    if len(sys.modules) > before:
        gc.freeze()
