from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from phoropter.core.delimited import SEPARATORS, _split_lines, detect_text_encoding, read_text_head, sniff_delimited_text


@pytest.mark.parametrize(
    ("text", "separator", "decimal", "header"),
    [
        ("time,ECG\n0.0,1.5\n", ",", ".", ("time", "ECG")),
        ("time;ECG\n0,0;0,0025\n0,02;-0,0026\n", ";", ",", ("time", "ECG")),
        ("time;ECG\n0.0;0.0025\n", ";", ".", ("time", "ECG")),
        ("time\tECG\n0,0\t1,5\n", "\t", ",", ("time", "ECG")),
        ("time|ECG\n0.0|1.5\n", "|", ".", ("time", "ECG")),
        ('time,ECG\n"0,0","1,5"\n', ",", ",", ("time", "ECG")),
        ("sep=;\ntime;ECG\n0,0;1,5\n", ";", ",", ("time", "ECG")),
        ("ECG\n1.5\n\n2\n", ",", ".", ("ECG",)),
        ("\ufefftime , ECG\u200b\n0,1\n", ",", ".", ("time", "ECG")),
        ("path,note\na.csv,left; right\n", ",", ".", ("path", "note")),
        ("path;note\na.csv;left, right\n", ";", ".", ("path", "note")),
        ("time,ECG\n0,1,2\n", ",", ".", ("time", "ECG")),  # the longer row is for the caller to refuse
    ],
)
def test_separator_decimal_mark_and_header_are_found(text: str, separator: str, decimal: str, header: tuple[str, ...]) -> None:
    found = sniff_delimited_text(text)
    assert (found.separator, found.decimal, found.header) == (separator, decimal, header)


def test_lines_before_the_header_are_counted() -> None:
    assert sniff_delimited_text("\nsep=;\n\na;b\n1;2\n").lines_before_header == 3
    assert sniff_delimited_text("a;b\n1;2\n").first_data_line == 2


@pytest.mark.parametrize("text", ["", "\n \n", "sep=;\n"])
def test_a_text_without_lines_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it is empty|nothing else"):
        sniff_delimited_text(text)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        ("µV".encode(), "utf-8"),
        ("µV".encode("latin-1"), "cp1252"),
        ("µV".encode("utf-16"), "utf-16"),
        ("path,label\na.png,cat\n".encode("utf-16-le"), "utf-16-le"),
        ("path;label\na.png;cat\n".encode("utf-16-be"), "utf-16-be"),
        ("µV".encode("utf-8-sig"), "utf-8-sig"),
        ("µ".encode()[:1], "utf-8"),
    ],
)
def test_encodings_are_told_apart(data: bytes, encoding: str) -> None:
    assert detect_text_encoding(data) == encoding


def test_the_head_of_a_file_ends_with_a_complete_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a,b\r\n1,2\r\n3,4\r\n")
    assert read_text_head(tmp_path / "a.csv", 12)[0] == "a,b\n1,2\n"
    assert read_text_head(tmp_path / "a.csv")[0] == "a,b\n1,2\n3,4\n"


def test_header_cells_are_composed_and_stripped() -> None:
    assert sniff_delimited_text("path, cafe\u0301\u200b \na,b\n").header == ("path", "café")


def test_names_of_columns_are_cleaned_as_everywhere() -> None:
    header = sniff_delimited_text('\ufeff"Path\u00a0 name", "sp\u200blit" ,Gro\u0308\u00dfe\na.png,train,1\n').header
    assert header == ("Path name", "split", "Größe")


def test_separators_that_are_nowhere_change_nothing() -> None:
    """They are not split by; the choice is the one among tables of all separators."""
    draw = np.random.default_rng(0)
    for _ in range(3000):
        lines = ["".join(draw.choice(list('ab1,;\t|" .'), draw.integers(1, 12))) for _ in range(draw.integers(1, 5))]
        lines[0] = f"a{lines[0]}"
        tables = {separator: _split_lines(lines, separator) for separator in SEPARATORS}
        widths = {separator: {len(row) for row in rows[1:] if row} for separator, rows in tables.items()}
        fits = [s for s, rows in tables.items() if len(rows[0]) > 1 and widths[s] <= {len(rows[0])}]
        wide = max(fits or SEPARATORS, key=lambda s: (s != ",", len(tables[s][0])) if fits else (len(tables[s][0]), s == ","))
        assert sniff_delimited_text("\n".join(lines)).separator == wide, lines
