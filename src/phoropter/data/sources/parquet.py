"""Parquet files with encoded pictures, in the layout of the Hugging Face hub → Dataset.

The picture column is a struct {bytes, path} or binary. Where bytes are missing, `path` is read relative to the file, as
`datasets` writes it. A folder may contain several shards, also in subfolders; names such as `train-00000-of-00004.parquet`,
`beans-test.parquet` and `default/train/0000.parquet` tell the official part. Labels are joined by the names of their classes.
Opening reads the small columns only; pictures are read one row group at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.columns import check_filled, clean_cell, clean_name, find_columns
from phoropter.core.errors import DataError, join_words
from phoropter.core.files import digest
from phoropter.core.text_table import PARQUET_ENDINGS, report_parquet_damage
from phoropter.data.dataset import UNLABELLED, Dataset, encode_labels
from phoropter.data.folders.layout import find_split_word
from phoropter.data.folders.scan import IMAGE_EXTENSIONS
from phoropter.data.images.decode import open_image, open_image_file
from phoropter.data.source import COLUMNS_OPTION, FILE_OPTIONS, MAX_LISTED_NAMES, PathContents, Source, check_column_names
from phoropter.data.sources.arrays import convert_labels, describe_columns
from phoropter.data.sources.file_hashes import memoize_by_files
from phoropter.data.sources.storage import DIGEST_BYTES

PARQUET_COLUMNS = ("image", "label", "id", "group", "site")


@dataclass(frozen=True)
class _Shard:
    """The small columns of one file.

    image:   the file's name of its picture column · rows: how many
    names:   class names by number, where the file's metadata has them
    columns: our name → its values; columns that the file lacks are left out
    """

    file: Path
    image: str
    rows: int
    names: tuple[str, ...] | None
    columns: dict[str, list[Any]]

    def column(self, name: str) -> list[Any]:
        """N values, None where the file has no such column."""
        return self.columns.get(name, [None] * self.rows)


def open_parquet(path: Path, *, columns: Mapping[str, str] | None = None, name: str | None = None) -> Dataset:
    """A Parquet file, or a folder of shards → Dataset; ids are the column `id`, else `file/row`, and `folder/file/row` where two
    files have one name.

    columns: our name → the file's name, where they differ
    Raises DataError for a missing column, a group or site in some rows only, or a picture column of another type.
    """
    files = _list_shards(path)
    shards = [_read_shard(file, dict(columns or {})) for file in files]
    where = np.array([[at, row] for at, shard in enumerate(shards) for row in range(shard.rows)], dtype=np.int64)
    labels, classes, notes = _join_labels(shards)
    groups, sites = (_join_column(shards, column, path.name) for column in ("group", "site"))
    places = [f"{stem}/{row}" for stem, shard in zip(_name_shards(files, path), shards, strict=True) for row in range(shard.rows)]
    ids = [clean_cell(value) for shard in shards for value in shard.column("id")]
    parts = np.array([part for file, shard in zip(files, shards, strict=True) for part in [_find_part(file, path)] * shard.rows])
    official = parts if any(parts) else None
    return Dataset(
        name=name or path.stem,
        ids=np.array([given or place for given, place in zip(ids, places, strict=True)]),
        labels=labels,
        classes=classes,
        pictures=ParquetPictures(files, [shard.image for shard in shards], where),
        groups=groups,
        sites=sites,
        parts=official,
        notes=(*notes, *_note_configurations(files, path), *describe_columns(labels, classes, groups, sites, official)),
    )


class ParquetPictures:
    """Rows of Parquet files. where: (N, 2) file number and row in it."""

    def __init__(self, files: list[Path], columns: list[str], where: NDArray[np.int64]) -> None:
        self.files, self.columns, self.locations = files, columns, where
        self._lock = threading.Lock()
        self._loaded_group: tuple[int, int, int, list[tuple[bytes | None, str | None]]] = (-1, 0, 0, [])

    def image(self, row: int) -> Image.Image:
        """Row → RGB Image, upright."""
        at, inside = (int(n) for n in self.locations[row])
        content, path = self._read_cell(at, inside)
        where = f"{self.files[at].name}, row {inside}"
        if content is not None:
            return open_image(content, where)
        if not path:
            raise DataError(f"{where}: the picture is missing (neither bytes nor a path)")
        return open_image_file(self.files[at].parent / path, f"{where} ({path})")

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8. Raises DataError naming file and row."""
        return np.array(self.image(row))

    def digests(self, rows: NDArray[np.int64]) -> list[str]:
        """A digest of each picture's bytes."""
        joined: dict[int, bytes] = {}
        for at in np.unique(self.locations[rows, 0]).tolist():
            joined[at] = memoize_by_files([self.files[at]], f"rows-1 of {self.columns[at]}", lambda at=at: self._hash_cells(at))  # type: ignore[misc]
        return [joined[at][i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES].hex() for at, i in self.locations[rows].tolist()]

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the contents of these rows, in order."""
        return digest(self.digests(rows))

    def select(self, rows: NDArray[np.int64]) -> ParquetPictures:
        """Only these rows, in this order."""
        return ParquetPictures(self.files, self.columns, self.locations[rows])

    def _read_cell(self, at: int, row: int) -> tuple[bytes | None, str | None]:
        """(bytes, path) of one row. Its row group stays in memory, because the next rows are usually read next."""
        with self._lock:
            file, first, stop, cells = self._loaded_group
            if file != at or not first <= row < stop:
                self._loaded_group = (at, *self._read_row_group(at, row))
                _, first, _, cells = self._loaded_group
            return cells[row - first]

    def _read_row_group(self, at: int, row: int) -> tuple[int, int, list[tuple[bytes | None, str | None]]]:
        with _open_parquet_file(self.files[at]) as file:
            first = 0
            for group in range(file.metadata.num_row_groups):
                stop = first + file.metadata.row_group(group).num_rows
                if row < stop:
                    cells = _unpack_cells(file.read_row_group(group, columns=[self.columns[at]]).column(0))
                    if len(cells) != stop - first:
                        raise DataError(
                            f"{self.files[at].name} is damaged: {len(cells)} of {stop - first} rows of a group are there"
                        )
                    return first, stop, cells
                first = stop
        raise DataError(f"{self.files[at]} has become shorter since it was opened: row {row} is gone")

    def _hash_cells(self, at: int) -> bytes:
        out = []
        with _open_parquet_file(self.files[at]) as file:
            for batch in file.iter_batches(batch_size=256, columns=[self.columns[at]]):
                for content, path in _unpack_cells(batch.column(0)):
                    hashed = content if content is not None else b"path:" + str(path).encode()
                    out.append(hashlib.blake2b(hashed, digest_size=DIGEST_BYTES).digest())
        return b"".join(out)

    def __reduce__(self) -> Any:
        return ParquetPictures, (self.files, self.columns, self.locations)


@contextmanager
def _open_parquet_file(file: Path) -> Iterator[Any]:
    """A Parquet file; damage found while it is read is a DataError."""
    from pyarrow import parquet

    with report_parquet_damage(file.name), parquet.ParquetFile(file) as opened:
        yield opened


def _unpack_cells(column: Any) -> list[tuple[bytes | None, str | None]]:
    values = column.to_pylist()
    return [(v.get("bytes"), v.get("path")) if isinstance(v, dict) else (v, None) for v in values]


def _list_shards(path: Path) -> list[Path]:
    files = sorted(find_parquet_files(path)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"{path}: no Parquet file there; expected one, or a folder of shards, with the columns image and label")
    return files


def find_parquet_files(folder: Path) -> Iterator[Path]:
    """Parquet files in a folder and its subfolders; hidden ones are left out."""
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(at, name) for name in names if not name.startswith(".") and name.lower().endswith(PARQUET_ENDINGS))


def _name_shards(files: list[Path], path: Path) -> list[str]:
    """What each file is called in ids: its name, with its folders where two files have one name."""
    stems = [file.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [file.relative_to(path).with_suffix("").as_posix() for file in files]


def _find_part(file: Path, path: Path) -> str:
    """The official part that a file's name or a folder between it and the path names, '' for none."""
    inner = file.relative_to(path) if file != path else Path(file.name)
    stem = re.sub(r"[-_]?[0-9]+(?:[-_]of[-_][0-9]+)?$", "", inner.stem)
    folders = [folder.name for folder in inner.parents if folder.name]
    for name in (stem, re.split("[-_.]", stem)[-1], *folders):
        if part := find_split_word(name):
            return part
    return ""


