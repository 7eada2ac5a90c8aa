"""Data in an S3-compatible object store, `s3://BUCKET/PLACE`, and the copy of them that a machine reads.

    CACHE/data/DIGEST/NAME/…      the objects below the place; NAME is the last of the address, so that data are called alike
    CACHE/data/DIGEST/.copy.json  name → [tag, bytes] of what was copied

All processes of a machine share one copy. Each opening asks the store what it holds: what is new or has another tag is fetched,
and what is gone there is removed, so that a copy never holds rows that the store does not. What opens data several times for one
purpose, as `init` does, asks once (`ask_stores_once`).
"""

from __future__ import annotations

import fnmatch
import re
import shutil
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from phoropter.core.errors import DataError
from phoropter.core.files import digest, file_lock, format_bytes, make_folder, read_json, require_space, write_json
from phoropter.core.language.unit_words import FILE
from phoropter.core.storage.checksums import print_notice
from phoropter.core.storage.object_store import explain_store_errors, open_object_store
from phoropter.data.stores.copy_progress import CopyProgress
from phoropter.data.stores.shard_names import CLASS_FILES, expand_braces

MAX_OBJECTS = 2_000_000
MAX_NOTE_BYTES = 1 << 30
TABLES = (".csv", ".tsv", ".json", ".jsonl")  # which name files beside them
NOTE_S = 60.0  # how often what was copied is written down: a command that is killed loses no more
_CONNECTIONS = 16
_CHUNK_BYTES = 1 << 20  # after each of them a download can be ended
_ADVICE = "what was copied is kept, and the same command goes on when the store answers"

Copied = dict[str, list[Any]]  # name → [tag, bytes]


def find_address(path: Path) -> str | None:
    """`s3://BUCKET/PLACE` of a path that was made of it, which joins its slashes; None of a path of this machine.

    Raises DataError for an address that is no place in a store: of another kind, without a bucket, with `..` in it.
    """
    words = path.as_posix()
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:(/|$)", words) or path.exists():
        return None
    place = re.fullmatch(r"s3:/+([^/].*)", words)
    if place is None or ".." in path.parts:
        raise DataError(
            f"{words.replace(':/', '://', 1)} is no place of data: expected a path of this machine, or s3://BUCKET/PLACE"
        )
    return f"s3://{place[1]}"


_answers: ContextVar[dict[tuple[Any, ...], Any] | None] = ContextVar("answers of stores", default=None)


@contextmanager
def ask_stores_once() -> Iterator[None]:
    """In its body a store is asked once for each place, however often the place is opened; inside another one, that one's."""
    if _answers.get() is not None:
        yield
        return
    token = _answers.set({})
    try:
        yield
    finally:
        _answers.reset(token)


def _remember_answer(ask: Callable[..., Any], *of: Any) -> Any:
    """What `ask` returns, or has returned in this body of `ask_stores_once`."""
    known = _answers.get()
    if known is None:
        return ask(*of)
    if (ask, *of) not in known:
        known[(ask, *of)] = ask(*of)
    return known[(ask, *of)]


def copy_from_store(address: str, cache: Path, tables: tuple[str, ...] = TABLES) -> Path:
    """The local path of a place in a store: a folder, a file, or a pattern of names of shards; copied where it is not there yet.

    tables: endings of files that name others: of such a file all that lies in its folder is copied
    Raises DataError where nothing is there, or too much, or a name that leaves the folder; DiskError where the store does not
    answer or the disk is too small; MissingExtraError.
    """
    folder, name = address.rstrip("/").rpartition("/")[::2]
    copy: Callable[[str, str, Path], Path] = partial(_remember_answer, _copy_objects)
    if folder == "s3:/":
        return copy(address.rstrip("/"), "**", cache)
    if "*" in name or "{" in name:
        return copy(folder, name, cache) / name
    if not _remember_answer(_is_object, folder, name):
        return copy(address.rstrip("/"), "**", cache)
    return copy(folder, "**" if name.lower().endswith(tables) else name, cache) / name


def _is_object(folder: str, name: str) -> bool:
    with explain_store_errors(folder, _ADVICE):
        try:
            open_object_store(folder, "data in s3://…").head(name)
        except FileNotFoundError:
            return False
    return True


