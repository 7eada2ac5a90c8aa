"""Cells of the CSV files that phoropter writes: text that a spreadsheet would run as a formula is written as text.

A cell that begins with one of `=`, `+`, `-`, `@`, a tab or a carriage return is a formula to Excel and LibreOffice (OWASP, CSV
injection); an apostrophe before it makes it text. Plain numbers stay as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_PLAIN_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(inf|nan)")


def escape_formula(text: str) -> str:
    """The text as a cell that no spreadsheet runs.

    >>> escape_formula("=1+1"), escape_formula("-0.5"), escape_formula("cat")
    ("'=1+1", '-0.5', 'cat')
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) and not _PLAIN_NUMBER.fullmatch(text) else text


def unescape_formula(text: str) -> str:
    """What `escape_formula` was given."""
    return text[1:] if text[:1] == "'" and escape_formula(text[1:]) == text else text


def format_csv(rows: Iterable[Iterable[Any]], line_end: str = "\r\n") -> str:
    """Rows of text, numbers or None → CSV. Every text is escaped, those of the header too."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=line_end)
    writer.writerows([escape_formula(str(c)) if isinstance(c, str) else c for c in row] for row in rows)
    return file.getvalue()


def read_csv_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that phoropter wrote, by column. Raises OSError, and ValueError for any other file."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file, strict=True)) or [[]]
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if len(set(header)) != len(header) or any(len(row) != len(header) for row in rows if row):
        raise ValueError("its rows do not have a value for each column")
    names = [unescape_formula(name) for name in header]
    return [dict(zip(names, map(unescape_formula, row), strict=True)) for row in rows if row]
