"""Tables with an id: npz files that are none, a missing file, and columns of unequal length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import DataError
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.id_table import digest_table_file, read_id_table


def test_ids_are_text_whatever_the_file_holds(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", id=np.arange(3), x=np.ones((3, 2)))
    table = read_id_table(tmp_path / "a.npz", {})
    assert table.ids.tolist() == ["0", "1", "2"] and table.parse_numbers(["x"]).shape == (3, 2)


def test_decimal_commas_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id;x\na;0,5\nb;1,25\n")
    table = read_id_table(tmp_path / "a.csv", {})
    assert table.parse_numbers(["x"])[:, 0].tolist() == [0.5, 1.25]


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="no npz file"):
        read_id_table(tmp_path / "a.npz", {})
    np.savez(tmp_path / "b.npz", id=np.arange(3), x=np.ones(2))
    with pytest.raises(DataError, match=r"'x' has the shape \(2,\), expected 3 rows"):
        read_id_table(tmp_path / "b.npz", {})
    with pytest.raises(DataError, match=r"candidate 'mine'.*missing"):
        digest_table_file(TableSpec(features="nowhere.csv"), "mine", tmp_path)


def test_the_digest_is_that_of_the_contents(tmp_path: Path) -> None:
    for name, text in (("a.csv", "id,x\n1,2\n"), ("b.csv", "id,x\n1,2\n"), ("c.csv", "id,x\n1,3\n")):
        (tmp_path / name).write_text(text)
    a, b, c = (digest_table_file(TableSpec(features=name), "x", tmp_path).digest for name in ("a.csv", "b.csv", "c.csv"))
    assert a == b != c and a is not None
