"""Patterns of the names of shards, as WebDataset writes them: `data-{000..003}.tar`, `{train,val}.tar`, `data-*.tar`."""

from __future__ import annotations

import re
from itertools import islice, product
from pathlib import Path

from phoropter.core.errors import DataError, join_words
from phoropter.data.sources.packed.shards import list_files

MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{([^{}]*)\}")


def list_shards(path: Path, endings: tuple[str, ...]) -> tuple[list[Path], Path]:
    """(files in order, where their names start). Raises DataError for files that are not there, and for other braces."""
    if path.exists() or ("*" not in path.name and not _BRACES.search(path.name)):
        return list_files(path, endings, "tar"), path
    names = [path.name] if "*" in path.name else _expand_braces(path.name)
    files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path.parent / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise DataError(
            f"{path}: {len(missing)} of {len(names)} files are not there ({join_words(missing or names, 3)}); check the pattern"
        )
    return files, path.parent


def _expand_braces(text: str) -> list[str]:
    """`a-{00..02}.tar` and `{train,val}.tar` → every name, in order. Raises DataError for other braces."""
    choices: list[list[str]] = []
    for inside in _BRACES.findall(text):
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
    pieces = _BRACES.split(text)[::2]
    names = islice(product(*choices), MAX_SHARDS)
    return ["".join(a + b for a, b in zip(pieces, (*chosen, ""), strict=True)) for chosen in names]
