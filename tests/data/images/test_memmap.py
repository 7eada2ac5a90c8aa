from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.data.images import memmap
from phoropter.data.images.memmap import MemoryMappedArray


@pytest.mark.parametrize("always", [True, False])
def test_advised_rows_are_read_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always: bool) -> None:
    values = np.random.default_rng(0).integers(0, 256, (300, 3, 11, 11), dtype=np.uint8)
    values.tofile(tmp_path / "x.u8")
    if always:  # advise for a small file too, and release its pages at every call
        monkeypatch.setattr(memmap, "ADVISE_ABOVE_BYTES", 0)
        monkeypatch.setattr(memmap, "RESIDENT_BYTES", 0)
    mapped = MemoryMappedArray(tmp_path / "x.u8", values.shape)
    for rows in (np.array([299, 0, 7, 7]), np.arange(300)):
        np.testing.assert_array_equal(mapped.prefetch_rows(rows)[rows], values[rows])
    assert not mapped.array.flags.writeable
