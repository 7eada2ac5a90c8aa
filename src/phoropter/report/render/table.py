"""Tables that write themselves as HTML, Markdown, LaTeX (booktabs) and CSV.

A cell holds a value, not its text: HTML, Markdown and LaTeX round it by the kind of its column; CSV and the sort keys of the
HTML do not. Names of classes, candidates and samples are untrusted text, so every format escapes them.
Left out: merged cells, nested headers, colours.
"""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from markupsafe import Markup

from phoropter.core.durations import format_duration
from phoropter.core.files import format_bytes
from phoropter.core.storage.csv_cells import escape_formula

ColumnKind = Literal["text", "words", "percent", "points", "number", "signed", "count", "si", "p", "duration", "bytes"]
RowRole = Literal["plain", "leader", "baseline", "warning"]

MISSING_TEXT = "–"
INTERVAL_TITLE = "95\u00a0%\u00a0interval"  # of a column
WRAP_LENGTH = 24  # a longer name may break across lines
LATEX_PAGE_ROWS = 36  # rows of a LaTeX table on a page; a third of it where cells hold sentences


class MeanStd(NamedTuple):
    """A mean and its standard deviation over runs (ddof 1; NaN for a single run)."""

    mean: float
    std: float


class IntervalBounds(NamedTuple):
    """From low to high; open where high is infinite."""

    low: float
    high: float


