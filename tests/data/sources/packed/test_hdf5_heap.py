"""Heaps of texts in HDF5 files: sound ones pass; one with an object of size 0, an endless loop to the library, is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.data.sources.packed.hdf5 import open_hdf5
from phoropter.data.sources.packed.hdf5_heap import check_global_heaps

h5py = pytest.importorskip("h5py")


def written(path: Path, count: int = 6) -> Path:
    with h5py.File(path, "w") as file:
        file["images"] = np.random.default_rng(0).integers(0, 256, (count, 4, 4), dtype=np.uint8)
        file["labels"] = ["cat" * (at % 7 + 1) for at in range(count)]
    return path


@pytest.mark.parametrize("count", [1, 6, 500, 5000])
def test_sound_heaps_pass(tmp_path: Path, count: int) -> None:
    check_global_heaps(written(tmp_path / "x.h5", count))


def test_a_heap_that_would_be_walked_for_ever_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.h5")
    content = path.read_bytes()
    start = content.index(b"GCOL")
    at = start + 16
    while struct.unpack_from("<H", content, at)[0]:  # to the free space at the end
        at += 16 + (struct.unpack_from("<Q", content, at + 8)[0] + 7) // 8 * 8
    for place, size in ((at, 0), (at, 8), (start + 16, 2**40), (start + 16, 2**64 - 8)):
        path.write_bytes(content[: place + 8] + struct.pack("<Q", size) + content[place + 16 :])
        with pytest.raises(DataError, match=r"x\.h5 is damaged: the sizes in a heap of its texts contradict each other"):
            open_hdf5(path)
    path.write_bytes(content)
    assert len(open_hdf5(path)) == 6


def test_pixels_that_look_like_the_sign_of_a_heap_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(b"GCOL\1\0\0\0" + b"\xff" * 8 + b"GCOL\0" + bytes(40) + b"GCOL")
    check_global_heaps(path)
