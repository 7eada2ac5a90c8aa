"""CachedArray: a resumable array on disk, whole or absent."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from phoropter.core.files import file_lock, require_space, write_json

CHECKPOINT_BLOCKS = 16  # blocks after which it is noted how far a pass has come


CHECKPOINT_INTERVAL_S = 0.1  # or so many seconds, if that is sooner: what a kill may cost


ProgressFunction = Callable[[int, int], None]


@dataclass(frozen=True)
class CachedArray:
    """An array that is in the cache whole or not at all.

    folder: of the entry; `file` lies in it · what: in words, for the message when the disk is too small
    """

    folder: Path
    file_name: str
    shape: tuple[int, ...]
    dtype: str
    description: str

    @property
    def is_complete(self) -> bool:
        return self.folder.exists()

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    def load_or_compute(
        self, blocks: Sequence[int], compute: Callable[[int], NDArray[Any]], progress: ProgressFunction | None = None
    ) -> NDArray[Any]:
        """The array, memory-mapped; where it is not there yet `compute(i)` gives block i of so many rows, in order.

        Two processes never compute the same array; the second waits. Raises DiskError before anything is computed.
        """
        if not self.is_complete:
            with file_lock(self.folder.with_name(self.folder.name + ".lock")):
                if not self.is_complete:
                    self._compute_blocks(blocks, compute, progress)
        stored: NDArray[Any] = np.load(self.folder / self.file_name, mmap_mode="r", allow_pickle=False)
        return stored

    def _compute_blocks(
        self, blocks: Sequence[int], compute: Callable[[int], NDArray[Any]], progress: ProgressFunction | None
    ) -> None:
        require_space(self.folder.parent, self.nbytes, self.description)
        aside = self.folder.with_name(f"{self.folder.name}.part")
        done = self._count_resumed_rows(aside)
        aside.mkdir(parents=True, exist_ok=True)
        file, total = aside / self.file_name, self.shape[0]
        stored = open_memmap(file, mode="r+") if done else open_memmap(file, mode="w+", dtype=self.dtype, shape=self.shape)
        start = 0
        noted = time.monotonic()
        for i, rows in enumerate(blocks):
            if start >= done:
                stored[start : start + rows] = compute(i)
                if i % CHECKPOINT_BLOCKS == CHECKPOINT_BLOCKS - 1 or time.monotonic() - noted >= CHECKPOINT_INTERVAL_S:
                    stored.flush()
                    write_json(aside / "done.json", {"rows": start + rows})
                    noted = time.monotonic()
                if progress:
                    progress(start + rows, total)
            start += rows
        stored.flush()
        (aside / "done.json").unlink(missing_ok=True)
        aside.rename(self.folder)

    def _count_resumed_rows(self, aside: Path) -> int:
        """How many rows an interrupted pass left behind; a partial file of another shape is removed."""
        try:
            done = int(json.loads((aside / "done.json").read_text())["rows"])
            left = np.load(aside / self.file_name, mmap_mode="r", allow_pickle=False)
            if left.shape == self.shape and left.dtype == np.dtype(self.dtype):
                return done
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(aside, ignore_errors=True)
        return 0
