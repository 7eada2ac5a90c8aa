"""Pickles of arrays are read; pickles that try anything else are refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phoropter.signals.readers.safe_pickle import load_arrays, load_arrays_file

NUMPY_1_PROTOCOL_0 = (
    b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\np1\n(I0\ntp2\nS'b'\np3\ntp4\nRp5\n(I1\n(I1\ntp6\ncnumpy\n"
    b"dtype\np7\n(S'i1'\np8\nI0\nI1\ntp9\nRp10\n(I3\nS'|'\np11\nNNNI-1\nI-1\nI0\ntp12\nbI00\nS'\\x81'\np13\ntp14\nb."
)


class Runs:
    """Creates a file when unpickled by the standard library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_numpys_own_regression_pickle() -> None:
    array = load_arrays(NUMPY_1_PROTOCOL_0)
    assert array.dtype == np.int8
    assert array.tolist() == [-127]


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'echo x'\ntR.",
        b"c__builtin__\neval\n(S'1'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",
    ],
)
def test_pickles_that_run_code_are_refused(program: bytes) -> None:
    with pytest.raises(pickle.UnpicklingError, match="not run"):
        load_arrays(program)


@pytest.mark.parametrize("protocol", range(5))
def test_nothing_runs(tmp_path: Path, protocol: int) -> None:
    ran = tmp_path / "ran"
    with pytest.raises(pickle.UnpicklingError, match=r"system, which is no array"):
        load_arrays(pickle.dumps({"a": [Runs(ran)]}, protocol))
    assert not ran.exists()


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "i4", "u1", "i8", "?"])
def test_arrays_of_every_kind_and_protocol(protocol: int, dtype: str) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype)
    held = {"a": array, "f": np.asfortranarray(array), "list": [array[1:], 1, 2.5, "text"]}
    read = load_arrays(pickle.dumps(held, protocol))
    assert read["a"].dtype == array.dtype
    for found, expected in [(read["a"], array), (read["f"], array), (read["list"][0], array[1:])]:
        assert found.shape == expected.shape
        assert (found == expected).all()
    assert read["list"][1:] == [1, 2.5, "text"]


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"x": np.ones(3)}, 2))
    assert load_arrays_file(path)["x"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "value",
    [
        np.array([None, 1], object),
        np.array(["a"]),
        np.zeros(2, [("a", "f8")]),
        np.float64(1.0),
        {1.5: 1},
        (1, 2),
        None,
        True,
        b"bytes",
        {1, 2},
        1j,
        np.datetime64("2020-01-01"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_but_numbers_text_and_arrays_is_refused(value: object) -> None:
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(pickle.dumps({"x": value}, 2))


def test_persistent_references_are_refused() -> None:
    with pytest.raises(pickle.UnpicklingError, match="outside itself"):
        load_arrays(b"Pname\n.")


def test_the_array_class_cannot_be_called() -> None:
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(b"cnumpy\nndarray\n(I1000000000\ntR.")


def test_the_stand_ins_cannot_be_changed() -> None:
    program = b"cnumpy.core.multiarray\n_reconstruct\n}S'__doc__'\nS'x'\nsb."
    with pytest.raises(pickle.UnpicklingError, match="tries to change"):
        load_arrays(program)
    assert load_arrays(NUMPY_1_PROTOCOL_0).tolist() == [-127]


def test_shape_and_bytes_must_agree() -> None:
    with pytest.raises(pickle.UnpicklingError, match="does not have the bytes"):
        load_arrays(NUMPY_1_PROTOCOL_0.replace(b"bI00\nS'\\x81'", b"bI00\nS'\\x81\\x82'"))


def test_the_same_bytes_cannot_be_used_many_times() -> None:
    """Fifty arrays over one memoised byte string are larger than their file."""
    raw = b"B\x10'\x00\x00" + b"x" * 10_000 + b"q\xc80"  # BINBYTES, remembered as 200, dropped
    empty = b"\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93\x8c\x05numpy\x8c\x07ndarray\x93K\x00\x85C\x01b\x87R"
    dtype = b"\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02u1\x89\x88\x87R"
    array = empty + b"(K\x01M\x10'\x85" + dtype + b"\x89h\xc8tb"  # version 1, shape (10000,), dtype, C order, memo 200
    assert load_arrays(b"\x80\x04" + raw + b"(" + array + b"l.")[0].nbytes == 10_000
    with pytest.raises(pickle.UnpicklingError, match="larger than 4 times the file"):
        load_arrays(b"\x80\x04" + raw + b"(" + array * 50 + b"l.")


@pytest.mark.parametrize("keep", [0, 1, 10, 60, 150])
def test_a_truncated_pickle_is_damaged(keep: int) -> None:
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(NUMPY_1_PROTOCOL_0[:keep])


def test_lists_that_contain_themselves_end() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    read = load_arrays(pickle.dumps({"loop": loop}, 2))["loop"]
    assert read[1] is read


def test_nested_shared_lists_are_visited_once() -> None:
    nest: list[Any] = [1]
    for _ in range(200):
        nest = [nest, nest]  # 2**200 leaves to one who does not remember
    assert load_arrays(pickle.dumps(nest, 2))[0][0] is not None


# X4: Python's unpickler makes room for every number below the one under which it remembers an object
@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02]r\x00\x00\x00\x04.",
        b"\x80\x02]r\x00\x00\x00\x80.",
        b"]p2000000000\n.",
        b"]p-1\n.",
        b"\x80\x04\x8e\x00\x00\x00\x00\x10\x00\x00\x00abc.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\x00\x00]\x94.",
    ],
)
def test_room_is_not_made_for_what_the_file_does_not_hold(program: bytes) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(pickle.UnpicklingError):
        load_arrays(program)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
