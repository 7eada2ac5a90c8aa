"""subgroups.npz of a results folder: for each row its subgroups, by column. Written with study.json, whatever runs there are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import StoreError
from phoropter.core.files import atomic_write
from phoropter.core.storage.npz_files import read_own_npz

FILE = "subgroups.npz"


def write_subgroups(folder: Path, ids: NDArray[np.str_], columns: Mapping[str, NDArray[np.str_]]) -> None:
    """ids, and each column: (N,) str. Without columns the file is removed."""
    if not columns:
        (folder / FILE).unlink(missing_ok=True)
        return
    arrays: dict[str, Any] = {f"column {name}": values for name, values in columns.items()}
    with atomic_write(folder / FILE) as aside, aside.open("wb") as file:
        np.savez(file, id=ids, **arrays)


def find_subgroups(folder: Path, ids: NDArray[np.str_]) -> dict[str, NDArray[np.str_]]:
    """Column → (n,) the subgroup of each of these rows; empty where the folder has none.

    Raises StoreError for a file that `write_subgroups` did not write, or that lacks a row.
    """
    if not (folder / FILE).exists():
        return {}
    try:
        stored = read_own_npz(folder / FILE)
        place = {str(name): i for i, name in enumerate(stored.pop("id"))}
        rows = np.array([place[str(name)] for name in ids], dtype=np.int64)
        return {name.removeprefix("column "): values[rows] for name, values in stored.items()}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise StoreError(f"{folder / FILE} cannot be read ({error}): run the study again, which writes it anew") from None
