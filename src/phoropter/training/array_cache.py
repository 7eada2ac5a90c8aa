"""CachedArray: an array in the cache that is complete or absent, and whose computation resumes after a kill.

Left out: arrays whose length is known only at the end. The pixel cache (data/images/cache.py) appends the images it could read.
"""

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

CHECKPOINT_BLOCKS = 16  # blocks after which progress is noted
CHECKPOINT_INTERVAL_S = 0.1  # or seconds, if that is sooner: what a kill may cost

ProgressFunction = Callable[[int, int], None]  # (rows done, rows in all)


@dataclass(frozen=True)
class CachedArray:
    """An array in one folder of the cache. The folder gets its name when the array is complete.

    file_name: of the array within the folder · description: in words, for the message when the disk is too small
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
        """The array, memory-mapped; where it is absent, it is computed first.

        blocks: number of rows of each block, which `compute(i)` returns; called in order
        Two processes never compute the same array: the second waits. Raises DiskError before anything is computed.
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
        partial = self.folder.with_name(f"{self.folder.name}.part")
        done = self._count_resumed_rows(partial)
        partial.mkdir(parents=True, exist_ok=True)
        file, total = partial / self.file_name, self.shape[0]
        stored = open_memmap(file, mode="r+") if done else open_memmap(file, mode="w+", dtype=self.dtype, shape=self.shape)
        start, noted = 0, time.monotonic()
        for i, rows in enumerate(blocks):
            if start >= done:
                stored[start : start + rows] = compute(i)
                if i % CHECKPOINT_BLOCKS == CHECKPOINT_BLOCKS - 1 or time.monotonic() - noted >= CHECKPOINT_INTERVAL_S:
                    stored.flush()  # rows first: the note must never promise more than the file holds
                    write_json(partial / "done.json", {"rows": start + rows})
                    noted = time.monotonic()
                if progress:
                    progress(start + rows, total)
            start += rows
        stored.flush()
        (partial / "done.json").unlink(missing_ok=True)
        partial.rename(self.folder)

    def _count_resumed_rows(self, partial: Path) -> int:
        """How many rows a killed computation left; a partial file that is damaged or of another shape is removed."""
        try:
            done = int(json.loads((partial / "done.json").read_text())["rows"])
            left = np.load(partial / self.file_name, mmap_mode="r", allow_pickle=False)
            if left.shape == self.shape and left.dtype == np.dtype(self.dtype):
                return done
        except (OSError, ValueError, KeyError, TypeError):
            pass
        shutil.rmtree(partial, ignore_errors=True)
        return 0
