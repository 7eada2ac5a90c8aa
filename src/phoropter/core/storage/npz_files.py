"""Reads the .npz files that phoropter writes itself, and no others: stored, not compressed, plain arrays that fill their entries.

Every entry of a zip file has a CRC-32, which is compared here, and nothing is allocated that the file does not hold.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Container
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from phoropter.core.errors import cut_message

_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LENGTH_BYTES = {1: 2, 2: 4}  # of the length of a header, after its magic string and version, by version


def read_own_npz(path: Path, only: Container[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of a file that np.savez wrote, by name. Raises OSError, and ValueError for any other file or a damaged one.

    only: names of those that are read, default all
    """
    with path.open("rb") as opened:
        try:
            size = os.fstat(opened.fileno()).st_size
            with zipfile.ZipFile(opened) as archive:
                named = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
                return {name: _read_entry(archive, e, size) for name, e in named.items() if only is None or name in only}
        except (OSError, ValueError):
            raise
        except Exception as error:  # a damaged file may raise whatever the parsers of zip and npy can
            raise ValueError(cut_message(error, 160)) from None


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, file_bytes: int) -> NDArray[Any]:
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > file_bytes:
        raise ValueError(f"the array {entry.filename} is compressed, which phoropter's own files are not")
    data = archive.read(entry)  # to the end, where the CRC is compared
    head = npy.MAGIC_LEN + _LENGTH_BYTES.get(data[npy.MAGIC_LEN - 2], 0)
    start = head + int.from_bytes(data[npy.MAGIC_LEN : head], "little")
    parsed = _parse_header(data[:start])
    if parsed is None:
        raise ValueError(f"the array {entry.filename} has a header of another version")
    shape, fortran, kind = parsed
    count, size = math.prod(shape), len(data) - start
    if kind.hasobject or any(n < 0 for n in shape) or count * kind.itemsize != size:
        raise ValueError(f"the array {entry.filename} of the shape {shape} and kind {kind} does not fill its {size:,} bytes")
    array: NDArray[Any] = np.frombuffer(data, kind, count, start) if size else np.empty(count, kind)
    return array.reshape(shape, order="F" if fortran else "C")


@lru_cache(maxsize=512)  # the runs of a study have the same few headers, and NumPy parses each as a Python expression
def _parse_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """(shape, whether in Fortran's order, type); None of a version that np.savez does not write for such arrays."""
    file = BytesIO(head)
    read_header = _HEADER_READERS.get(npy.read_magic(file))
    return None if read_header is None else cast(Any, read_header)(file)
