"""Parquet files with encoded pictures, in the layout of the Hugging Face hub → Dataset.

The picture column is a struct {bytes, path} or binary. Where bytes are missing, `path` is read relative to the file, as
`datasets` writes it. Where rows have several labels, the column label is a list of them. A folder may contain several shards,
also in subfolders; names such as `train-00000-of-00004.parquet`, `beans-test.parquet` and `default/train/0000.parquet` tell the
official part. Opening reads the small columns only; pictures are read one row group at a time.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from phoropter.core.columns import clean_name, find_columns
from phoropter.core.errors import DataError
from phoropter.core.storage.foreign_files import PARQUET
from phoropter.core.text_table import PARQUET_ENDINGS, report_parquet_damage
from phoropter.data.dataset import Dataset
from phoropter.data.source import COLUMNS_OPTION, FILE_OPTIONS, Source
from phoropter.data.sources.packed.cells import Cell
from phoropter.data.sources.packed.drawn_windows import METADATA_KEY, WINDOW_COLUMNS, read_drawn_windows
from phoropter.data.sources.packed.shards import (
    SHARD_COLUMNS,
    PackedShard,
    check_packed_options,
    holds_packed,
    join_shards,
    list_files,
    open_packed,
)
from phoropter.data.stores.store_copy import TABLES
from phoropter.signals.readers.signal_tables import is_signal_schema


def open_parquet(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    multi_label: bool = False,
    on_bad_input: str = "stop",
    name: str | None = None,
) -> Dataset:
    """A Parquet file, or a folder of shards → Dataset; ids are the column `id`, else `file/row`, and `folder/file/row` where two
    files have one name.

    columns: our name → the file's name, where they differ · multi_label: the label of a row is a list
    Raises DataError for a missing column, a label, group or site in some rows only, or a picture column of another type.
    """
    files = list_files(path, PARQUET_ENDINGS, "Parquet")
    return join_shards([_read_shard(file, dict(columns or {})) for file in files], path, name, on_bad_input, multi_label)


@dataclass(frozen=True)
class ParquetCells:
    """The picture column of a Parquet file. A block is a row group."""

    file: Path
    column: str

    def name_row(self, row: int) -> str:
        """`train.parquet, row 3`."""
        return f"{self.file.name}, row {row}"

    def read_block(self, row: int) -> tuple[int, int, Sequence[Cell]]:
        """The row group that a row is in. Raises DataError for a damaged or shortened file."""
        layout = _read_layout(self.file)
        group = bisect_right(layout.edges, row) - 1
        if group == len(layout.edges) - 1:
            raise DataError(f"{self.file} has become shorter since it was opened: row {row} is gone")
        first, stop = layout.edges[group : group + 2]
        with _open_parquet_file(self.file, layout.footer) as file:
            cells = unpack_cells(file.read_row_group(group, columns=[self.column]).column(0))
        if len(cells) != stop - first:
            raise DataError(f"{self.file.name} is damaged: {len(cells)} of {stop - first} rows of a group are there")
        return first, stop, cells

    def iterate_cells(self) -> Iterator[Cell]:
        """All cells, 256 rows at a time."""
        with _open_parquet_file(self.file) as file:
            for batch in file.iter_batches(batch_size=256, columns=[self.column]):
                yield from unpack_cells(batch.column(0))


@dataclass(frozen=True)
class _Layout:
    """A file's footer, which takes longer to read than a row group, and at which row each group begins and the last ends."""

    footer: Any
    edges: list[int]


def _read_layout(file: Path) -> _Layout:
    with report_parquet_damage(file.name):
        stat = file.stat()
    return _read_layout_of(file, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=16)
def _read_layout_of(file: Path, size: int, changed: int) -> _Layout:
    """Of a file of this size that was changed at this time."""
    with _open_parquet_file(file) as opened:
        footer = opened.metadata
        rows = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        return _Layout(footer, list(accumulate(rows, initial=0)))


