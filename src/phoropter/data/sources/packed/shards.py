"""Shards → Dataset: the one reader of labels, groups, sites, ids and official parts of files that hold many pictures.

`train`, `val` or `test` as a word of a file's or folder's name is the official part, unless rows say it themselves. Files that
number their classes differently are joined by the names of the classes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import check_filled, clean_cell, describe_unread_groups, describe_unread_parts
from phoropter.core.errors import DataError, join_words
from phoropter.data.dataset import Dataset, find_labelled
from phoropter.data.folders.layout import find_split_word
from phoropter.data.folders.scan import IMAGE_EXTENSIONS
from phoropter.data.labels.label_sets import check_plain_multi_label
from phoropter.data.source import MAX_LISTED_NAMES, PathContents, SourceRequest, check_column_names
from phoropter.data.sources.arrays import NamedLabels, check_labels, describe_columns, join_labels, parse_parts
from phoropter.data.sources.packed.cells import FileCells, PackedPictures
from phoropter.data.sources.packed.drawn_windows import WINDOW_COLUMNS, DrawnWindows
from phoropter.data.sources.packed.label_lists import find_first_list, join_label_lists
from phoropter.data.stores.shard_names import describe_incomplete_sets

SHARD_COLUMNS = ("image", "label", "id", "group", "site", "split")


@dataclass(frozen=True)
class PackedShard:
    """The small columns of one file, or of one official part in it.

    cells:   its pictures · rows: how many
    names:   class names by number, where the file says them
    columns: our name → its values; columns that the file lacks are left out
    part:    its official part; None: the names of the file and its folders tell
    inside:  which part of the file, for ids, or ""
    unread:  names of its other columns
    drawn:   what is known of windows of recordings that its pictures show
    """

    cells: FileCells
    rows: int
    names: tuple[str, ...] | None
    columns: dict[str, list[Any]]
    part: str | None = None
    inside: str = ""
    unread: tuple[str, ...] = ()
    drawn: DrawnWindows | None = None

    @property
    def file(self) -> Path:
        """The file."""
        return self.cells.file

    def column(self, name: str) -> list[Any]:
        """N values, None where the file has no such column."""
        return self.columns.get(name, [None] * self.rows)


def open_packed(open_files: Callable[..., Dataset]) -> Callable[[SourceRequest], Dataset]:
    """How a source of packed files is opened: by its function, with the options that all of them have."""
    return lambda request: open_files(
        request.path,
        columns=request.option("columns"),
        multi_label=request.option("multi_label") is not None,
        on_bad_input=request.on_bad_input,
        name=request.name,
    )


def check_packed_options(known: tuple[str, ...] = SHARD_COLUMNS) -> Callable[[Any], None]:
    """The check of sources of packed files, which have `columns` and `multi_label: true`; it raises ValueError for others."""
    check_columns = check_column_names(known)

    def check_options(spec: Any) -> None:
        check_columns(spec)
        check_plain_multi_label(spec)

    return check_options


def join_shards(
    shards: Sequence[PackedShard], path: Path, name: str | None, on_bad_input: str = "stop", multi_label: bool = False
) -> Dataset:
    """Shards in order → Dataset; ids are the column `id`, else `file/row`, and `folder/file/row` where two files have one name.

    path: of the dataset, where names of files start · multi_label: the label of a row is a list
    Raises DataError for a label, group or site in some rows only (rows without a label are kept with "skip").
    """
    pairs = [np.stack([np.full(s.rows, at), np.arange(s.rows)], axis=1) for at, s in enumerate(shards)]
    where = np.concatenate(pairs).astype(np.int64) if pairs else np.zeros((0, 2), dtype=np.int64)
    if not len(where):
        raise DataError(f"{path}: there are no pictures in {len(shards)} files; expected at least two classes")
    official = _join_parts(shards, path)
    labels, classes, notes = _join_labels(shards, path, multi_label)
    given = [known or None for known in find_labelled(labels).tolist()] if multi_label else _chain_column(shards, "label")
    check_labels(given, official, lambda row: _locate(shards, where, row), on_bad_input)
    groups, sites = (_join_column(shards, where, column) for column in ("group", "site"))
    names = [name for shard in shards for name in shard.unread]
    unread = (
        *(() if groups is not None else describe_unread_groups(names)),
        *describe_unread_parts(names if official is None else ()),
    )
    drawn = [shard.drawn for shard in shards if shard.drawn is not None]
    said = (
        *notes,
        *(describe_incomplete_sets(shard.file for shard in shards) if path.is_dir() else ()),
        *_note_configurations(shards, path),
        *_note_unread_windows(shards),
        *describe_columns(labels, classes, groups, sites, official),
        *unread,
    )
    dataset = Dataset(
        name=name or path.stem,
        ids=np.array(_make_ids(shards, path)),
        labels=labels,
        classes=classes,
        pictures=PackedPictures([shard.cells for shard in shards], where, any(one.pools_grey_scale for one in drawn)),
        groups=groups,
        sites=sites,
        parts=official,
        notes=said,
    )
    return _add_windows(dataset, drawn) if len(drawn) == len(shards) else dataset


def _add_windows(dataset: Dataset, drawn: Sequence[DrawnWindows]) -> Dataset:
    """The same with what all its files say of the recordings that their pictures were drawn from."""
    spans, names = (
        [one.spans for one in drawn if one.spans is not None],
        [one.recordings for one in drawn if one.recordings is not None],
    )
    return replace(
        dataset,
        spans=np.concatenate(spans) if len(spans) == len(drawn) else None,
        recordings=np.array([name for some in names for name in some]) if len(names) == len(drawn) else None,
        notes=tuple(dict.fromkeys([*(note for one in drawn for note in one.notes), *dataset.notes])),
    )


def _join_labels(
    shards: Sequence[PackedShard], path: Path, multi_label: bool
) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """(labels, classes, notes). Raises DataError for lists where one label is expected."""
    parts = [NamedLabels(shard.file.name, shard.column("label"), shard.names) for shard in shards]
    if multi_label:
        return *join_label_lists(parts), ()
    for part in parts:
        if (row := find_first_list(part.values)) is not None:
            raise DataError(
                f"{part.place}: the label of row {row} is a list; where a picture has several of these labels, say "
                "multi_label: true"
            )
    return join_labels(parts, shards[0].file.name if len(shards) == 1 else path.name)


def _chain_column(shards: Sequence[PackedShard], column: str) -> list[Any]:
    return [value for shard in shards for value in shard.column(column)]


def list_files(path: Path, endings: tuple[str, ...], what: str) -> list[Path]:
    """A file, or the files below a folder whose names end so, in order; hidden ones are left out. Raises DataError for none."""
    files = sorted(_walk_files(path, endings)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"{path}: no {what} file there; expected one, or a folder of such, with pictures and labels")
    return files


def holds_packed(contents: PathContents, endings: tuple[str, ...]) -> bool:
    """Whether a path is a file whose name ends so, or a folder with such files at any depth and no pictures."""
    if not contents.is_folder:
        return contents.is_file_like(*endings)
    if contents.suffixes & set(endings):
        return contents.suffixes.isdisjoint(IMAGE_EXTENSIONS)
    found = False
    for _, folders, names in islice(os.walk(contents.path), MAX_LISTED_NAMES):
        folders[:] = [name for name in folders if not name.startswith(".")]
        suffixes = {Path(name).suffix.lower() for name in names[:MAX_LISTED_NAMES] if not name.startswith(".")}
        if not suffixes.isdisjoint(IMAGE_EXTENSIONS):
            return False
        found = found or not suffixes.isdisjoint(endings)
    return found


def _walk_files(folder: Path, endings: tuple[str, ...]) -> Iterator[Path]:
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name) for name in names if not name.startswith(".") and name.lower().endswith(endings))


def _locate(shards: Sequence[PackedShard], where: NDArray[np.int64], row: int) -> str:
    at, inside = (int(n) for n in where[row])
    return shards[at].cells.name_row(inside)


def _make_ids(shards: Sequence[PackedShard], path: Path) -> list[str]:
    files = list(dict.fromkeys(shard.file for shard in shards))
    short = len({file.stem for file in files}) == len(files)
    ids = []
    for shard in shards:
        stem = shard.file.stem if short else shard.file.relative_to(path).with_suffix("").as_posix()
        stem = f"{stem}/{shard.inside}" if shard.inside else stem
        given = map(clean_cell, shard.column("id"))
        ids += [name or f"{stem}/{row}" for row, name in enumerate(given)]
    return ids


def _join_parts(shards: Sequence[PackedShard], path: Path) -> NDArray[np.str_] | None:
    """(N,) official parts, None where neither rows nor names say any."""
    words: list[str] = []
    for shard in shards:
        whole = _find_part(shard.file, path) if shard.part is None else shard.part
        words += [clean_cell(value) or whole for value in shard.column("split")]
    return parse_parts(np.array(words), path.name) if any(words) else None


def _find_part(file: Path, path: Path) -> str:
    """The official part that a file's name or a folder between it and the path names, '' for none."""
    inner = file.relative_to(path) if file != path and file.is_relative_to(path) else Path(file.name)
    stem = re.sub(r"[-_]?[0-9]+(?:[-_]of[-_][0-9]+)?$", "", inner.stem)
    folders = [folder.name for folder in inner.parents if folder.name]
    for name in (stem, re.split("[-_.]", stem)[-1], *folders):
        if part := find_split_word(name):
            return part
    return ""


