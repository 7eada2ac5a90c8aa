"""What a results folder and its cache hold that nothing needs any more, and deleting it.

Freed are checkpoints of finished runs, damaged files that were made again, and what a killed process left half-written. Caches
only where asked, and only once every study beside them is finished: deleting them costs the time to make them again. Never freed
are finished runs, also those of an earlier plan: they are results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from phoropter.core.errors import StoreError
from phoropter.core.files import UNFINISHED_MARK, cache_dir
from phoropter.core.storage.checksums import remove_path
from phoropter.operations.verify import CACHE_FOLDERS
from phoropter.results.running_commands import list_running_commands
from phoropter.results.store import Store


@dataclass(frozen=True)
class Unneeded:
    """path: a file or a folder · size: in bytes, of all it holds · why: nothing needs it, in words"""

    path: Path
    size: int
    why: str


def find_unneeded(folder: Path, with_cache: bool = False) -> list[Unneeded]:
    """What can be deleted of a results folder, and with `with_cache` of its cache. Nothing is changed.

    Raises StoreError for no results folder, for one in which a command computes, and, with `with_cache`, where a study that uses
    the cache is not finished or not all of them can be known.
    """
    store = Store(folder)
    raise_on_running_commands(folder)
    found = dict(_find_in_results(store))
    if with_cache:
        cache = cache_dir(folder)
        _raise_on_needed_cache(cache)
        found |= {cache / name: "a cache of finished studies" for name in CACHE_FOLDERS if (cache / name).exists()}
    return [Unneeded(path, _measure_bytes(path), why) for path, why in sorted(found.items())]


def delete_unneeded(folder: Path, items: list[Unneeded]) -> int:
    """Deletes what `find_unneeded` found in `folder`; returns how many bytes.

    Raises StoreError where a command computes there by now.
    """
    raise_on_running_commands(folder)
    for item in items:
        remove_path(item.path)
    return sum(item.size for item in items if not item.path.exists())


def raise_on_running_commands(folder: Path) -> None:
    """Raises StoreError where a command computes in a results folder now."""
    if running := list_running_commands(folder):
        raise StoreError(
            f"{running[0]} computes in {folder} now (host and process): wait until it is done, or stop it with "
            f"`phoropter cancel {folder}`"
        )


def _find_in_results(store: Store) -> Iterator[tuple[Path, str]]:
    folder = store.folder
    planned = set(store.planned_keys)
    for work in sorted((folder / "work").glob("[0-9a-f]*/")):
        if work.name in store:
            yield work, "checkpoints of a finished run"
        elif work.name not in planned:
            yield work, "checkpoints of a run that is not in the plan any more"
    for damaged in sorted((folder / "damaged").glob("[0-9a-f]*/")):
        if damaged.name in store:
            yield damaged, "a damaged run that was made again"
    for place, folders, files in os.walk(folder):
        here = Path(place)
        for name in sorted((*folders, *files)):
            if UNFINISHED_MARK in name and name.startswith("."):
                yield here / name, "left half-written by a process that was killed"
            elif name.endswith(".damaged"):
                yield here / name, "a damaged file that was made again"
        folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith(".damaged")]


def _raise_on_needed_cache(cache: Path) -> None:
    """Raises StoreError unless the cache lies beside its results folders and every run of each of them is finished."""
    if os.environ.get("PHOROPTER_CACHE"):
        raise StoreError(
            f"PHOROPTER_CACHE names {cache}, which results folders anywhere may use: delete it yourself when no study needs it"
        )
    for study in sorted((*cache.parent.glob("*/study.json"), *cache.parent.glob("*/*/study.json"))):
        store = Store(study.parent)
        raise_on_running_commands(store.folder)
        if missing := len(store.planned_rows) - store.count_finished_runs():
            raise StoreError(f"{cache} is needed by {store.folder}, of which {missing} runs are not finished: run it first")


def _measure_bytes(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
