"""Files that a table lists: a name in the table → the file, also where the file system writes the name in another way."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from phoropter.core.columns import clean_name, clean_path


class ListedFiles:
    """Finds files below a folder by the names that a table gives them.

    A name is taken as written; else with `/` for `\\`; else the one file whose name reads the same (Unicode NFC or NFD, white
    space and invisible characters), folder by folder. Case is not changed: a.png and A.png may be two files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listings: dict[tuple[str, bool], dict[str, list[str]]] = {}
        self._endings: dict[str, dict[str, set[str]]] = {}

    def find_name(self, written: str) -> str | None:
        """A path in a table → the same path as the file system spells it, or None where there is no such file."""
        if "\0" in written:
            return None
        for name in dict.fromkeys((written, written.strip(), clean_path(written))):
            if name and _is_file(self._root, name):
                return name
        return self._find_by_parts(clean_path(written))

    def find_path(self, written: str) -> Path:
        """A path in a table → the path to open, which may be missing."""
        return self._base / (self.find_name(written) or clean_path(written).replace("\0", ""))

    def suggest_name(self, written: str) -> str:
        """` (there is 'img/a.JPG')` for a file whose name differs in case only, or an empty string."""
        above, _, name = clean_path(written).rpartition("/")
        if not name or "\0" in written:
            return ""
        same = self._list_folder(above, fold_case=True).get(clean_name(name).casefold(), [])
        return f" (there is '{above}{'/' if above else ''}{same[0]}')" if same else ""

    def find_ending(self, written: str) -> str:
        """`.png` for a name that is written without the ending of its file, or an empty string. Tables of ids are such."""
        above, _, name = clean_path(written).rpartition("/")
        if above not in self._endings:
            known = self._endings[above] = {}
            for listed in self._list_folder(above):
                stem, dot, ending = listed.rpartition(".")
                known.setdefault(stem, set()).update([dot + ending] if stem else [])
        found = self._endings[above].get(clean_name(name), set())
        return next(iter(found)) if len(found) == 1 else ""

    @cached_property
    def _base(self) -> Path:
        return self.folder.expanduser()

    @cached_property
    def _root(self) -> str:
        return str(self._base)

    def _find_by_parts(self, path: str) -> str | None:
        if not path or "\0" in path:
            return None
        at = "/" if path.startswith("/") else ""
        for part in (p for p in path.split("/") if p not in ("", ".")):
            same = [part] if part == ".." else self._list_folder(at).get(clean_name(part), [])
            exact = [name for name in same if name == part]
            if len(exact or same) != 1:
                return None  # nothing reads the same, or two do and neither is meant
            at = f"{at.rstrip('/')}/{(exact or same)[0]}" if at else (exact or same)[0]
        return at if _is_file(self._root, at) else None

    def _list_folder(self, at: str, fold_case: bool = False) -> dict[str, list[str]]:
        """Names in a folder by how they read, with fold_case whatever their case."""
        if (at, fold_case) not in self._listings:
            listing: dict[str, list[str]] = {}
            try:
                for name in sorted(os.listdir(self._base / at)):
                    key = clean_name(name)
                    listing.setdefault(key.casefold() if fold_case else key, []).append(name)
            except OSError:
                pass
            self._listings[at, fold_case] = listing
        return self._listings[at, fold_case]


def _is_file(folder: str, name: str) -> bool:
    try:
        return os.path.isfile(os.path.join(folder, name))  # noqa: PTH113, PTH118 (a Path for each of millions of names is slow)
    except (OSError, ValueError):  # a name that is too long, or that no file system takes
        return False
