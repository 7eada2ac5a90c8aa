"""Data in an S3-compatible object store, `s3://BUCKET/PLACE`, and the copy of them that a machine reads.

    CACHE/data/DIGEST/NAME/…      the objects below the place; NAME is the last of the address, so that data are called alike
    CACHE/data/DIGEST/.copy.json  name → [tag, bytes] of what was copied

All processes of a machine share one copy. Each opening asks the store what it holds: what is new or has another tag is fetched,
and what is gone there is removed, so that a copy never holds rows that the store does not.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from phoropter.core.errors import DataError
from phoropter.core.files import digest, file_lock, format_bytes, make_folder, read_json, require_space, write_json
from phoropter.core.storage.checksums import print_notice
from phoropter.core.storage.object_store import explain_store_errors, open_object_store

MAX_OBJECTS = 2_000_000
MAX_NOTE_BYTES = 1 << 30
_CONNECTIONS = 16
_TABLES = (".csv", ".tsv", ".json", ".jsonl")  # which name files beside them
_ADVICE = "what was copied is kept, and the same command goes on when the store answers"

Copied = dict[str, list[Any]]  # name → [tag, bytes]


def find_address(path: Path) -> str | None:
    """`s3://BUCKET/PLACE` of a path that was made of it, which joins its slashes; None of any other."""
    bucket = re.fullmatch(r"s3:/+([^/]+/.+)", path.as_posix())
    return f"s3://{bucket[1]}" if bucket else None


def copy_from_store(address: str, cache: Path) -> Path:
    """The local path of a place in a store: a folder, a file, or a pattern of names of shards; copied where it is not there yet.

    Of a table of names (CSV, TSV, JSON) all that lies in its folder is copied, because it names files there.
    Raises DataError where nothing is there, or too much, or a name that leaves the folder; DiskError where the store does not
    answer or the disk is too small; MissingExtraError.
    """
    folder, name = address.rstrip("/").rpartition("/")[::2]
    is_pattern = "*" in name or "{" in name
    if name.endswith(_TABLES) and not is_pattern:
        return _copy_objects(folder, "**", cache) / name
    if is_pattern:
        return _copy_objects(folder, re.sub(r"\{[^{}]*\}", "*", name), cache) / name
    if _is_object(folder, name):
        return _copy_objects(folder, name, cache) / name
    return _copy_objects(address.rstrip("/"), "**", cache)


def _is_object(folder: str, name: str) -> bool:
    with explain_store_errors(folder, _ADVICE):
        try:
            open_object_store(folder, "data in s3://…").head(name)
        except FileNotFoundError:
            return False
    return True


def _copy_objects(folder: str, wanted: str, cache: Path) -> Path:
    """Brings the copy of `folder` up to date in what is wanted: `**` is everything below it, else a pattern of names in it."""
    if folder.count("/") < 2:
        raise DataError(f"{folder} is no place in a store, expected s3://BUCKET/PLACE")
    place = cache / digest([folder, wanted])[:16]
    copy = place / (re.sub(r"[^\w.-]+", "-", folder.rpartition("/")[2]).lstrip(".") or "data")
    note = place / ".copy.json"
    client = open_object_store(folder, "data in s3://…")
    with file_lock(place / ".copy.lock"), explain_store_errors(folder, _ADVICE):
        there = _list_objects(client, folder, wanted)
        before: Copied = read_json(note, MAX_NOTE_BYTES, DataError) if note.exists() else {}
        here = {name: entry for name, entry in before.items() if _has_size(copy / name, entry[1])}
        missing = {name: entry for name, entry in there.items() if here.get(name) != entry}
        size = sum(entry[1] for entry in missing.values())
        if missing:
            require_space(cache, size, f"copying {folder}")
            print_notice(f"copying {len(missing):,} files ({format_bytes(size)}) from {folder}")
        for name in sorted(before.keys() - there.keys()):
            (copy / name).unlink(missing_ok=True)
        try:
            for name in _fetch_objects(client, missing, copy):
                here[name] = missing[name]
        finally:
            if missing or before.keys() != there.keys():
                make_folder(copy)
                write_json(note, {name: here[name] for name in sorted(here.keys() & there.keys())})
    return copy


def _list_objects(client: Any, folder: str, wanted: str) -> Copied:
    """What is in the store, by name. Raises DataError for nothing, too much, and names that would leave the copy."""
    found: Copied = {}
    for page in client.list(chunk_size=1000):
        for entry in page:
            name = str(entry["path"])
            if wanted != "**" and ("/" in name or not fnmatch.fnmatchcase(name, wanted)):
                continue
            if name.startswith("/") or "\\" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise DataError(f"{folder} has an object called '{name}', which is no path below it; rename it")
            found[name] = [entry["e_tag"] or str(entry["last_modified"]), int(entry["size"])]
            if len(found) > MAX_OBJECTS:
                raise DataError(f"{folder} has more than {MAX_OBJECTS:,} objects; pack them into shards (phoropter pack)")
    if not found:
        raise DataError(f"{folder}{'' if wanted == '**' else f'/{wanted}'}: nothing is there; check the address")
    for name in found:
        if any(str(above) in found for above in PurePosixPath(name).parents):
            raise DataError(f"{folder}: '{name}' lies in a folder whose name is that of an object, too; rename one of them")
    return found


def _fetch_objects(client: Any, missing: Copied, copy: Path) -> Iterator[str]:
    """Yields the name of each object that was fetched whole, several at a time."""

    def fetch(name: str) -> str:
        target = copy / name
        make_folder(target.parent)
        aside = target.with_name(f".{target.name}.part")
        with aside.open("wb") as file:
            for chunk in client.get(name).stream():
                file.write(chunk)
        if aside.stat().st_size != missing[name][1]:
            raise DataError(f"'{name}' has changed in the store while it was copied; give the command again")
        aside.replace(target)
        return name

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        try:
            yield from pool.map(fetch, missing)
        finally:
            pool.shutdown(cancel_futures=True)


def _has_size(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False