CellValue = str | float | int | bool | MeanStd | IntervalBounds | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    kind:        text (a name) · words (a sentence, which may wrap) · percent (a fraction, shown × 100) · points (a signed
                 difference of fractions, shown × 100) · number · signed (a difference) · count · si (25.6 M) · p ·
                 duration (seconds) · bytes
    description: shown when the reader points at the header
    digits:      decimals, for percent, points, number and signed
    unit:        if it is not that of the kind
    """

    name: str
    kind: ColumnKind = "text"
    description: str = ""
    digits: int = 1
    unit: str | None = None

    @property
    def unit_text(self) -> str:
        """The unit in the header."""
        return {"percent": "%", "points": "points"}.get(self.kind, "") if self.unit is None else self.unit

    @property
    def header_text(self) -> str:
        return f"{self.name}, {self.unit_text}" if self.unit_text else self.name

    @property
    def is_number(self) -> bool:
        return self.kind not in ("text", "words")


@dataclass(frozen=True)
class TableRow:
    """Values in the order of the columns; the first one is the header of the row."""

    values: tuple[CellValue, ...]
    role: RowRole = "plain"


@dataclass(frozen=True)
class Table:
    """A table.

    name:          of its files, in lower-case letters, digits and hyphens
    caption:       one line above it · note: a paragraph below it
    max_html_rows: rows shown on the page; the files have all

    Raises ValueError where a row has not one value for each column.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[TableRow, ...]
    note: str = ""
    sortable: bool = True
    max_html_rows: int = 40

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"table {self.name}: a row has {len(row.values)} values under {len(self.columns)} columns")

    def to_html(self) -> Markup:
        """A table in a scrollable box; the page's script makes its headers sort."""
        heads = Markup("").join(_html_header(c) for c in self.columns)
        body = Markup("\n").join(self._html_row(row) for row in self.rows[: self.max_html_rows])
        kind = "sortable" if self.sortable and len(self.rows) > 1 else "fixed"
        left = len(self.rows) - self.max_html_rows
        note = f"{self.note} {left:,} more {'row is' if left == 1 else 'rows are'} in the files." if left > 0 else self.note
        return Markup(_HTML_TEMPLATE).format(
            self.name, kind, self.caption, heads, body, Markup('\n<p class="note">{}</p>').format(note.strip()) if note else ""
        )

    def _html_row(self, row: TableRow) -> Markup:
        cells = []
        for i, (column, value) in enumerate(zip(self.columns, row.values, strict=True)):
            head = Markup('th scope="row"') if i == 0 else Markup("td")
            key = Markup(' data-key="{}"').format(_sort_key(value)) if column.is_number else ""
            text = format_cell(value, column)
            kind = "num" if column.is_number else "long" if column.kind == "text" and len(text) > WRAP_LENGTH else column.kind
            end = "th" if i == 0 else "td"
            shown = add_break_points(text) if kind == "long" else one_line(text)
            cells.append(Markup('<{} class="{}"{}>{}</{}>').format(head, kind, key, shown, end))
        role = "" if row.role == "plain" else Markup(' class="{}"').format(row.role)
        return Markup("<tr{}>{}</tr>").format(role, Markup("").join(cells))

    def to_markdown(self) -> str:
        """A pipe table under its caption."""
        lines = [f"**{escape_markdown(self.caption)}**", ""]
        lines.append("| " + " | ".join(escape_markdown(c.header_text) for c in self.columns) + " |")
        lines.append("|" + "|".join("---:" if c.is_number else ":---" for c in self.columns) + "|")
        lines += ["| " + " | ".join(map(escape_markdown, self._row_texts(row))) + " |" for row in self.rows]
        if self.note:
            lines += ["", escape_markdown(self.note)]
        return "\n".join(lines) + "\n"

    def to_latex(self) -> str:
        """A booktabs table no wider than the text, split where it is longer than a page. Needs booktabs and graphicx."""
        kinds = "".join("r" if c.is_number else "p{6cm}" if c.kind == "words" else "l" for c in self.columns)
        head = " & ".join(escape_latex(c.header_text) for c in self.columns) + r" \\"
        body = [" & ".join(map(escape_latex, self._row_texts(row))) + r" \\" for row in self.rows]
        size = LATEX_PAGE_ROWS // 3 if "p" in kinds else LATEX_PAGE_ROWS
        parts = [body[i : i + size] for i in range(0, len(body), size)] or [[]]
        lines: list[str] = []
        for i, part in enumerate(parts):
            note = rf"\par\smallskip\footnotesize {escape_latex(self.note)}" if self.note and i == len(parts) - 1 else ""
            lines += [
                *([r"\clearpage", r"\addtocounter{table}{-1}"] if i else []),
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{escape_latex(self.caption)}{', continued' if i else ''}}}",
                *([rf"\label{{tab:{self.name}}}"] if not i else []),
                r"\sbox0{%",
                *(rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule", *part, r"\bottomrule", r"\end{tabular}%"),
                r"}%",
                r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
                *([note] if note else []),
                r"\end{table}",
            ]
        text = "\n".join(lines) + "\n"
        needs = "% \\usepackage[T1]{fontenc}\n% \\usepackage{booktabs}\n% \\usepackage{graphicx}\n"
        if re.search(r"[^\x00-\u017f]", text):
            needs += "% has non-Latin characters: compile with lualatex or xelatex and a font that has them\n"
        return needs + text

    def to_csv(self) -> str:
        """Unrounded: fractions, seconds, bytes. A MeanStd or an interval takes two columns."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        parts = [self._csv_subcolumns(i) for i in range(len(self.columns))]
        writer.writerow(_csv_text(f"{c.name} {p}".strip()) for c, names in zip(self.columns, parts, strict=True) for p in names)
        for row in self.rows:
            writer.writerow(
                cell for value, names in zip(row.values, parts, strict=True) for cell in _csv_cells(value, len(names))
            )
        return file.getvalue()

    def _row_texts(self, row: TableRow) -> list[str]:
        return [format_cell(v, c) for v, c in zip(row.values, self.columns, strict=True)]

    def _csv_subcolumns(self, column: int) -> tuple[str, ...]:
        kinds = {type(row.values[column]) for row in self.rows}
        return ("mean", "std") if MeanStd in kinds else ("low", "high") if IntervalBounds in kinds else ("",)


_HTML_TEMPLATE = """<p class="caption" id="caption-{0}">{2}</p>
<div class="frame"><div class="scroll" role="region" tabindex="0" aria-labelledby="caption-{0}"><div class="track">
<table class="{1}" aria-labelledby="caption-{0}">
<thead><tr>{3}</tr></thead>
<tbody>
{4}
</tbody></table></div></div></div>{5}
"""


def format_cell(value: CellValue, column: Column) -> str:
    """The rounded text of a cell."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING_TEXT
    if isinstance(value, IntervalBounds):
        if math.isfinite(value.low) and value.high == math.inf:
            return f"{_format_number(value.low, column)} or more"
        if not (math.isfinite(value.low) and math.isfinite(value.high)):
            return MISSING_TEXT
        return f"{_format_number(value.low, column)} to {_format_number(value.high, column)}"
    if isinstance(value, MeanStd):
        mean, plain = format_cell(value.mean, column), replace(column, kind="percent" if column.kind == "points" else column.kind)
        return mean if not math.isfinite(value.std) else f"{mean} ± {_format_number(value.std, plain)}"
    if isinstance(value, str):
        return value
    return _format_number(float(value), column)


