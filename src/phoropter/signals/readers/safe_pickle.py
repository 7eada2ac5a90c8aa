"""Reads a pickle of arrays without executing any code it names.

A pickle is a program that may call what it can import. `load_arrays` lets it import five names only: NumPy's array, its dtype,
the function that makes an empty array (under its old and new module), and the Latin-1 encoder for bytes written by Python 3 at an
old protocol. All five are stand-ins defined here, so the program reaches no class or function of any library. An array is built
here from its bytes, after its size was checked against its shape. Any other name, and every other fault, raises
`pickle.UnpicklingError` before anything has run.

Before it runs, its operations are read once: none may name more bytes than the file has, or a place in memory far away.
The result is then checked in full: dicts, lists, strings, numbers and numeric arrays, together at most four times as large as
the file.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

_DTYPE_PATTERN = re.compile(r"^[<>=|]?[biuf][1248]$")
_FREE_NUMBERS = 1 << 16  # an object may be remembered under any number below, whatever the operations before it
_MAX_GROWTH = 4  # bytes of arrays per byte of file


class _StandIn:
    """A name that a pickle may import. It has no state that the pickle could change."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"it tries to change {type(self).__name__}")


class _NdArrayClass(_StandIn):
    """Stands for the class numpy.ndarray, which a pickle only names and never calls."""

    __slots__ = ()


class _Reconstruct(_StandIn):
    """Stands for NumPy's function that makes an empty array."""

    __slots__ = ()

    def __call__(self, kind: object, shape: object, letter: object) -> _ArrayStandIn:
        if not isinstance(kind, _NdArrayClass) or shape != (0,):
            raise pickle.UnpicklingError("expected a plain array")
        return _ArrayStandIn()


class _Encode(_StandIn):
    """Stands for `_codecs.encode`, for bytes written by Python 3 at a protocol that had none."""

    __slots__ = ()

    def __call__(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("expected Latin-1 bytes")
        return text.encode("latin1")


class _DTypeStandIn:
    """Stands for a numpy.dtype of one number; its pickled state adds the byte order."""

    def __init__(self, name: str, *_: object) -> None:
        if not isinstance(name, str) or not _DTYPE_PATTERN.match(name):
            raise pickle.UnpicklingError(f"expected arrays of numbers, came the dtype {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "=") or any(state[2:5]):
            raise pickle.UnpicklingError("expected the plain state of a dtype of one number")
        self.dtype = self.dtype.newbyteorder(state[1])


class _ArrayStandIn:
    """Stands for a numpy.ndarray until its pickled state brings shape, dtype and bytes."""

    def __init__(self) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("expected the state of an array: version, shape, dtype, order, bytes")
        _, shape, dtype, fortran, raw = state
        if (
            not isinstance(dtype, _DTypeStandIn)
            or not isinstance(shape, tuple)
            or not all(type(n) is int and n >= 0 for n in shape)
        ):
            raise pickle.UnpicklingError("expected an array of numbers with a shape")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        if not isinstance(data, bytes) or math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise pickle.UnpicklingError(f"an array of shape {shape} and dtype {dtype.dtype} does not have the bytes it should")
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order="F" if fortran else "C")


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_NAMES:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no array: it is not run")
        return _ALLOWED_NAMES[module, name]

    def persistent_load(self, pid: object) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside itself")


def load_arrays(source: bytes | BinaryIO, size: int | None = None) -> Any:
    """A pickle (bytes, or an open file of `size` bytes) → dicts, lists, strings, numbers and arrays.

    Text of Python 2 is read as Latin-1. Raises pickle.UnpicklingError for anything else; nothing it names is run.
    """
    file = BytesIO(source) if isinstance(source, bytes) else source
    limit = _MAX_GROWTH * (len(source) if isinstance(source, bytes) else size or 0)
    try:
        _check_operations(file, limit // _MAX_GROWTH)
        loaded = [_ArrayUnpickler(file, encoding="latin1").load()]
        _replace_stand_ins(loaded, limit)
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # a damaged program may raise whatever Python can
        raise pickle.UnpicklingError(f"it is damaged ({type(error).__name__}: {error})") from error
    return loaded[0]


def load_arrays_file(path: Path) -> Any:
    """As `load_arrays`, from a file."""
    with path.open("rb") as file:
        return load_arrays(cast(BinaryIO, file), path.stat().st_size)


def _check_operations(file: BinaryIO, size: int) -> None:
    """Reads a pickle without executing it, and returns to where it began.

    Raises UnpicklingError where an argument is longer than the file, or where an object would be remembered under a number far
    above that of the operations so far: Python's unpickler makes room for all numbers below it.
    """
    begin, count = file.tell(), 0
    while True:
        code = file.read(1)
        operation = _OPERATIONS.get(code)
        if operation is None:
            raise pickle.UnpicklingError("it is cut off" if not code else f"it has the unknown operation {code!r}")
        count += 1
        if operation.name == "STOP":
            break
        argument = _read_argument(file, operation.arg, begin + size)
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT"):
            index = int(argument) if operation.name == "PUT" else int.from_bytes(argument, "little")
            if not 0 <= index <= count + _FREE_NUMBERS:
                raise pickle.UnpicklingError(f"it remembers an object as number {index} after {count} operations")
    file.seek(begin)


def _read_argument(file: BinaryIO, argument: pickletools.ArgumentDescriptor | None, end: int) -> bytes:
    """The argument of an operation; of one that states its length, which is only compared with the file, nothing."""
    if argument is None:
        return b""
    if argument.n == pickletools.UP_TO_NEWLINE:
        lines = [file.readline() for _ in range(2 if argument.name == "stringnl_noescape_pair" else 1)]
        return b"".join(lines)
    if argument.n >= 0:
        return file.read(argument.n)
    length_bytes = {
        pickletools.TAKEN_FROM_ARGUMENT1: 1,
        pickletools.TAKEN_FROM_ARGUMENT4: 4,
        pickletools.TAKEN_FROM_ARGUMENT4U: 4,
        pickletools.TAKEN_FROM_ARGUMENT8U: 8,
    }[argument.n]
    length = int.from_bytes(file.read(length_bytes), "little")
    if file.tell() + length > end:
        raise pickle.UnpicklingError(f"it names {length:,} bytes, more than the file has")
    file.seek(length, 1)
    return b""


_OPERATIONS = {operation.code.encode("latin1"): operation for operation in pickletools.opcodes}


def _replace_stand_ins(root: list[Any], limit: int) -> None:
    """Replaces the stand-ins of arrays, visiting every reachable object once; refuses anything that is not plain data."""
    total, seen, pending = 0, {id(root)}, [cast(Any, root)]
    while pending:
        holder = pending.pop()
        for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
            if isinstance(holder, dict) and not isinstance(key, (str, int)):
                raise pickle.UnpicklingError(f"expected text or whole numbers as keys, came {type(key).__name__}")
            if isinstance(value, _ArrayStandIn) and value.array is not None:
                holder[key] = value.array
                total += value.array.nbytes if id(value) not in seen else 0
            elif type(value) in (dict, list):
                if id(value) not in seen:
                    pending.append(value)
            elif type(value) not in (str, int, float):
                raise pickle.UnpicklingError(f"expected arrays, text and numbers, came {type(value).__name__}")
            seen.add(id(value))
            if total > limit:
                raise pickle.UnpicklingError(f"its arrays are larger than {_MAX_GROWTH} times the file")


_ALLOWED_NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdArrayClass(),
    ("numpy", "dtype"): _DTypeStandIn,
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct(),
    ("_codecs", "encode"): _Encode(),
}
