"""Peak memory between two moments: of this process, or of the tensors on a GPU.

Linux keeps the largest resident size of a process and forgets it on request (/proc/self/clear_refs), so the peak of a run is its
own and not that of an earlier one. Elsewhere the size is sampled. Memory that the allocator keeps from earlier work is given back
first. What the process holds at the beginning (Python, torch, its libraries) is part of the peak.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

import torch

from phoropter.training.malloc import trim_malloc

SAMPLE_INTERVAL_S = 0.01
_PROC = Path("/proc/self")
_open_windows: list[PeakMemory] = []


class PeakMemory:
    """`with PeakMemory(device) as peak:` measures its block; `peak.bytes` is read after it. Blocks may be nested."""

    def __init__(self, device: torch.device, *, trim: bool = True) -> None:
        """trim: whether freed memory that the allocator keeps is returned first, which takes milliseconds"""
        self.device, self.trim, self.bytes = device, trim, 0
        self._sampler: _Sampler | None = None

    def __enter__(self) -> PeakMemory:
        if self.trim:
            trim_malloc()
        for outer in _open_windows:
            outer.bytes = max(outer.bytes, outer._read())
        _open_windows.append(self)
        self._reset()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bytes = max(self.bytes, self._read())
        _open_windows.remove(self)
        if self._sampler is not None:
            self._sampler.stop()

    def _reset(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif not _forget_resident_peak():
            self._sampler = _Sampler()

    def _read(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return self._sampler.largest if self._sampler is not None else _read_resident_peak()


def _forget_resident_peak() -> bool:
    """Makes the present size of the process its largest so far; returns whether the system can."""
    try:
        (_PROC / "clear_refs").write_text("5", encoding="ascii")
        return _read_resident_peak() > 0
    except OSError:
        return False


def _read_resident_peak() -> int:
    for line in (_PROC / "status").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class _Sampler:
    """Samples the resident size of the process in a thread."""

    def __init__(self) -> None:
        import psutil

        self._process = psutil.Process()
        self.largest = int(self._process.memory_info().rss)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_INTERVAL_S):
            self.largest = max(self.largest, int(self._process.memory_info().rss))