def _note_configurations(shards: Sequence[PackedShard], path: Path) -> tuple[str, ...]:
    """A note where two folders hold files of the same part: the hub's configurations of one dataset are such folders."""
    holders: dict[str, set[str]] = {}
    for shard in shards if path.is_dir() else []:
        folders = [part for part in shard.file.relative_to(path).parts[:-1] if not find_split_word(part)]
        holders.setdefault(_find_part(shard.file, path), set()).add("/".join(folders) or ".")
    same = sorted(next((folders for part, folders in holders.items() if part and len(folders) > 1), ()))
    if not same:
        return ()
    return (f"{join_words(same, 5)} hold files of the same official part and were joined; name one of them if they are variants",)


def _note_unread_windows(shards: Sequence[PackedShard]) -> tuple[str, ...]:
    """A note where a file has the columns of windows without what `phoropter pack` says of them, as other programs rewrite it."""
    lost = [shard.file.name for shard in shards if shard.drawn is None and {*WINDOW_COLUMNS} <= {*shard.unread}]
    if not lost:
        return ()
    return (
        f"{join_words(lost, 3)} lost what phoropter pack wrote of windows of recordings (another program wrote it anew), so "
        "which windows overlap is not known here",
    )


def _join_column(shards: Sequence[PackedShard], where: NDArray[np.int64], column: str) -> NDArray[np.str_] | None:
    """A column of all files as names, None where it is empty. Raises DataError for one that is given in part."""
    names = [clean_cell(value) for value in _chain_column(shards, column)]
    return np.array(names, dtype=np.str_) if check_filled(names, column, lambda row: _locate(shards, where, row)) else None
