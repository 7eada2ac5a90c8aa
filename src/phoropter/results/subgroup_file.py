"""subgroups.npz of a results folder: for each row its subgroups, by column. Written with study.json, whatever runs there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, eq=False)
class StoredSubgroups:
    """path: of the file · places: id → its place in the columns · columns: name → (N,) subgroup; none where there is no file"""

    path: Path
    places: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def find_rows(self, ids: NDArray[np.str_]) -> dict[str, NDArray[np.str_]]:
        """Column → (n,) the subgroup of each of these rows. Raises StoreError for a file that lacks a row."""
        if not self.columns:
            return {}
        try:
            rows = np.array([self.places[str(name)] for name in ids], dtype=np.int64)
            return {name: values[rows] for name, values in self.columns.items()}
        except (KeyError, IndexError) as error:
            raise _unreadable(self.path, error) from None


def load_subgroups(folder: Path) -> StoredSubgroups:
    """Raises StoreError for a file that `write_subgroups` did not write."""
    path = folder / FILE
    if not path.exists():
        return StoredSubgroups(path)
    try:
        stored = read_own_npz(path)
        places = {str(name): i for i, name in enumerate(stored.pop("id"))}
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from None
    return StoredSubgroups(path, places, {name.removeprefix("column "): values for name, values in stored.items()})


def _unreadable(path: Path, error: Exception) -> StoreError:
    return StoreError(f"{path} cannot be read ({error}): run the study again, which writes it anew")
