"""Parquet files with encoded pictures, in the layout of the Hugging Face hub → Dataset.

The picture column is a struct {bytes, path} or binary. Where bytes are missing, `path` is read relative to the file, as
`datasets` writes it. A folder may contain several shards; a name such as `train-00000-of-00004.parquet` tells the official part.
Opening reads the small columns only; pictures are read one row group at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, did_you_mean, join_words
from phoropter.core.files import digest
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode import open_image, open_image_file
from phoropter.data.source import COLUMNS_OPTION, Source, check_column_names
from phoropter.data.sources.arrays import convert_labels
from phoropter.data.sources.file_hashes import memoize_by_files
from phoropter.data.sources.folder import IMAGE_EXTENSIONS, parse_split_name
from phoropter.data.sources.storage import DIGEST_BYTES

PARQUET_COLUMNS = ("image", "label", "id", "group", "site")


def open_parquet(path: Path, *, columns: Mapping[str, str] | None = None, name: str | None = None) -> Dataset:
    """A Parquet file, or a folder of shards → Dataset; ids are `file/row` or the column `id`.

    columns: our name → the file's name, where they differ
    Raises DataError for a missing column, or a picture column of another type.
    """
    files = _list_shards(path)
    shards = [_read_shard_columns(file, dict(columns or {})) for file in files]
    columns_of: dict[str, list[Any]] = {
        ours: [v for shard in shards for v in shard[ours]] for ours in (*PARQUET_COLUMNS[1:], "place")
    }
    parts = [part for shard in shards for part in shard["part"]]
    labels, classes = convert_labels(columns_of["label"], _read_class_names(files[0], shards[0]["their_label"][0]), files[0].name)
    groups, sites = (
        None if None in columns_of[ours] else np.array([str(value) for value in columns_of[ours]]) for ours in ("group", "site")
    )
    where = np.array([[at, row] for at, shard in enumerate(shards) for row in range(len(shard["place"]))], dtype=np.int64)
    return Dataset(
        name=name or path.stem,
        ids=np.array([str(i) if i is not None else p for i, p in zip(columns_of["id"], columns_of["place"], strict=True)]),
        labels=labels,
        classes=classes,
        pictures=ParquetPictures(files, [shard["their_image"][0] for shard in shards], where),
        groups=groups,
        sites=sites,
        parts=np.array(parts) if any(parts) else None,
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
                    return first, stop, _unpack_cells(file.read_row_group(group, columns=[self.columns[at]]).column(0))
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


def _open_parquet_file(file: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file.name} is damaged or no Parquet file ({error})") from None


def _unpack_cells(column: Any) -> list[tuple[bytes | None, str | None]]:
    values = column.to_pylist()
    return [(v.get("bytes"), v.get("path")) if isinstance(v, dict) else (v, None) for v in values]


def _list_shards(path: Path) -> list[Path]:
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise DataError(f"{path}: no Parquet file there; expected one, or a folder of shards, with the columns image and label")
    return files


def _read_shard_columns(file: Path, columns: dict[str, str]) -> dict[str, list[Any]]:
    """The small columns of one file by our names, and the file's names of its picture and label columns."""
    with _open_parquet_file(file) as opened:
        schema = opened.schema_arrow
        theirs = {ours: columns.get(ours, ours) for ours in PARQUET_COLUMNS}
        for ours, column in theirs.items():
            if column not in schema.names and (ours in columns or ours in ("image", "label")):
                raise DataError(
                    f"{file.name} has no column '{column}'{did_you_mean(column, schema.names)}; it has "
                    f"{join_words(schema.names)}; name the right one with columns: {{{ours}: NAME}}"
                )
        _check_picture_column(file, schema.field(theirs["image"]))
        small = [theirs[ours] for ours in PARQUET_COLUMNS[1:] if theirs[ours] in schema.names]
        table = opened.read(columns=small)
    rows = table.num_rows
    out = {ours: table[theirs[ours]].to_pylist() if theirs[ours] in small else [None] * rows for ours in PARQUET_COLUMNS[1:]}
    word = re.match(r"([A-Za-z]+)(-\d+-of-\d+)?$", file.stem)
    part = (parse_split_name(word.group(1)) if word else None) or ""
    return out | {
        "place": [f"{file.stem}/{row}" for row in range(rows)],
        "part": [part] * rows,
        "their_image": [theirs["image"]],
        "their_label": [theirs["label"]],
    }


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


def _read_class_names(file: Path, label: str) -> tuple[str, ...] | None:
    """Class names of the hub's `ClassLabel` feature, where the file's metadata has them."""
    with _open_parquet_file(file) as opened:
        metadata = opened.schema_arrow.metadata or {}
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        names = features[label]["names"]
        return tuple(str(word) for word in names)
    except (KeyError, TypeError, ValueError):
        return None


PARQUET_SOURCE = Source(
    "parquet",
    lambda request: open_parquet(request.path, columns=request.option("columns"), name=request.name),
    "a Parquet file or a folder of shards with encoded pictures, as the Hugging Face hub keeps them",
    options=(COLUMNS_OPTION,),
    check=check_column_names(PARQUET_COLUMNS),
    detect=lambda contents: (
        contents.is_file_like(".parquet", ".pq")
        or (".parquet" in contents.suffixes and contents.suffixes.isdisjoint(IMAGE_EXTENSIONS))
    ),
)
