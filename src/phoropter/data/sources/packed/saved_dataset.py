"""Folders that Hugging Face's `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write → Dataset.

    dataset_dict.json      the names of the parts, each a folder as below
    state.json             the names of the data files, in order, and the part they are
    data-00000-of-….arrow  record batches in Arrow's stream format, with the features in their metadata

`datasets` itself is not needed: nothing of it is imported, and nothing in the folder is executed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phoropter.core.errors import DataError, cut_message, join_words
from phoropter.core.files import read_json
from phoropter.data.dataset import Dataset
from phoropter.data.folders.layout import parse_split_name
from phoropter.data.source import COLUMNS_OPTION, FILE_OPTIONS, PathContents, Source
from phoropter.data.sources.packed.cells import Cell
from phoropter.data.sources.packed.parquet import assign_columns, make_arrow_shard, unpack_cells
from phoropter.data.sources.packed.shards import SHARD_COLUMNS, PackedShard, check_packed_options, join_shards, open_packed

MAX_STATE_BYTES = 64 * 1024**2
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
_STATE, _PARTS = "state.json", "dataset_dict.json"


def open_saved_dataset(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    multi_label: bool = False,
    on_bad_input: str = "stop",
    name: str | None = None,
) -> Dataset:
    """A folder of `save_to_disk` → Dataset, with the parts of a DatasetDict as official parts.

    columns: our name → the dataset's, where they differ · multi_label: the label of a row is a list
    Raises DataError for a folder of another form, and as `open_parquet`.
    """
    shards = [
        _read_shard(file, dict(columns or {}), part) for folder, part in _list_parts(path) for file in _list_data_files(folder)
    ]
    return join_shards(shards, path, name, on_bad_input, multi_label)


@dataclass(frozen=True)
class ArrowCells:
    """The picture column of an Arrow stream. A block is a record batch."""

    file: Path
    column: str

    def name_row(self, row: int) -> str:
        """`data-00000-of-00001.arrow, row 3`."""
        return f"{self.file.name}, row {row}"

    def read_block(self, row: int) -> tuple[int, int, Sequence[Cell]]:
        """The record batch that a row is in. Raises DataError for a damaged or shortened file."""
        first = 0
        with _open_stream(self.file) as (_, batches):
            for batch in batches:
                stop = first + batch.num_rows
                if row < stop:
                    return first, stop, _read_cells(batch, self.column)
                first = stop
        raise DataError(f"{self.file} has become shorter since it was opened: row {row} is gone")

    def iterate_cells(self) -> Iterator[Cell]:
        """All cells, one record batch at a time."""
        with _open_stream(self.file) as (_, batches):
            for batch in batches:
                yield from _read_cells(batch, self.column)


def _read_cells(batch: Any, column: str) -> list[Cell]:
    """The picture column of a record batch; checked first, because a wrong offset would end the process."""
    cells = batch.column(column)
    cells.validate(full=True)
    return unpack_cells(cells)


@contextmanager
def _open_stream(file: Path) -> Iterator[tuple[Any, Iterator[Any]]]:
    """(schema, record batches) of an Arrow stream; damage found while it is read is a DataError."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as reader:
            yield reader.schema, iter(reader)
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError) as error:
        reason = cut_message(error, 160)
        raise DataError(f"{file.name} is damaged or no Arrow stream ({reason}); save the dataset again") from None


def _check_end(file: Path) -> None:
    """Raises DataError for a stream that was cut off behind one of its batches, which pyarrow reads as a shorter one."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - len(_END_OF_STREAM)))
        if stream.read() != _END_OF_STREAM:
            raise DataError(f"{file.name} is cut off: the end mark of an Arrow stream is missing; copy the folder again")


def _read_shard(file: Path, columns: dict[str, str], part: str) -> PackedShard:
    import pyarrow as pa

    with _open_stream(file) as (schema, batches):
        theirs = assign_columns(file.name, schema, columns)
        small = [theirs[ours] for ours in SHARD_COLUMNS[1:] if ours in theirs]
        table = pa.Table.from_batches([batch.select(small) for batch in batches], pa.schema([schema.field(n) for n in small]))
        table.validate(full=True)
        _check_end(file)
        return make_arrow_shard(ArrowCells(file, theirs["image"]), schema, table, theirs, part)


def _list_parts(path: Path) -> list[tuple[Path, str]]:
    """(folder, official part or "") of each saved Dataset."""
    if (path / _PARTS).is_file():
        names = read_json(path / _PARTS, MAX_STATE_BYTES, DataError)
        names = names.get("splits") if isinstance(names, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(n, str) and _is_plain_name(n) for n in names):
            raise DataError(f"{path / _PARTS}: expected the names of parts under 'splits'; save the dataset again")
        return [(path / name, _parse_part(name, path)) for name in names]
    return [(path, "")]


def _parse_part(name: str, path: Path) -> str:
    part = parse_split_name(name)
    if part is None:
        raise DataError(f"{path / _PARTS}: the part is called '{name}'; expected train, validation or test, or name its folder")
    return part


def _list_data_files(folder: Path) -> list[Path]:
    if not (folder / _STATE).is_file():
        raise DataError(f"{folder}: there is no {_STATE}; expected a folder that `save_to_disk` of Hugging Face's datasets wrote")
    state = read_json(folder / _STATE, MAX_STATE_BYTES, DataError)
    files = state.get("_data_files") if isinstance(state, dict) else None
    named = [entry.get("filename") if isinstance(entry, dict) else None for entry in files] if isinstance(files, list) else []
    names = [name for name in named if isinstance(name, str) and _is_plain_name(name)]
    if not names or len(names) < len(named):
        raise DataError(f"{folder / _STATE}: expected the names of data files in this folder under '_data_files'; save it again")
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(f"{folder}: the dataset was saved with an index of rows; save it again with flatten_indices()")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {join_words(missing, 3)} is missing; copy the folder again")
    return [folder / name for name in names]


def _is_plain_name(name: str) -> bool:
    """Whether it names something directly in its folder: no path out of it."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0:")


def _is_saved_dataset(contents: PathContents) -> bool:
    return _PARTS in contents.names or (_STATE in contents.names and ".arrow" in contents.suffixes)


SAVED_DATASET_SOURCE = Source(
    "saved_dataset",
    open_packed(open_saved_dataset),
    "the folder that `save_to_disk` of Hugging Face's datasets wrote, of a Dataset or a DatasetDict",
    options=(COLUMNS_OPTION,),
    uses=(*FILE_OPTIONS, "multi_label"),
    check=check_packed_options(),
    detect=_is_saved_dataset,
)