def _note_configurations(files: list[Path], path: Path) -> tuple[str, ...]:
    """A note where two folders hold files of the same part: the hub's configurations of one dataset are such folders."""
    holders: dict[str, set[str]] = {}
    for file in files if path.is_dir() else []:
        folders = [part for part in file.relative_to(path).parts[:-1] if not find_split_word(part)]
        holders.setdefault(_find_part(file, path), set()).add("/".join(folders) or ".")
    same = sorted(next((folders for part, folders in holders.items() if part and len(folders) > 1), ()))
    if not same:
        return ()
    return (f"{join_words(same, 5)} hold files of the same official part and were joined; name one of them if they are variants",)


def _read_shard(file: Path, columns: dict[str, str]) -> _Shard:
    with _open_parquet_file(file) as opened:
        schema = opened.schema_arrow
        found = find_columns(file.name, [clean_name(name) for name in schema.names], PARQUET_COLUMNS, columns, ("image", "label"))
        _check_picture_column(file, schema.field(found["image"]))
        theirs = {ours: schema.names[at] for ours, at in found.items()}
        table = opened.read(columns=[theirs[ours] for ours in PARQUET_COLUMNS[1:] if ours in theirs])
        values = {ours: table[theirs[ours]].to_pylist() for ours in PARQUET_COLUMNS[1:] if ours in theirs}
    return _Shard(file, theirs["image"], table.num_rows, _read_class_names(schema.metadata or {}, theirs["label"]), values)