@contextmanager
def _open_parquet_file(file: Path, footer: Any = None) -> Iterator[Any]:
    """A Parquet file, its pages held against their checksums where it has some; damage found while it is read is a DataError.

    footer: where it was read before
    """
    from pyarrow import parquet

    with (
        report_parquet_damage(file.name),
        parquet.ParquetFile(file, metadata=footer, page_checksum_verification=True) as opened,
    ):
        yield opened


def unpack_cells(column: Any) -> list[Cell]:
    """A column of pyarrow, binary or of structs {bytes, path} → its cells."""
    values = column.to_pylist()
    return [(v.get("bytes") if v.get("bytes") is not None else v.get("path")) if isinstance(v, dict) else v for v in values]


def _read_shard(file: Path, columns: dict[str, str]) -> PackedShard:
    with _open_parquet_file(file) as opened:
        schema = opened.schema_arrow
        if is_signal_schema(schema):
            raise DataError(
                f"{file.name} holds times and numbers, expected encoded pictures: recordings are listed in a manifest with the "
                f"columns path, rate_hz and label, which is named as recordings and which phoropter init {file.parent} writes"
            )
        theirs = assign_columns(file.name, schema, columns)
        windows = [name for name in WINDOW_COLUMNS if METADATA_KEY in (schema.metadata or {}) and name in schema.names]
        small = [theirs[ours] for ours in SHARD_COLUMNS[1:] if ours in theirs]
        table = opened.read(columns=[*dict.fromkeys([*small, *windows])])
    shard = make_arrow_shard(ParquetCells(file, theirs["image"]), schema, table, theirs)
    drawn = read_drawn_windows(file.name, schema.metadata or {}, {name: table[name].to_pylist() for name in windows})
    return replace(shard, drawn=drawn)


def assign_columns(place: str, schema: Any, columns: Mapping[str, str]) -> dict[str, str]:
    """Our column name → the file's. Raises DataError for a missing column, and for a picture column of another type."""
    found = find_columns(place, [clean_name(name) for name in schema.names], SHARD_COLUMNS, columns, ("image", "label"))
    _check_picture_column(place, schema.field(found["image"]))
    return {ours: schema.names[at] for ours, at in found.items()}


def make_arrow_shard(cells: Any, schema: Any, table: Any, theirs: Mapping[str, str], part: str | None = None) -> PackedShard:
    """A PackedShard of the small columns of a pyarrow table. theirs: our column name → the table's"""
    values = {ours: table[theirs[ours]].to_pylist() for ours in SHARD_COLUMNS[1:] if ours in theirs}
    unread = tuple(name for name in schema.names if name not in theirs.values())
    names = _read_class_names(schema.metadata or {}, theirs["label"])
    return PackedShard(cells, table.num_rows, names, values, part, unread=unread)


def _check_picture_column(place: str, field: Any) -> None:
    import pyarrow as pa

    kind = field.type
    if pa.types.is_struct(kind) and any(kind.field(i).name in ("bytes", "path") for i in range(kind.num_fields)):
        return
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return
    raise DataError(
        f"{place}: the column '{field.name}' is {kind}, expected encoded pictures: binary, or a struct of bytes and path"
    )


def _read_class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """Class names of the hub's `ClassLabel` feature, or of a list of such, where the file's metadata has them."""
    try:
        feature = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"][label]
        feature = feature[0] if isinstance(feature, list) else feature.get("feature", feature)
        names = feature["names"]
        return tuple(str(word) for word in names) or None
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
        return None


PARQUET_SOURCE = Source(
    "parquet",
    open_packed(open_parquet),
    "a Parquet file or a folder of shards with encoded pictures, as the Hugging Face hub keeps them",
    options=(COLUMNS_OPTION,),
    uses=(*FILE_OPTIONS, "multi_label"),
    check=check_packed_options(),
    formats=(PARQUET,),
    detect=lambda contents: holds_packed(contents, PARQUET_ENDINGS),
    table_endings=TABLES,  # a Parquet file is the pictures themselves here
)