def _copy_objects(folder: str, wanted: str, cache: Path) -> Path:
    """Brings the copy of `folder` up to date in what is wanted: `**` is everything below it, else a name or a pattern."""
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
            print_notice(f"copying {FILE.count(len(missing))} ({format_bytes(size)}) from {folder}")
        gone = before.keys() - there.keys()
        _remove_files(copy, gone)
        written = time.monotonic()
        try:
            with closing(_fetch_objects(client, missing, copy, CopyProgress(size))) as fetched:
                for name in fetched:
                    here[name] = missing[name]
                    if time.monotonic() - written > NOTE_S:
                        _write_note(note, here, there)
                        written = time.monotonic()
        finally:
            if missing or gone:
                make_folder(copy)
                _write_note(note, here, there)
    return copy


def _write_note(note: Path, here: Copied, there: Copied) -> None:
    """What is here of what is there."""
    write_json(note, {name: here[name] for name in sorted(here.keys() & there.keys())})


def _remove_files(copy: Path, names: Collection[str]) -> None:
    """Removes files and the folders that become empty by it, of which a store has none."""
    for name in sorted(names):
        file = copy / name
        file.unlink(missing_ok=True)
        with suppress(OSError):  # it holds others
            for folder in list(file.parents)[: len(PurePosixPath(name).parts) - 1]:
                folder.rmdir()


def _list_objects(client: Any, folder: str, wanted: str) -> Copied:
    """What is in the store, by name. Raises DataError for nothing, too much, and names that would leave the copy.

    Left out are empty objects by which some programs mark a folder: they are called like it.
    """
    found: Copied = {}
    for page in client.list(chunk_size=1000) if wanted == "**" else [client.list_with_delimiter()["objects"]]:
        for entry in page:
            name, size = str(entry["path"]), int(entry["size"])
            if name == "" and size == 0:
                continue
            if name.startswith("/") or "\\" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
                raise DataError(f"{folder} has an object called '{name}', which is no path below it; rename it")
            found[name] = [entry["e_tag"] or str(entry["last_modified"]), size]
            if len(found) > MAX_OBJECTS:
                raise DataError(f"{folder} has more than {MAX_OBJECTS:,} objects; pack them into shards (phoropter pack)")
    if wanted != "**":
        found = _choose_objects(found, wanted)
    folders = {str(above) for name in found for above in PurePosixPath(name).parents}
    for name in sorted(folders & found.keys()):
        if found.pop(name)[1]:
            raise DataError(f"{folder}: '{name}' is an object, and there are others in a folder of this name; rename one of them")
    if not found:
        raise DataError(f"{folder}{'' if wanted == '**' else f'/{wanted}'}: nothing is there; check the address")
    return found


def _choose_objects(found: Copied, wanted: str) -> Copied:
    """Those that a name or a pattern of names of shards means, and the names of classes beside them; none without the former."""
    if "*" in wanted:
        names = set(fnmatch.filter(found, wanted))
    else:
        names = {wanted, *(expand_braces(wanted) if "{" in wanted else ())}
    chosen = names & found.keys()
    return {name: found[name] for name in found if chosen and (name in chosen or name in CLASS_FILES)}


class _Ended(Exception):
    """The copy was ended while an object was fetched."""


def _fetch_objects(client: Any, missing: Copied, copy: Path, progress: CopyProgress) -> Generator[str]:
    """Yields the name of each object that was fetched whole, several at a time.

    Where it is ended, as by Ctrl-C, each download ends with the chunk that it is at.
    """
    ended = threading.Event()

    def fetch(name: str) -> str:
        target = copy / name
        make_folder(target.parent)
        aside = target.with_name(f".{target.name}.part")
        try:
            with aside.open("wb") as opened:
                for chunk in client.get(name).stream(_CHUNK_BYTES):
                    opened.write(chunk)
                    progress.add_bytes(len(chunk))
                    if ended.is_set():
                        raise _Ended
            if aside.stat().st_size != missing[name][1]:
                raise FileNotFoundError
            if target.is_dir():
                shutil.rmtree(target)  # what was left of a folder of this name, which is gone in the store
            aside.replace(target)
        except FileNotFoundError:
            raise DataError(f"'{name}' has changed in the store while it was copied; give the command again") from None
        finally:
            aside.unlink(missing_ok=True)
        return name

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        try:
            yield from pool.map(fetch, missing)
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)


def _has_size(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False
