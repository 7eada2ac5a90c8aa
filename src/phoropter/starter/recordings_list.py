"""A manifest of recordings for a folder that has none: their paths, and who and what they are of as far as names tell.

Labels are the folders the files lie in, else the word of their names that takes a few values, each in several files. Where
nothing tells them, the column is left empty for somebody to fill in: what a recording shows is not to be guessed. A table of what
is known of them goes before their names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.errors import DataError, SpecError, join_words
from phoropter.core.files import write_text
from phoropter.core.storage.csv_cells import format_csv
from phoropter.core.text_table import peek_table
from phoropter.signals.readers.monitor_csv import read_rate_hz
from phoropter.signals.readers.signal_tables import is_signal_schema
from phoropter.signals.readers.tables import RECORDING_ENDINGS
from phoropter.signals.readers.time_column import find_time_column
from phoropter.starter.first_look import find_shared_numbers, relate_path
from phoropter.starter.recordings_table import read_recordings_table

_TABLES = (".csv", ".parquet")  # the endings of tables that a manifest of recordings may list
_MAX_TRIED = 5  # tables whose times are asked for the rate
MAX_CLASSES = 12
_NO_LABELS = [""]


@dataclass(frozen=True)
class RecordingsList:
    """file: the manifest that was written · count: of recordings · people: that `people_by` tells apart; 0: nothing tells them
    told_by: what the classes are taken from; None: labels are empty · left_out: names of recordings that the table does not have
    unused: names in the table that no recording has · passed_over: tables in the folder without a column of times, or empty
    no_rate: why the times of tables give no rate, so that `rate_hz` is empty; "": they give one, or there are none
    """

    file: Path
    count: int
    people: int
    people_by: str
    told_by: str | None
    left_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    no_rate: str = ""


def write_recordings_list(folder: Path, out: Path, table: Path | None = None, rule: str | None = None) -> RecordingsList | None:
    """Writes the manifest of the recordings in a folder beside a study file; None for a folder without recordings.

    Tables are recordings where they have a column of times; their rate is that of the first that tells it, and a study holds it
    against the times of each. Raises SpecError for a manifest that is there already, and for a table that tells no classes.
    table: of what is known of them, joined by their names · rule: of its outcomes, which makes the classes in place of labels
    """
    name = folder.name if folder.name not in ("", "..") else folder.resolve().name  # of `.` and `..`
    manifest = out.with_name(f"{name}-recordings.csv")
    files, passed_over = _list_recordings(folder, table)
    if not files:
        return None
    if manifest.exists():
        raise SpecError(
            f"{manifest} is there already: `phoropter init {manifest}` reads it; or remove it, and it is written anew"
        )
    names = [file.relative_to(folder) for file in files]
    stems = [name.with_suffix("").as_posix() for name in names]
    people, people_by = _tell_people(stems)
    labels, told_by = _tell_labels(stems)
    columns = {"path": [relate_path(file.absolute(), out.absolute().parent) for file in files], "label": labels}
    columns |= {"subject": people} if people else {}
    rate, no_rate = "", ""
    if tables := {file for file in files if file.suffix.lower() in _TABLES}:
        rate, no_rate = _tell_rate(sorted(tables))
        columns["rate_hz"] = [rate if file in tables else "" for file in files]
    left_out: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    if table is not None:
        known = read_recordings_table(table, [name.as_posix() for name in names], people, rule)
        columns = {name: [cells[at] for at in known.matched] for name, cells in columns.items()} | known.columns
        told_by = _tell_classes(table, known.columns, rule, told_by)
        if rule:
            columns.pop("label")
        if "subject" in known.columns:
            people_by = f"a column of {table.name}"
        matched = set(known.matched)
        left_out = tuple(stem for at, stem in enumerate(stems) if at not in matched)
        unused = known.unused
    write_text(manifest, format_csv([list(columns), *zip(*columns.values(), strict=True)], line_end="\n"))
    count, n_people = len(columns["path"]), len(set(columns.get("subject", ())))
    return RecordingsList(manifest, count, n_people, people_by, told_by, left_out, unused, passed_over, no_rate)


def _tell_rate(tables: Sequence[Path]) -> tuple[str, str]:
    """(the rate of the first table whose times tell it, ""), or ("", why those of the first tell none)."""
    reasons = []
    for table in tables[:_MAX_TRIED]:
        try:
            return f"{read_rate_hz(table):g}", ""
        except DataError as error:
            reasons.append(str(error))
    return "", reasons[0]


def _tell_classes(table: Path, columns: dict[str, list[str]], rule: str | None, told_by: str | None) -> str:
    """What the classes are taken from. Raises SpecError where neither the table nor names nor a rule tell them."""
    if rule:
        return f"{rule} of {table.name}"
    if "label" in columns:
        return f"a column of {table.name}"
    if told_by is None:
        named = join_words([name.removeprefix("about.") for name in columns])
        raise SpecError(
            f"{table}: no column is called as labels are, and names tell none; say which outcome makes the classes, "
            f"as in --outcome 'pH<=7.15' (there are {named}), or call the column of classes `label`"
        )
    return told_by


def _list_recordings(folder: Path, table: Path | None) -> tuple[list[Path], tuple[str, ...]]:
    """Recordings below a folder, without the table of what is known of them; and the names of tables that are none."""
    found, passed_over = [], []
    real_table = table.resolve() if table else None
    for file in sorted(folder.rglob("*")):
        ending = file.suffix.lower()
        if ending not in (*RECORDING_ENDINGS, *_TABLES) or file.name.startswith(".") or not file.is_file():
            continue
        if real_table and file.resolve() == real_table:
            continue
        if ending in RECORDING_ENDINGS or _is_recording(file):
            found.append(file)
        else:
            passed_over.append(file.relative_to(folder).as_posix())
    return found, tuple(passed_over)


def _is_recording(table: Path) -> bool:
    if table.suffix.lower() == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        try:
            return is_signal_schema(parquet.read_schema(table))
        except (OSError, pa.ArrowException):  # no Parquet
            return False
    return find_time_column(peek_table(table)[0]) is not None


def _tell_people(names: Sequence[str]) -> tuple[list[str], str]:
    """Who each is of and what tells it; an empty list where nothing does.

    That is a number that several names share, a folder for each person, or a name that several folders share. Of folders and
    names that come again (P01/rest, P01/work; rest/P01, work/P01) people are those of which there are more.
    """
    if found := find_shared_numbers(names):
        return found[1], "their names"
    alone = [name.rpartition("/")[2] for name in names]
    folders = [name.rpartition("/")[0].rpartition("/")[2] for name in names]
    some_shared = len(set(alone)) < len(alone)
    if len(set(folders)) > len(set(alone)) or (not some_shared and _are_numbered(folders)):
        return folders, "the folders they lie in"
    return (alone, "their names") if some_shared else ([], "")


def _are_numbered(folders: Sequence[str]) -> bool:
    """Whether they may be folders of people with several recordings in most, as P01, P02 …"""
    counts = Counter(folders)
    shared = sum(count for count in counts.values() if count > 1)
    return len(counts) >= 3 and shared > len(folders) / 2 and all(any(c.isdigit() for c in folder) for folder in counts)


def _tell_labels(names: Sequence[str]) -> tuple[list[str], str | None]:
    """A label for each name and what tells it, or empty labels and None."""
    folders = [name.rpartition("/")[0].rpartition("/")[2] for name in names]
    if _are_classes(folders):
        return folders, "the folders they lie in"
    words = [re.split(r"[-_ .]+", name.rpartition("/")[2]) for name in names]
    for place in range(-1, -1 - min(map(len, words)), -1):
        values = [each[place] for each in words]
        if _are_classes(values) and not any(character.isdigit() for value in values for character in value):
            return values, "a word of their names"
    return _NO_LABELS * len(names), None


def _are_classes(values: Sequence[str]) -> bool:
    counts = Counter(values)
    return 2 <= len(counts) <= MAX_CLASSES and min(counts.values()) >= 2 and "" not in counts