def _format_number(value: float, column: Column) -> str:
    kind = column.kind
    if kind in ("percent", "points"):
        text = f"{value * 100:{'+' if kind == 'points' else ''}z.{column.digits}f}"
        return _with_minus_sign("0" + text[2:] if float(text) == 0 and kind == "points" else text)
    if kind in ("number", "signed"):
        return _with_minus_sign(f"{value:{'+' if kind == 'signed' else ''}z,.{column.digits}f}")
    if kind == "count":
        return f"{value:,.0f}"
    if kind == "p":
        return "< 0.001" if value < 0.001 else f"{value:.3f}"
    return {"si": si_text, "duration": format_duration, "bytes": format_bytes}.get(kind, str)(value)


def _with_minus_sign(text: str) -> str:
    return text.replace("-", "\u2212")


def si_text(value: float) -> str:
    """A large number with an SI suffix.

    >>> si_text(25_557_032), si_text(640)
    ('25.6 M', '640')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.{1 if value < size * 99.95 else 0}f} {unit}"
    return f"{value:.0f}"


def _html_header(column: Column) -> Markup:
    gap = "\u00a0" if len(column.unit_text) == 1 else " "
    unit = Markup('{}<span class="unit">{}</span>').format(gap, column.unit_text) if column.unit_text else ""
    title = Markup(' title="{}"').format(column.description) if column.description else ""
    kind = "num" if column.is_number else column.kind
    return Markup('<th scope="col" class="{}"{}>{}{}</th>').format(kind, title, add_break_points(column.name), unit)


def add_break_points(text: str) -> Markup:
    """Escaped, with places where a long name may break across lines."""
    parts = re.split(r"(?<=[_/+.])(?=\w)", one_line(text)) if len(text) > WRAP_LENGTH // 2 else [one_line(text)]
    return Markup("<wbr>").join(parts)


def _sort_key(value: CellValue) -> str:
    number = value[0] if isinstance(value, (MeanStd, IntervalBounds)) else value
    if isinstance(number, (int, float)) and math.isfinite(number):
        return repr(float(number))
    return ""


_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


def one_line(text: str) -> str:
    """Replaces control characters and line breaks, which would break every format, by spaces."""
    return _CONTROL_CHARACTERS.sub(" ", text)


def escape_markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>|#~$&])", r"\\\1", one_line(text))


_LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{''}",
    "`": r"{`}",
    "[": r"{[}",
    "]": r"{]}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "\u2212": r"$-$",
    "–": r"\textendash{}",
    "·": r"\textperiodcentered{}",
    "→": r"$\rightarrow$",
    "α": r"$\alpha$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "\u00a0": "~",
    "\u202f": "~",
    "\u201c": "``",
    "\u201d": "''",
}


def escape_latex(text: str) -> str:
    """Text that LaTeX sets literally: no commands, and no ligatures of hyphens."""
    return re.sub("-(?=-)", "-{}", "".join(_LATEX_ESCAPES.get(c, c) for c in one_line(text)))


def _csv_cells(value: CellValue, count: int) -> list[str]:
    if isinstance(value, (MeanStd, IntervalBounds)):
        return [_csv_text(v) for v in value]
    return [_csv_text(value)] + [""] * (count - 1)


def _csv_text(value: CellValue) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape_formula(one_line(value))
    number = float(value)  # type: ignore[arg-type]
    return "" if not math.isfinite(number) else str(int(number)) if number.is_integer() else repr(number)
