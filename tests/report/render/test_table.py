"""A Table in its four formats."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from reading_html import Tags

from phoropter.report.render.table import (
    Column,
    IntervalBounds,
    MeanStd,
    Table,
    TableRow,
    escape_latex,
    format_cell,
    si_text,
)

NASTY = [
    "<script>alert(1)</script>",
    "a|b*c_d`e",
    r"\input{x} $y$ #1 100% ~^ {}",
    "=1+1",
    "line\nbreak\x00",
    "猫 ⚡ é ß",
    "--",
    "[x](y)",
]
TABLE = Table(
    "nasty",
    "A caption with 100 % & <b>",
    (
        Column("Name_of"),
        Column("Acc", "percent"),
        Column("Range", "percent"),
        Column("Diff", "points"),
        Column("Time", "duration"),
        Column("Size", "bytes"),
    ),
    (
        *(TableRow((name, MeanStd(0.9512, 0.004), IntervalBounds(0.9, 0.98765), -0.0123, 75.0, 1536)) for name in NASTY),
        TableRow(("nothing", None, IntervalBounds(float("nan"), 1.0), float("nan"), None, None), "baseline"),
    ),
    note="A note, 5 % of it.",
)


@pytest.mark.parametrize(
    ("value", "column", "text"),
    [
        (0.95124, Column("x", "percent"), "95.1"),
        (MeanStd(0.95124, 0.0041), Column("x", "percent"), "95.1 ± 0.4"),
        (MeanStd(0.95124, float("nan")), Column("x", "percent"), "95.1"),
        (IntervalBounds(0.1, 0.25), Column("x", "percent"), "10.0 to 25.0"),
        (0.018, Column("x", "points"), "+1.8"),
        (-0.018, Column("x", "points"), "−1.8"),
        (-0.0001, Column("x", "points"), "0.0"),
        (0.0001, Column("x", "points"), "0.0"),
        (-0.0001, Column("x", "percent"), "0.0"),
        (-0.0, Column("x", "number", digits=2), "0.00"),
        (IntervalBounds(-0.0004, 0.25), Column("x", "number", digits=3), "0.000 to 0.250"),
        (-0.0001, Column("x", "signed", digits=3), "+0.000"),
        (MeanStd(-0.0001, 0.25), Column("x", "points"), "0.0 ± 25.0"),
        (MeanStd(-0.5, 0.25), Column("x", "points"), "−50.0 ± 25.0"),
        (-0.5, Column("x", "signed", digits=3), "−0.500"),
        (0.00012, Column("x", "p"), "< 0.001"),
        (0.0376, Column("x", "p"), "0.038"),
        (1234567, Column("x", "count"), "1,234,567"),
        (25_557_032, Column("x", "si"), "25.6 M"),
        (float("inf"), Column("x", "number"), "–"),
        (None, Column("x"), "–"),
    ],
)
def test_cells_are_rounded_by_the_kind_of_their_column(value: object, column: Column, text: str) -> None:
    assert format_cell(value, column) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(("value", "text"), [(999, "999"), (999.6, "1.0 k"), (99_960_000, "100 M"), (1.2e13, "12.0 T")])
def test_large_numbers(value: float, text: str) -> None:
    assert si_text(value) == text


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values under 1 columns"):
        Table("t", "c", (Column("a"),), (TableRow(("x", "y")),))


def test_html_shows_names_as_they_are_and_nothing_of_them_is_markup() -> None:
    page = Tags(str(TABLE.to_html()))
    assert {tag for tag, _ in page.tags} <= {"p", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "wbr"}
    rows = page.tables["nasty"]
    assert [row[0] for row in rows[1:9]] == [re.sub(r"[\n\x00]+", " ", name) for name in NASTY]
    assert rows[0][1] == "Acc\u00a0%"
    assert page.open == []


def test_html_carries_unrounded_sort_keys() -> None:
    keys = re.findall(r'data-key="([^"]*)"', str(TABLE.to_html()))
    assert keys[:5] == ["0.9512", "0.9", "-0.0123", "75.0", "1536.0"]
    assert keys[-5:] == ["", "", "", "", ""]


def test_a_long_table_shows_its_first_rows_and_says_how_many_are_left() -> None:
    table = Table("t", "c", (Column("a"),), tuple(TableRow((str(i),)) for i in range(50)), max_html_rows=12)
    assert len(Tags(str(table.to_html())).tables["t"]) == 13
    assert "38 more rows are in the files" in str(table.to_html())
    assert "1 more row is in the files" in str(replace(table, max_html_rows=49).to_html())
    assert len(table.to_csv().splitlines()) == 51


def test_csv_is_unrounded_and_splits_pairs() -> None:
    head, first, *_, last = csv.reader(io.StringIO(TABLE.to_csv()))
    assert head == ["Name_of", "Acc mean", "Acc std", "Range low", "Range high", "Diff", "Time", "Size"]
    assert first[1:] == ["0.9512", "0.004", "0.9", "0.98765", "-0.0123", "75", "1536"]
    assert last == ["nothing", "", "", "", "1", "", "", ""]


def test_csv_names_are_never_formulas() -> None:
    names = [row[0] for row in csv.reader(io.StringIO(TABLE.to_csv()))]
    assert "'=1+1" in names and not any(name[:1] in "=+-@" for name in names)


def test_markdown_has_the_same_cells_in_every_row() -> None:
    lines = [line for line in TABLE.to_markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(TABLE.rows)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {7}
    assert r"\<script\>" in TABLE.to_markdown()


def test_latex_sets_text_as_it_stands() -> None:
    assert escape_latex("a_b & 5% $x$ #1 {y}") == r"a\_b \& 5\% \$x\$ \#1 \{y\}"
    assert escape_latex(r"\input{x}") == r"\textbackslash{}input\{x\}"
    assert escape_latex("a--b \u2212 ±") == r"a-{}-b $-$ $\pm$"


def test_latex_has_no_command_but_its_own() -> None:
    text = TABLE.to_latex()
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    ours = {"usepackage", "begin", "end", "centering", "caption", "label", "toprule", "midrule", "bottomrule", "par", "smallskip"}
    ours |= {"sbox", "ifdim", "wd", "linewidth", "resizebox", "usebox", "else", "fi"}
    ours |= {
        "footnotesize",
        "textbackslash",
        "textless",
        "textgreater",
        "textbar",
        "textasciicircum",
        "textasciitilde",
        "textendash",
        "pm",
    }
    assert commands <= ours
    bare = re.sub(r"\\[\\{}$&#%_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert all(line.count("&") == 5 for line in bare.splitlines() if line.endswith(" ") and "&" in line)


HEAD = "\\documentclass{article}\n\\usepackage[T1]{fontenc}\n" + "".join(
    f"\\usepackage{{{p}}}\n" for p in ("booktabs", "graphicx")
)


def test_a_long_latex_table_goes_on_over_pages_with_its_head_and_all_rows() -> None:
    table = Table("t", "c", (Column("a_b"), Column("n", "count")), tuple(TableRow((f"row {i}", i)) for i in range(90)), "a note")
    text = table.to_latex()
    assert text.count("a\\_b & n") == 3 and text.count("a note") == 1 and text.count("\\label{") == 1
    assert all(f"row {i} & {i} " in text for i in range(90))


@pytest.mark.parametrize("rows", [3, 90])
def test_wide_and_long_latex_tables_stay_on_the_page(rows: int, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    columns = tuple(Column(f"Column number {i}") for i in range(14 if rows == 3 else 6))
    table = Table("t", "c", columns, tuple(TableRow(tuple(f"value {i} {k}" for k in range(len(columns)))) for i in range(rows)))
    (tmp_path / "t.tex").write_text(HEAD + "\\begin{document}\n" + table.to_latex() + "\\end{document}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Overfull" not in done.stdout and "Float too large" not in done.stdout, done.stdout[-2000:]


@pytest.mark.parametrize("engine", ["pdflatex", "lualatex", "tectonic"])
def test_latex_compiles(engine: str, tmp_path: Path) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"{engine} is not installed")
    rows = TABLE.rows if engine != "pdflatex" else tuple(r for r in TABLE.rows if "猫" not in str(r.values[0]))
    table = Table(TABLE.name, TABLE.caption, TABLE.columns, rows, TABLE.note)
    document = HEAD + "\\begin{document}\n"
    (tmp_path / "t.tex").write_text(document + table.to_latex() + "\\end{document}\n", encoding="utf-8")
    flags = [] if engine == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape"]
    done = subprocess.run([engine, *flags, "t.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").exists()
