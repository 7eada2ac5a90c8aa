"""Text tables as people export them: encoding, separator, decimal mark and header, found from the first lines of a file.

    time;ECG            sep=;              "time [s]"<TAB>"ECG [mV]"
    0,00;0,0025         time;ECG           0.00<TAB>0.0025
    0,02;-0,0026        0,00;0,0025

A separator is accepted where every line has as many cells as the header; the header decides where no separator fits all lines.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.columns import clean_name, remove_invisible

HEAD_BYTES = 256 * 1024
SEPARATORS = ("\t", ";", "|", ",")  # in order of preference: a comma may be a decimal mark
_SEPARATOR_LINE = re.compile(r'^"?sep=(.)"?\s*$', re.IGNORECASE)
_COMMA_NUMBER = re.compile(r"[-+]?\d*,\d+(?:[eE][-+]?\d+)?")
_POINT_NUMBER = re.compile(r"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")
_BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class DelimitedFormat:
    """How a text table is written.

    separator: between cells; "," for a table of one column
    decimal:   "." or ","
    lines_before_header: blank lines and Excel's `sep=` line, which precede the header
    header:    its cells as names (core/columns); two may be equal, and one may be empty
    widths:    cells in each of the first lines of data
    """

    separator: str
    decimal: str
    lines_before_header: int
    header: tuple[str, ...]
    widths: tuple[int, ...]

    @property
    def first_data_line(self) -> int:
        """The number of the line below the header, counted from 1."""
        return self.lines_before_header + 2


def detect_text_encoding(head: bytes) -> str:
    """The encoding of a text by its first bytes: its byte order mark's, UTF-16 where every other byte of the first line is zero,
    UTF-8, or Windows-1252 (with µ and umlauts)."""
    for mark, encoding in _BOMS.items():
        if head.startswith(mark):
            return encoding
    line = head[:64]
    for first, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(line) >= 8 and not any(line[first::2]) and all(line[1 - first :: 2]):
            return encoding
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # a character cut at the end is no fault
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def read_text_head(path: Path, limit: int = HEAD_BYTES) -> tuple[str, str]:
    """(text, encoding) of the first complete lines of a file, at most `limit` bytes. Raises OSError."""
    with path.open("rb") as file:
        data = file.read(limit)
    encoding = detect_text_encoding(data)
    text = data.decode(encoding, errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    return (text[: text.rfind("\n") + 1] or text) if len(data) == limit else text, encoding


def sniff_delimited_text(text: str) -> DelimitedFormat:
    """The format of a text table by its first lines. Raises ValueError where there is no line."""
    lines = text.split("\n")
    first = next((at for at, line in enumerate(lines) if remove_invisible(line).strip("\0 \t\r\f\v")), None)
    if first is None:
        raise ValueError("it is empty")
    separator = None
    if match := _SEPARATOR_LINE.match(remove_invisible(lines[first])):
        separator, first = match[1], first + 1
        while first < len(lines) and not lines[first].strip():
            first += 1
        if first == len(lines):
            raise ValueError("it holds a sep= line and nothing else")
    body = [remove_invisible(lines[first]).replace("\0", ""), *lines[first + 1 :]]
    separator, rows = (separator, _split_lines(body, separator)) if separator else _choose_separator(body)
    header = tuple(clean_name(cell) for cell in rows[0])
    return DelimitedFormat(separator, _find_decimal(rows[1:]), first, header, tuple(len(row) for row in rows[1:] if row))


def _choose_separator(lines: Sequence[str]) -> tuple[str, list[list[str]]]:
    """The separator with which every line is as long as the header, failing that, the one the header has most of; and cells."""
    # Most are nowhere in a file, and splitting its lines by each would take most of the time of reading it.
    tables = {separator: _split_lines(lines, separator) for separator in SEPARATORS if any(separator in line for line in lines)}
    fitting = [s for s, rows in tables.items() if len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows[1:] if row)]
    if fitting:
        best = max(fitting, key=lambda s: (s != ",", len(tables[s][0])))
        return best, tables[best]
    if absent := [separator for separator in SEPARATORS if separator not in tables]:
        tables |= dict.fromkeys(absent, _split_lines(lines, absent[0]))  # by each that is nowhere the cells are the same
    best = max(SEPARATORS, key=lambda s: (len(tables[s][0]), s == ","))
    return best, tables[best]


def _split_lines(lines: Sequence[str], separator: str) -> list[list[str]]:
    """Cells of each line; a blank line has none. A quoted cell with a line break counts as one line."""
    try:
        return [
            [] if not "".join(row).strip() and len(row) < 2 else row
            for row in csv.reader(lines, delimiter=separator, skipinitialspace=True)
        ]
    except csv.Error:  # a stray quote or a cell longer than csv allows
        return [line.split(separator) if line.strip() else [] for line in lines]


def _find_decimal(rows: Sequence[Sequence[str]]) -> str:
    """A comma where cells are numbers with a comma and none is a number with a point."""
    cells = [cell.strip() for row in rows for cell in row]
    return "," if any(map(_COMMA_NUMBER.fullmatch, cells)) and not any(map(_POINT_NUMBER.fullmatch, cells)) else "."
