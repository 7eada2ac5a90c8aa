"""A manifest of recordings for a folder that has none: their paths, and who and what they are of as far as names tell.

Labels are the folders the files lie in, else the word of their names that takes a few values, each in several files. Where
nothing tells them, the column is left empty for somebody to fill in: what a recording shows is not to be guessed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.errors import SpecError
from phoropter.core.files import write_text
from phoropter.core.storage.csv_cells import format_csv
from phoropter.core.text_table import peek_table
from phoropter.signals.readers.monitor_csv import read_export
from phoropter.signals.readers.tables import RECORDING_ENDINGS
from phoropter.signals.readers.time_column import find_time_column
from phoropter.starter.first_look import find_shared_numbers, relate_path

_TABLE = ".csv"  # the only ending of text that a manifest of recordings may list
MAX_CLASSES = 12
_NO_LABELS = [""]


@dataclass(frozen=True)
class RecordingsList:
    """file: the manifest that was written · count: of recordings · people: that names tell apart; 0: they tell none
    told_by: what the labels are taken from; None: they are empty
    """

    file: Path
    count: int
    people: int
    told_by: str | None


def write_recordings_list(folder: Path, out: Path) -> RecordingsList | None:
    """Writes the manifest of the recordings in a folder beside a study file; None for a folder without recordings.

    Tables are recordings where they have a column of times; their rate is that of the first, and a study holds it against the
    times of each. Raises SpecError for a manifest that is there already.
    """
    files = _list_recordings(folder)
    if not files:
        return None
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    people = _tell_people(names)
    labels, told_by = _tell_labels(names)
    is_table = [file.suffix.lower() == _TABLE for file in files]
    rate = f"{read_export(files[is_table.index(True)]).rate_hz:g}" if any(is_table) else ""
    columns = {"path": [relate_path(file.absolute(), out.absolute().parent) for file in files], "label": labels}
    columns |= {"subject": people} if people else {}
    columns |= {"rate_hz": [rate if has_rate else "" for has_rate in is_table]} if any(is_table) else {}
    manifest = out.with_name(f"{folder.name}-recordings.csv")
    if manifest.exists():
        raise SpecError(
            f"{manifest} is there already: `phoropter init {manifest}` reads it; or remove it, and it is written anew"
        )
    write_text(manifest, format_csv([list(columns), *zip(*columns.values(), strict=True)], line_end="\n"))
    return RecordingsList(manifest, len(files), len(set(people)), told_by)


def _list_recordings(folder: Path) -> list[Path]:
    found = []
    for file in sorted(folder.rglob("*")):
        ending = file.suffix.lower()
        if file.name.startswith(".") or not file.is_file():
            continue
        if ending in RECORDING_ENDINGS or (ending == _TABLE and find_time_column(peek_table(file)[0]) is not None):
            found.append(file)
    return found


def _tell_people(names: Sequence[str]) -> list[str]:
    """Who each is of, by a number that several names share, or by names that several folders share; empty where nothing tells."""
    if found := find_shared_numbers(names):
        return found[1]
    alone = [name.rpartition("/")[2] for name in names]
    return alone if len(set(alone)) < len(alone) else []


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
