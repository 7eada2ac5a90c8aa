"""Names of shards and of what lies beside them: `data-{000..003}.tar`, `{train,val}.tar`, names of classes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from itertools import count, islice, product
from pathlib import Path

from phoropter.core.errors import DataError, join_words

CLASS_FILES = ("classnames.txt", "classes.txt", "labels.txt")  # names of classes by number, a line each, beside shards
MAX_SHARDS = 100_000
BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERED = re.compile(r"(.*?)[-_]?([0-9]{2,})[-_]of[-_]([0-9]{2,})(?![0-9]).*")


def expand_braces(text: str) -> list[str]:
    """`a-{00..02}.tar` and `{train,val}.tar` → every name, in order. Raises DataError for other braces."""
    choices: list[list[str]] = []
    for inside in BRACES.findall(text):
        if numbers := re.fullmatch(r"([0-9]+)\.\.([0-9]+)", inside):
            first, last = (int(n) for n in numbers.groups())
            if not 0 <= last - first < MAX_SHARDS:
                raise DataError(
                    f"shards: {{{inside}}} means {last - first + 1:,} files; expected 1 to {MAX_SHARDS:,}, as in {{000..003}}"
                )
            width = len(numbers[1])
            choices.append([f"{n:0{width}d}" for n in range(first, last + 1)])
        elif "," in inside:
            choices.append(inside.split(","))
        else:
            raise DataError(f"shards: {{{inside}}} is no range; expected {{000..003}} or {{train,val}}")
    pieces = BRACES.split(text)[::2]
    names = islice(product(*choices), MAX_SHARDS)
    return ["".join(a + b for a, b in zip(pieces, (*chosen, ""), strict=True)) for chosen in names]


def describe_incomplete_sets(files: Iterable[Path]) -> tuple[str, ...]:
    """Notes on sets of files called `NAME-00000-of-00003`, from 0 or from 1, of which one is not there, or is there twice."""
    sets: dict[tuple[Path, str, str], dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in dict.fromkeys(files):
        if match := _NUMBERED.fullmatch(file.name):
            sets[file.parent, match[1], match[3]][int(match[2])].append(file.name)
    notes = []
    for (folder, name, digits), numbers in sets.items():
        first, total = int(0 not in numbers and int(digits) in numbers), int(digits)
        if missing := total - sum(first <= number < first + total for number in numbers):
            # without either end nothing tells whether the set counts from 0 or from 1
            begins = (0, 1) if 0 not in numbers and total not in numbers else (first,)
            lost = (next(number for number in count(begin) if number not in numbers) for begin in begins)
            notes.append(
                f"WARNING: {missing:,} of the {total:,} files {folder.name}/{name}-*-of-{digits} are not there (the first: "
                f"{join_words(dict.fromkeys(f'{number:0{len(digits)}d}' for number in lost))}), and their rows are missing: copy "
                "them too"
            )
        for names in numbers.values():
            if len(names) > 1:
                notes.append(
                    f"WARNING: {join_words(sorted(names), 3)} in {folder.name} are the same one of {total:,} files, and all were "
                    "read: remove all but one"
                )
    return tuple(notes)
