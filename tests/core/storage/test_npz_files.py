"""phoropter's own .npz files come back as NumPy reads them; any other, or a damaged one, is a ValueError before room is made."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.core.storage.npz_files import read_own_npz

ARRAYS: dict[str, Any] = {
    "words": np.array(["a", "übung"]),
    "numbers": np.arange(12, dtype=np.float16).reshape(3, 4),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "none": np.empty((0, 3), np.float32),
    "one": np.array(7),
}


def test_arrays_come_back_as_numpy_reads_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    ours = read_own_npz(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as theirs:
        assert ours.keys() == set(theirs.files)
        for name in theirs.files:
            assert ours[name].dtype == theirs[name].dtype and ours[name].shape == theirs[name].shape
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_flipped_byte_never_changes_a_value(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **ARRAYS)
    content = (tmp_path / "a.npz").read_bytes()
    refused = 0
    for at in range(0, len(content), 3):
        (tmp_path / "a.npz").write_bytes(content[:at] + bytes([content[at] ^ 2]) + content[at + 1 :])
        try:
            came = read_own_npz(tmp_path / "a.npz")
        except (ValueError, OSError):
            refused += 1
            continue
        for name in came.keys() & ARRAYS.keys():
            np.testing.assert_array_equal(came[name], ARRAYS[name])
    assert refused > len(content) // 9


def test_pickles_compressed_files_and_claims_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "pickle.npz", a=np.array([{}], dtype=object))
    np.savez_compressed(tmp_path / "compressed.npz", a=np.zeros(9))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(tmp_path / "claim.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue() + bytes(80))
    (tmp_path / "text.npz").write_text("hello")
    tracemalloc.start()
    for file in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=r"."):
            read_own_npz(file)
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
