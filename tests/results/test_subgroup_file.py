"""Subgroups beside the runs: written whole, found by id, removed with the last column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import StoreError
from phoropter.results.subgroup_file import FILE, load_subgroups, write_subgroups

IDS = np.array(["a", "b", "c"])


def test_rows_are_found_by_their_ids(tmp_path: Path) -> None:
    assert load_subgroups(tmp_path).find_rows(IDS) == {}
    write_subgroups(tmp_path, IDS, {"sex": np.array(["m", "f", "m"]), "id": np.array(["x", "y", "z"])})
    found = load_subgroups(tmp_path).find_rows(np.array(["c", "b", "c"]))
    assert found["sex"].tolist() == ["m", "f", "m"] and found["id"].tolist() == ["z", "y", "z"]
    write_subgroups(tmp_path, IDS, {})
    assert not (tmp_path / FILE).exists()


def test_a_file_that_lacks_a_row_or_is_damaged_is_refused(tmp_path: Path) -> None:
    write_subgroups(tmp_path, IDS, {"sex": np.array(["m", "f", "m"])})
    with pytest.raises(StoreError, match=r"subgroups.npz cannot be read \('d'\): run the study again"):
        load_subgroups(tmp_path).find_rows(np.array(["d"]))
    (tmp_path / FILE).write_bytes(b"nothing")
    with pytest.raises(StoreError, match="run the study again"):
        load_subgroups(tmp_path).find_rows(IDS)