def _join_labels(shards: list[_Shard]) -> tuple[NDArray[np.int64], tuple[str, ...], tuple[str, ...]]:
    """(labels, classes, notes) of all files; where the files number their classes differently, they are mapped by name."""
    where = shards[0].file.name if len(shards) == 1 else shards[0].file.parent.name
    known = [shard for shard in shards if shard.names]
    same = all(shard.names == known[0].names for shard in known)
    if same:  # files without names are numbered as the others
        labels = [label for shard in shards for label in shard.column("label")]
        return *convert_labels(labels, known[0].names if known else None, where), ()
    if unnamed := [shard for shard in shards if not shard.names]:
        raise DataError(
            f"{unnamed[0].file.name} does not say what its labels are called, and {known[0].file.name} and others number their "
            "classes differently: add the names to its metadata, or store labels as words"
        )
    words: list[str | None] = []
    for shard in shards:
        numbers, names = convert_labels(shard.column("label"), shard.names, shard.file.name)
        words += [names[number] if number != UNLABELLED else None for number in numbers.tolist()]
    classes = tuple(dict.fromkeys(clean_cell(name) for shard in shards for name in shard.names or ()))
    note = f"the files number their {len(classes)} classes differently; labels were joined by the names of the classes"
    return *encode_labels(words, classes), (note,)


def _join_column(shards: list[_Shard], column: str, where: str) -> NDArray[np.str_] | None:
    """A column of all files as names, None where it is empty. Raises DataError for one that is given in part."""
    names = [clean_cell(value) for shard in shards for value in shard.column(column)]
    places = [f"{shard.file.name}, row {row}" for shard in shards for row in range(shard.rows)] if "" in names else []
    return np.array(names, dtype=np.str_) if check_filled(names, column, places.__getitem__ if places else where) else None


def _check_picture_column(file: Path, field: Any) -> None:
    import pyarrow as pa

    kind = field.type
    if pa.types.is_struct(kind) and any(kind.field(i).name in ("bytes", "path") for i in range(kind.num_fields)):
        return
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return
    raise DataError(
        f"{file.name}: the column '{field.name}' is {kind}, expected encoded pictures: binary, or a struct of bytes and path"
    )


def _read_class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """Class names of the hub's `ClassLabel` feature, where the file's metadata has them."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
        return tuple(str(word) for word in names) or None
    except (KeyError, TypeError, ValueError):
        return None


def _holds_parquet(contents: PathContents) -> bool:
    """Whether a path is a Parquet file, or a folder with such files at any depth and no pictures (a snapshot of the hub)."""
    if not contents.is_folder:
        return contents.is_file_like(*PARQUET_ENDINGS)
    if contents.suffixes & set(PARQUET_ENDINGS):
        return contents.suffixes.isdisjoint(IMAGE_EXTENSIONS)
    found = False
    for _, folders, names in islice(os.walk(contents.path), MAX_LISTED_NAMES):
        folders[:] = [name for name in folders if not name.startswith(".")]
        endings = {Path(name).suffix.lower() for name in names[:MAX_LISTED_NAMES] if not name.startswith(".")}
        if not endings.isdisjoint(IMAGE_EXTENSIONS):
            return False
        found = found or not endings.isdisjoint(PARQUET_ENDINGS)
    return found


PARQUET_SOURCE = Source(
    "parquet",
    lambda request: open_parquet(request.path, columns=request.option("columns"), name=request.name),
    "a Parquet file or a folder of shards with encoded pictures, as the Hugging Face hub keeps them",
    options=(COLUMNS_OPTION,),
    uses=FILE_OPTIONS,
    check=check_column_names(PARQUET_COLUMNS),
    detect=_holds_parquet,
)
