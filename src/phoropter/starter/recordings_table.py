"""A table of what is known of recordings (labels, outcomes, people, hospitals) as columns of the manifest that init writes.

Such tables come out of another system than the recordings: a row for each recording or person, and one column of their names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.columns import describe_unread_groups, parse_number
from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.text_table import read_text_table
from phoropter.signals.outcomes import list_outcome_keys
from phoropter.starter.first_look import LABEL_COLUMN

_SITE_COLUMN = re.compile(r"(?i)^(site|hospital|centre|center|clinic|institution|ward|device)s?$")


@dataclass(frozen=True)
class RecordingsTable:
    """What a table says of some recordings.

    matched: (recordings it has a row for) their places among those asked for, in their order
    columns: our name of a column (label, subject, site, outcome.KEY, about.KEY) → (matched) its cells
    named_by: the column that names the recordings · unused: names in it that no recording has
    """

    matched: tuple[int, ...]
    columns: dict[str, list[str]]
    named_by: str
    unused: tuple[str, ...] = ()


def read_recordings_table(file: Path, names: Sequence[str], people: Sequence[str], rule: str | None) -> RecordingsTable:
    """The rows of a table that speak of these recordings.

    A recording is named by its path without ending, by the name of its file with or without ending, or by its person.
    names: (N) paths below the folder, with ending · people: (N) as names tell them, or empty
    rule: of outcomes, such as pH<=7.15: the columns that it asks for become outcomes, whatever their capital letters
    Raises DataError where no column names a recording or two do, one is named twice, or the rule's column is not there.
    """
    table = read_text_table(file)
    rows = list(table.rows)
    place, row_of = _find_naming_column(file, table.header, rows, _list_names(names, people))
    ours = _name_columns(file, table.header, place, rule)
    matched = tuple(recording for recording, row in enumerate(row_of) if row is not None)
    found = [row for row in row_of if row is not None]
    cells = {name: [_write_point(rows[row][1][at], table.decimal_comma) for row in found] for name, at in ours.items()}
    used = set(found)
    unused = tuple(name for row, (_, line) in enumerate(rows) if row not in used and (name := line[place]))
    return RecordingsTable(matched, cells, table.header[place], unused)


def _write_point(cell: str, decimal_comma: bool) -> str:
    """A number with a decimal comma as the manifest, whose cells are separated by commas, has numbers; all else as it is."""
    return cell.replace(",", ".") if decimal_comma and isinstance(parse_number(cell, True), float) else cell


def _list_names(names: Sequence[str], people: Sequence[str]) -> list[tuple[str, ...]]:
    """What each recording may be called in a table, the more exact first."""
    listed = []
    for n, name in enumerate(names):
        path = Path(name)
        listed.append((name, path.with_suffix("").as_posix(), path.name, path.stem, *people[n : n + 1]))
    return listed


def _find_naming_column(
    file: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]], called: Sequence[tuple[str, ...]]
) -> tuple[int, list[int | None]]:
    """The column that names most recordings, each of them once, and the row of each; None where there is none.

    Recordings are often called by numbers, which ages and years are too: such a column has most values twice, and where two
    columns would do, neither is taken.
    """
    known = {name for each in called for name in each}
    found: list[tuple[bool, int, int, list[int | None]]] = []
    for at in range(len(header)):
        cells = [line[at] for _, line in rows]
        row_of_cell = {cell: row for row, cell in enumerate(cells) if cell}
        row_of = [next((row_of_cell[name] for name in each if name in row_of_cell), None) for each in called]
        named = [cell for cell in cells if cell in known]
        if count := sum(row is not None for row in row_of):
            found.append((len(set(named)) == len(named), count, at, row_of))
    if not found:
        raise DataError(
            f"{file}: no column names a recording: they are called {join_words([each[3] for each in called], 3)}; "
            f"there are the columns {join_words(header)}"
        )
    best, *others = sorted(found, key=lambda each: (not each[0], -each[1], each[2]))
    is_single, count, place, row_of = best
    if is_single:
        for other in (each for each in others if each[0] and 2 * each[1] >= count and each[3] != row_of):
            both = f"the columns {header[place]} and {header[other[2]]} both have names of recordings"
            raise DataError(f"{file}: {both}, on different lines; leave one of them out of the table")
    else:
        _refuse_doubled(file, header[place], ((line, cells[place]) for line, cells in rows), known)
    return place, row_of


def _refuse_doubled(file: Path, column: str, cells: Iterable[tuple[int, str]], known: set[str]) -> None:
    """Raises DataError where two lines name one recording: which of them holds is not to be guessed."""
    lines: dict[str, int] = {}
    for line, cell in cells:
        if cell in known and cell in lines:
            both = f"lines {lines[cell]} and {line} have the same {column}, '{cell}'"
            raise DataError(f"{file}: {both}; expected one line for each")
        lines[cell] = line


def _name_columns(file: Path, header: Sequence[str], place: int, rule: str | None) -> dict[str, int]:
    """Our name of each column but the one of names → its position."""
    places = {name.casefold(): at for at, name in enumerate(header)}
    ours: dict[str, int] = {}
    for key in list_outcome_keys(rule) if rule else ():
        if key.casefold() not in places:
            others = [name for at, name in enumerate(header) if at != place]
            there = f"there are {join_words(others)}{did_you_mean(key, others)}"
            raise DataError(f"{file}: {rule} asks for the column {key}, {there}")
        ours[f"outcome.{key}"] = places[key.casefold()]
    taken = {place, *ours.values()}
    for at, name in enumerate(header):
        if at in taken or not name:
            continue
        if LABEL_COLUMN.match(name):
            kind = "label"
        elif _SITE_COLUMN.match(name):
            kind = "site"
        else:
            kind = "subject" if describe_unread_groups([name]) else ""
        ours[f"about.{name}" if not kind or kind in ours else kind] = at
    return ours
