"""No cell of a CSV file that phoropter writes is a formula to a spreadsheet, and what was written is read back."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from phoropter.core.storage.csv_cells import escape_formula, format_csv, read_csv_rows, unescape_formula

FORMULAS = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-", "=", "-x.png"]
PLAIN = ["cat", "", "a=b", "-0.5", "+3", "1e-5", "-inf", "'quoted'", "ü", "a,b", 'a"b', "-1.5E+10"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_text(text: str) -> None:
    assert escape_formula(text) == "'" + text and unescape_formula("'" + text) == text


@pytest.mark.parametrize("text", PLAIN)
def test_plain_cells_stay(text: str) -> None:
    assert escape_formula(text) == text == unescape_formula(text)


def test_a_table_of_such_cells_is_read_back(tmp_path: Path) -> None:
    cells = [*FORMULAS, *PLAIN]
    text = format_csv([["=name", "value"], *([cell, 0.5] for cell in cells)])
    starts = [cell[:1] for row in csv.reader(io.StringIO(text, newline="")) for cell in row if not cell.startswith("-")]
    assert not {"=", "+", "@", "\t", "\r"} & set(starts) - {"+"}
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    rows = read_csv_rows(tmp_path / "a.csv")
    assert [row["=name"] for row in rows] == cells and {row["value"] for row in rows} == {"0.5"}


@pytest.mark.parametrize("content", [b"a,a\n1,2\n", b"a,b\n1\n", b"a\n1,2\n", b"a\n\xff\n", b'a\n"x"y\n'])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_csv_rows(tmp_path / "a.csv")
