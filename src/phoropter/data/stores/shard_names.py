"""Names of shards and of what lies beside them: `data-{000..003}.tar`, `{train,val}.tar`, names of classes."""

from __future__ import annotations

import re
from itertools import islice, product

from phoropter.core.errors import DataError

CLASS_FILES = ("classnames.txt", "classes.txt", "labels.txt")  # names of classes by number, a line each, beside shards
MAX_SHARDS = 100_000
BRACES = re.compile(r"\{([^{}]*)\}")


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
