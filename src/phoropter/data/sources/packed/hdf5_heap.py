"""The global heaps of an HDF5 file, where texts of various length lie, checked against their sizes before the library reads them.

libhdf5 walks the objects of a heap by the sizes that stand in them; a damaged one of 0 is an endless loop that nothing can stop.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from phoropter.core.errors import DataError
from phoropter.data.sources.file_hashes import memoize_by_files

_SIGN, _HEADER_BYTES, _MIN_BYTES = b"GCOL", 16, 4096  # "HDF5 File Format Specification" 3.0, III.E


def check_global_heaps(file: Path) -> None:
    """Raises DataError for a heap whose objects do not fill it. A file is read once, and again when it has changed."""

    def find_damage() -> bytes:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = content.find(_SIGN)
            while at >= 0:
                if not _is_sound_heap(content, at):
                    return b"damaged"
                at = content.find(_SIGN, at + 4)
        return b"sound"

    if memoize_by_files([file], "hdf5-heaps-1", find_damage) != b"sound":
        raise DataError(f"{file.name} is damaged: the sizes in a heap of its texts contradict each other; copy it again")


def _is_sound_heap(content: mmap.mmap, start: int) -> bool:
    """Whether the objects of a heap fill it; True for bytes that only look like its sign."""
    if start + _HEADER_BYTES > len(content) or content[start + 4] != 1:
        return True
    (size,) = struct.unpack_from("<Q", content, start + 8)
    if not _MIN_BYTES <= size <= len(content) - start:
        return True
    at, stop = start + _HEADER_BYTES, start + size
    while stop - at >= _HEADER_BYTES:
        index, _, _, length = struct.unpack_from("<HHIQ", content, at)
        needed = _HEADER_BYTES + (length + 7) // 8 * 8 if index else length  # free space counts its own header
        if not _HEADER_BYTES <= needed <= stop - at:
            return False
        at += needed
    return True
