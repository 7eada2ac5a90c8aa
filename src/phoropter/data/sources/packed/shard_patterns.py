"""Patterns of the names of shards, as WebDataset writes them: `data-{000..003}.tar`, `{train,val}.tar`, `data-*.tar`."""

from __future__ import annotations

from pathlib import Path

from phoropter.core.errors import DataError, join_words
from phoropter.data.sources.packed.shards import list_files
from phoropter.data.stores.shard_names import BRACES, expand_braces


def list_shards(path: Path, endings: tuple[str, ...]) -> tuple[list[Path], Path]:
    """(files in order, where their names start). Raises DataError for files that are not there, and for other braces."""
    if path.exists() or ("*" not in path.name and not BRACES.search(path.name)):
        return list_files(path, endings, "tar"), path
    names = [path.name] if "*" in path.name else expand_braces(path.name)
    files = sorted(path.parent.glob(path.name)) if "*" in path.name else [path.parent / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise DataError(
            f"{path}: {len(missing)} of {len(names)} files are not there ({join_words(missing or names, 3)}); check the pattern"
        )
    return files, path.parent
