"""Source: one kind of place that a dataset is opened from, as a record.

A new source of pictures is one file in sources/ that ends in such a record, and one line in source_table.py. DataSpec takes its
key and options from the record, `phoropter inspect` its detection, messages its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.files import cache_dir
from phoropter.core.spec import Spec
from phoropter.core.text_table import PARQUET_ENDINGS
from phoropter.data.dataset import Dataset
from phoropter.data.stores.store_copy import TABLES, copy_from_store, find_address

MAX_LISTED_NAMES = 10_000


def _reject_empty_path(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("the path is empty")
    return value


def _write_address(path: Path) -> str:
    """A path as it is read again: joined slashes of `s3://…` are written as two."""
    return re.sub(r"^s3:/+", "s3://", path.as_posix()) if path.parts[:1] == ("s3:",) else str(path)


NonEmptyPath = Annotated[Path, BeforeValidator(_reject_empty_path), PlainSerializer(_write_address, when_used="json")]


@dataclass(frozen=True)
class SourceOption:
    """A key of `data:` that only some sources have. annotation: its type, for pydantic · help: one line for the reference."""

    name: str
    annotation: Any
    default: Any
    help: str


@dataclass(frozen=True)
class SourceRequest:
    """Arguments of `Source.open`. value: of the source's key, with its path resolved · base: where relative paths start."""

    spec: Spec
    value: Any
    base: Path | None = None

    @property
    def path(self) -> Path:
        """The value of a source whose key names a path."""
        assert isinstance(self.value, Path), f"{self.value!r} is no path"
        return self.value

    @property
    def name(self) -> str | None:
        """The user's name for the dataset."""
        name: str | None = self.option("name")
        return name

    @property
    def on_bad_input(self) -> Any:
        """`stop` or `skip`."""
        return self.option("on_bad_input")

    def option(self, name: str) -> Any:
        """The value of an option of the source."""
        return getattr(self.spec, name)

    def option_path(self, name: str) -> Path | None:
        """The value of an option that names a file, resolved."""
        value = self.option(name)
        return None if value is None else resolve_path(value, self.base, tables=())


@dataclass(frozen=True)
class PathContents:
    """What detection sees of a path: a file's name, or the first 10,000 names in a folder."""

    path: Path

    @cached_property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the folder; of a file, none."""
        return tuple(entry.name for entry in islice(self.path.iterdir(), MAX_LISTED_NAMES)) if self.is_folder else ()

    @cached_property
    def suffixes(self) -> frozenset[str]:
        """Lower-case suffixes of the names in the folder."""
        return frozenset(Path(name).suffix.lower() for name in self.names)

    def is_file_like(self, *endings: str) -> bool:
        """Whether it is a file whose name ends so, in either case."""
        return not self.is_folder and self.path.name.lower().endswith(endings)


@dataclass(frozen=True, eq=False)
class Source:
    """How one source is named, opened and recognised.

    key:      its key in `data:`
    open:     opens it; no picture is decoded
    help:     one line for the reference
    value_type, default: of the key, a path unless given otherwise; None and False mean that the source is not used
    options:  keys of `data:` that this source brings
    uses:     names of fields of DataSpec that this source obeys and some others do not
    fixed_classes: the classes are given and may be left without pictures; `classes` and `exclude` are refused
    typed_by_hand: labels are typed row by row, so one that is neither kept nor excluded is taken for a typing error
    formats:  packed files that it reads, in the words of core/storage/foreign_files; others are refused before it is asked
    check:    raises ValueError for options that contradict each other
    detect:   whether a path holds such data. Raises DataError for data that no source can read
    table_endings: of files that name others beside them, where this source reads them
    """

    key: str
    open: Callable[[SourceRequest], Dataset]
    help: str
    value_type: Any = NonEmptyPath | None
    default: Any = None
    options: tuple[SourceOption, ...] = ()
    uses: tuple[str, ...] = ()
    fixed_classes: bool = False
    typed_by_hand: bool = False
    holds_recordings: bool = False
    formats: tuple[str, ...] = ()
    check: Callable[[Any], None] | None = None
    detect: Callable[[PathContents], bool] | None = None
    table_endings: tuple[str, ...] = (*TABLES, *PARQUET_ENDINGS)

    @property
    def option_names(self) -> tuple[str, ...]:
        """Options that not every source obeys and this one does."""
        classes = () if self.fixed_classes else ("classes", "exclude")
        return (*classes, *self.uses, *(option.name for option in self.options))


COLUMNS_OPTION = SourceOption("columns", dict[str, str], {}, "our column name → the file's, where they differ")

FILE_OPTIONS = ("channels", "page")  # of sources of picture files


def check_column_names(known: tuple[str, ...]) -> Callable[[Any], None]:
    """A check for sources with `columns`: raises ValueError for a name that is not one of `known`."""

    def check_columns(spec: Any) -> None:
        for ours in spec.columns:
            if ours not in known:
                raise ValueError(f"columns: unknown name '{ours}', expected {join_words(known)}{did_you_mean(ours, known)}")

    return check_columns


def resolve_snapshot(path: Path) -> Path:
    """The folder of a repository in the cache of the Hugging Face hub → its snapshot that `main` names; any other path as it is.

    Such a folder may hold several snapshots of the same files.
    """
    named = path / "refs" / "main"
    if not (path / "snapshots").is_dir() or not named.is_file():
        return path
    revision = named.read_text(encoding="utf-8", errors="replace")[:100].strip()
    snapshot = path / "snapshots" / revision
    return snapshot if revision and not set(revision) & set("/\\.\0") and snapshot.is_dir() else path


def resolve_path(path: Path, base: Path | None, tables: tuple[str, ...] = TABLES) -> Path:
    """A path as the user wrote it → the path to open: `~` is home, others start from `base`; of `s3://…` it is that of a copy.

    The copy is made or brought up to date. tables: endings of files that name others, which are copied too
    Raises DataError without home, and what `find_address` and `copy_from_store` raise.
    """
    if (address := find_address(path)) is not None:
        return copy_from_store(address, cache_dir() / "data", tables)
    try:
        return (base or Path()) / path.expanduser()
    except RuntimeError:
        raise DataError(f"{path}: the home folder of that user is unknown") from None
