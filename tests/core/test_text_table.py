"""Tables as text: every dialect of a CSV gives the same rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from phoropter.core.errors import DataError
from phoropter.core.text_table import peek_table, read_text_table, table_of_frame

ROWS = [["img/a.png", "01"], ["img/b, c.png", "NA"]]


@pytest.mark.parametrize(
    "content",
    [
        b'path,label\nimg/a.png,01\n"img/b, c.png",NA\n',
        b'\xef\xbb\xbfpath , label\r\nimg/a.png,01\r\n"img/b, c.png",NA\r\n',
        b"path;label\nimg/a.png;01\nimg/b, c.png;NA\n",
        b"sep=;\npath;label\nimg/a.png;01\nimg/b, c.png;NA\n",
        b'"sep=;"\r\npath;label\r\nimg/a.png;01\r\nimg/b, c.png;NA\r\n',
        b"\npath\tlabel\nimg/a.png\t01\nimg/b, c.png\tNA\n",
        b"path|label\nimg/a.png|01\nimg/b, c.png|NA\n",
        b"path;label;;\nimg/a.png;01;;\nimg/b, c.png;NA;;\n;;;\n",
        'path;label\nimg/a.png;01\n"img/b, c.png";NA\n'.encode("utf-16"),
    ],
)
def test_every_dialect_of_csv_gives_the_same_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    table = read_text_table(tmp_path / "t.csv")
    assert table.header == ["path", "label"] and [values for _, values in table.rows] == ROWS
    assert peek_table(tmp_path / "t.csv") == (["path", "label"], ROWS[0])


def test_rows_are_counted_as_lines_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('sep=;\npath;label\n\n"a\nb";x\nc;y\n')
    assert list(read_text_table(tmp_path / "t.csv").rows) == [(5, ["a\nb", "x"]), (6, ["c", "y"])]


def test_a_decimal_comma_is_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path;rate_hz\na.csv;0,5\n")
    assert read_text_table(tmp_path / "t.csv").decimal_comma
    (tmp_path / "t.csv").write_text("path;rate_hz\na.csv;0.5\n")
    assert not read_text_table(tmp_path / "t.csv").decimal_comma


def test_a_row_of_another_length_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("path;age\na.png;1\nb.png;1;5\n")
    with pytest.raises(DataError, match=r"t\.csv, line 3: 3 values came, expected one for each of the 2 columns \(path, age\)"):
        list(read_text_table(tmp_path / "t.csv").rows)


def test_parquet_and_frames_give_the_same_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame({"Path ": ["a", "b"], "group": [1.0, None], "blob": [b"x", b"y"]})
    frame.to_parquet(tmp_path / "t.parquet")
    table = read_text_table(tmp_path / "t.parquet")
    assert table.header == ["Path", "group"] and list(table.rows) == [(1, ["a", "1"]), (2, ["b", ""])]
    assert peek_table(tmp_path / "t.parquet") == (["Path", "group", "blob"], [])
    table = table_of_frame(frame[["Path ", "group"]], "frame")
    assert table.header == ["Path", "group"] and list(table.rows) == [(0, ["a", "1"]), (1, ["b", ""])] and table.unit == "row"


def test_files_that_are_no_tables_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "latin.csv").write_bytes("path\nä.png\n".encode("latin1"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    for name, words in (
        ("none.csv", "this file is missing"),
        ("latin.csv", "is not UTF-8 text; save it"),
        ("bad.parquet", "is damaged or no Parquet file"),
    ):
        with pytest.raises(DataError, match=words):
            read_text_table(tmp_path / name)
        assert peek_table(tmp_path / name) == ([], [])
    with pytest.raises(DataError, match="split it"):
        read_text_table(tmp_path / "latin.csv", max_bytes=3)


def test_a_quote_that_swallows_rows_is_named(tmp_path: Path) -> None:
    lines = [f"img/{at}.png,{chr(34) if at == 2 else ''}{'ab'[at % 2]}" for at in range(5)]
    (tmp_path / "a.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    with pytest.raises(DataError, match=r"a.csv, line 4: a quote that begins here is closed 2 lines below.*look like rows"):
        list(read_text_table(tmp_path / "a.csv").rows)
    (tmp_path / "b.csv").write_text('path,label,remark\na.png,x,"two\nlines, with a comma"\nb.png,y,none\n')
    rows = list(read_text_table(tmp_path / "b.csv").rows)
    assert [(line, values[0]) for line, values in rows] == [(3, "a.png"), (4, "b.png")]  # the last line of a row counts
