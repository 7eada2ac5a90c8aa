"""Names of columns and values of cells: how every table and every array of names is read, whatever its format.

A name is compared as a person reads it: in Unicode's NFC form, without invisible characters, with single spaces and none at the
ends. A whole number is one name however it is written: 1, 1.0 and "1" are the name `1`; 01 stays `01`.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.language.unit_words import ROW

# Characters that no one sees: control characters but white space, marks of byte order and direction, zero-width spaces, soft
# hyphens, variation selectors 15 and 16.
_INVISIBLE = re.compile(
    "[\0-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe0e\ufe0f\ufeff]"
)
_JOINERS = "\u200c\u200d"  # they shape letters inside a word, and do nothing at its ends
_WHOLE_NUMBER = re.compile(r"(-?[1-9][0-9]*|0)\.0+")
_MISSING_WORDS = frozenset({"nan", "none", "null", "<na>", "n/a", "na", "nat", "#n/a"})
# Columns that say which rows belong together: `patient_id`, `PatientID`, `subjects`, `lesion_id`.
_PERSON_NAME = re.compile(
    r"(?:^|[^a-z])(?:patients?|subjects?|persons?|participants?|individuals?|probands?|volunteers?|donors?|animals?|lesions?)"
    r"(?:[^a-z]|id|no|nr|num|name|code|$)",
    re.IGNORECASE,
)
# Columns that say which rows are for training: `Usage`, `data_split`, `fold`.
_PART_NAME = re.compile(r"set|parts?|(?:.*[^a-z])?(?:split|subset|partition|phase|usage|fold)s?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"\s*[+-]?[0-9]+,[0-9]+(?:[eE][+-]?[0-9]+)?\s*")


def remove_invisible(text: str) -> str:
    """Text in NFC, without the characters that no one sees."""
    return text if text.isascii() and text.isprintable() else _INVISIBLE.sub("", unicodedata.normalize("NFC", text))


def clean_name(text: str) -> str:
    """A name as a person reads it: NFC, without invisible characters, single spaces, none at the ends.

    >>> clean_name("\\ufeffLabel\\u00a0 ")
    'Label'
    """
    if not (text.isascii() and text.isprintable()):
        text = remove_invisible(text).strip().strip(_JOINERS)
    return " ".join(text.split())


def clean_cell(value: Any) -> str:
    """A cell of any type → the name it stands for, "" where it is missing (None, NaN, pandas' NA and NaT, white space).

    >>> clean_cell(1.0), clean_cell("1.0"), clean_cell(" 01 "), clean_cell(None)
    ('1', '1', '01', '')
    """
    if type(value) is not str:
        if is_missing(value):
            return ""
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif hasattr(value, "item") and not isinstance(value, str):  # a NumPy scalar or a tensor
            value = value.item()
        if isinstance(value, float):
            return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    text = clean_name(str(value))
    number = _WHOLE_NUMBER.fullmatch(text) if "." in text else None
    return number[1] if number else text


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas' NA or NaT."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and math.isnan(value))


def is_missing_word(text: str) -> bool:
    """Whether text is what other programs write for a missing value: `NA`, `nan`, `None`, `<NA>`."""
    return text.casefold() in _MISSING_WORDS


def clean_path(text: str) -> str:
    """A path as written in a table, also on Windows → with `/`, without invisible characters or white space at its ends."""
    return remove_invisible(text).replace("\u00a0", " ").strip().replace("\\", "/")


def parse_number(text: str, decimal_comma: bool = False) -> float | str:
    """Text → a number, or the text where it is none. decimal_comma: whether 0,5 is a half."""
    try:
        return float(text.replace(",", ".") if decimal_comma and _DECIMAL_COMMA.fullmatch(text) else text)
    except ValueError:
        return text


def find_columns(
    place: str,
    header: Sequence[str],
    known: Iterable[str],
    columns: Mapping[str, str] | None = None,
    required: Iterable[str] = (),
) -> dict[str, int]:
    """Our column name → its position in the header; case and white space of a name do not matter.

    known:    our names · columns: our name → the table's, where they differ · required: our names that must be there
    Raises DataError for a column that is required or named in `columns` and missing, and for two columns of one name.
    """
    columns = columns or {}
    found = {ours: at for ours in known if ours not in columns and (at := _find_column(place, header, ours)) is not None}
    for ours, theirs in columns.items():
        at = _find_column(place, header, theirs, ours)
        if at is None:
            raise DataError(
                f"{place} has no column '{theirs}' (columns.{ours}){did_you_mean(theirs, header)}; it has {join_words(header)}"
            )
        found[ours] = at
    for ours in required:
        if ours not in found:
            raise DataError(
                f"{place} has no column '{ours}'{did_you_mean(ours, header)}; it has {join_words(header)}; "
                f"name the right one with columns: {{{ours}: NAME}}"
            )
    return found


def _find_column(place: str, header: Sequence[str], theirs: str, ours: str | None = None) -> int | None:
    """The position of a column. ours: our name, where the user gave theirs, which then settles which of two is meant."""
    wanted = clean_name(theirs)
    same = [at for at, name in enumerate(header) if clean_name(name).casefold() == wanted.casefold()]
    exact = [at for at in same if header[at] == theirs]
    if ours is not None and len(exact) == 1:
        return exact[0]
    if len(same) > 1:
        names = " and ".join(f"'{header[at]}'" for at in same)
        raise DataError(
            f"{place} has {len(same)} columns called {names}, and one {ours or theirs} is expected: rename or remove the others"
        )
    return same[0] if same else None


def check_filled(values: Sequence[str], column: str, where: str | Callable[[int], str], unit: str = "rows") -> bool:
    """Whether a column of cleaned cells has values. Raises DataError, with counts, where only some rows have one.

    where: the place, or a function: row → its place
    """
    empty = sum(not value for value in values)
    if empty == len(values):
        return False
    if empty:
        place = where if isinstance(where, str) else where(values.index(""))
        raise DataError(
            f"{place}: the {column} is empty here and given elsewhere ({empty:,} of {len(values):,} {unit} have none); "
            f"give every row a {column} (one of its own where it stands alone), or leave the column out"
        )
    return True


def describe_missing_words(names: Iterable[str], what: str) -> tuple[str, ...]:
    """A note for names that other programs write for a missing value (`nan`, `None`, `<NA>`). what: `groups`"""
    counts = Counter(name for name in names if is_missing_word(name))
    if not counts:
        return ()
    words, total = join_words([f"'{name}'" for name in sorted(counts)]), sum(counts.values())
    rows = f"{ROW.count(total)} {'has' if total == 1 else 'have'}"
    return (f"{rows} {words} among the {what}, which other programs write for a missing value: it was read as a name",)


def describe_case_collisions(names: Iterable[str], what: str) -> tuple[str, ...]:
    """A note for names that differ in case only; none where all differ otherwise. what: `class names`, `groups`."""
    by_lower: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_lower.setdefault(name.casefold(), []).append(name)
    same = [group for group in by_lower.values() if len(group) > 1]
    return tuple(f"{what} that differ in case only: {join_words(group)}" for group in same[:3])


def describe_unread_groups(unread: Iterable[str], way_out: str = "name it with columns: {group: NAME}") -> tuple[str, ...]:
    """A note for columns that were not read and are called as groups are; none where there is none.

    way_out: how it is read; NAME stands for the column
    >>> describe_unread_groups(["width", "PatientID"])
    ("the column 'PatientID' was not read; if it says which rows belong together, name it with columns: {group: PatientID}",)
    """
    found = [name for name in dict.fromkeys(unread) if _PERSON_NAME.search(name)]
    if not found:
        return ()
    return (_describe_unread(found, "which rows belong together", way_out.replace("NAME", found[0])),)


def describe_unread_parts(unread: Iterable[str]) -> tuple[str, ...]:
    """A note for a column that was not read and is called as official parts or folds are; none where there is none.

    >>> describe_unread_parts(["width", "Usage"])
    ("the column 'Usage' was not read; if it says which rows are for training, name it with columns: {split: Usage}",)
    """
    found = list(dict.fromkeys(name for name in unread if _PART_NAME.fullmatch(name)))
    if not found:
        return ()
    folds = [name for name in found if "fold" in name.casefold()]
    ways_out = [f"name it with columns: {{split: {name}}}" for name in found if name not in folds][:1]
    ways_out += ["write a folds file of it (protocol: {split: file, folds_file: FILE})"] if folds else []
    return (_describe_unread(found, "which rows are for training", join_words(ways_out)),)


def _describe_unread(found: list[str], meaning: str, way_out: str) -> str:
    what = f"column '{found[0]}' was" if len(found) == 1 else f"columns {join_words([f'{name!r}' for name in found], 3)} were"
    one = "it says" if len(found) == 1 else "one of them says"
    return f"the {what} not read; if {one} {meaning}, {way_out}"
