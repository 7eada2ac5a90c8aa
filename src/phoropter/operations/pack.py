"""Writes a dataset as Parquet shards with encoded pictures, labels, groups, sites and official parts: one folder to carry.

    OUT/data-00000.parquet, data-00001.parquet, …    columns image {bytes, path}, label, id and, where known, group, site, split

This is the layout of the Hugging Face hub; `data: {parquet: OUT}` reads it. Ordinary picture files keep their bytes. Everything
else (DICOM, TIFF, arrays, windows of recordings) is stored as PNG of the pixels that a study would see, which loses nothing.
Several labels of a row are a list of class labels. Of windows, which recording and which seconds of it they show are columns of
their own, and how they were drawn is metadata (data/sources/packed/drawn_windows.py); the samples are left behind.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from phoropter.core.errors import DataError, InputProblem, StoreError
from phoropter.core.files import atomic_write_folder, require_space
from phoropter.data.dataset import Dataset
from phoropter.data.images.decode_pool import iterate_pictures
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.sources.packed.drawn_windows import describe_drawing, list_window_columns
from phoropter.data.sources.storage import FilePictures

SHARD_BYTES = 256 << 20
KEPT_FORMATS = {".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".png": b"\x89PNG\r\n\x1a\n", ".webp": b"RIFF", ".bmp": b"BM"}
GROUP_ROWS, GROUP_BYTES = 4096, 4 << 20  # at most, of the pictures that are in memory at once, here and where one of them is read


@dataclass(frozen=True)
class PackedFolder:
    """rows: that were written · shards: how many files · problems: pictures that could not be read and were left out"""

    rows: int
    shards: int
    problems: tuple[InputProblem, ...]


def pack_dataset(
    dataset: Dataset,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    on_bad_input: str = "stop",
) -> PackedFolder:
    """Writes all rows in their order into `out`, which must not exist; it appears when it is complete.

    shard_bytes: a shard is closed once it holds so many bytes of pictures
    Raises StoreError where `out` exists, and DataError for a picture that cannot be read unless `on_bad_input` is "skip".
    """
    if out.exists():
        raise StoreError(f"{out} exists already: name a new folder with -o")
    shards = rows = 0
    problems: list[InputProblem] = []
    files = _as_files(dataset)
    size = 0 if files is None else sum(files.byte_count(row) for row in range(len(dataset)))
    require_space(out.parent, size, f"packing {dataset.name}")
    with atomic_write_folder(out) as aside:
        groups = _iterate_row_groups(dataset, on_bad_input, problems)
        pending = next(groups, None)
        while pending is not None:
            from pyarrow import parquet

            with parquet.ParquetWriter(
                aside / f"data-{shards:05d}.parquet", pending[0].schema, write_page_checksum=True
            ) as writer:
                written = 0
                while pending is not None and written < shard_bytes:
                    table, count = pending
                    writer.write_table(table)
                    written, rows = written + count, rows + table.num_rows
                    pending = next(groups, None)
            shards += 1
        if not rows:
            raise DataError(f"{dataset.name}: none of its {len(dataset)} pictures can be read; the first: {problems[0]}")
    return PackedFolder(rows, shards, tuple(problems))


def _iterate_row_groups(dataset: Dataset, on_bad_input: str, problems: list[InputProblem]) -> Iterator[tuple[Any, int]]:
    """(a pyarrow table of a few rows, the bytes of its pictures), one after another."""
    metadata, size = _make_metadata(dataset), 0
    kept: list[int] = []
    cells: list[dict[str, Any]] = []
    for row, picture in iterate_pictures(dataset, 0, len(dataset)):
        if isinstance(picture, DataError):
            if on_bad_input == "stop":
                raise picture
            problems.append(InputProblem(str(dataset.ids[row]), str(picture)))
            continue
        cells.append(_encode_picture(dataset, row, picture))
        kept.append(row)
        size += len(cells[-1]["bytes"])
        if size >= GROUP_BYTES or len(kept) == GROUP_ROWS:
            yield _make_table(dataset, np.array(kept), cells).replace_schema_metadata(metadata), size
            kept, cells, size = [], [], 0
    if kept:
        yield _make_table(dataset, np.array(kept), cells).replace_schema_metadata(metadata), size


def _as_files(dataset: Dataset) -> FilePictures | None:
    """The pictures, where each is a file as it is; None where they are derived from files: pages, channels, DICOM."""
    pictures = dataset.pictures
    return pictures if type(pictures) is FilePictures else None


def _encode_picture(dataset: Dataset, row: int, picture: Any) -> dict[str, Any]:
    """{bytes, path} of a row; a file's own bytes only where they are what its name says. picture: an RGB Image or its pixels"""
    name = Path(str(dataset.ids[row])).stem
    if (files := _as_files(dataset)) is not None:
        path = files.file_path(row)
        start = KEPT_FORMATS.get(path.suffix.lower())
        if start and (content := path.read_bytes()).startswith(start):
            return {"bytes": content, "path": f"{name}{path.suffix.lower()}"}
    encoded = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(encoded, "png")  # the pixels alone, without what a file says of itself
    return {"bytes": encoded.getvalue(), "path": f"{name}.png"}


def _make_table(dataset: Dataset, rows: NDArray[np.int64], cells: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    label = pa.list_(pa.int64()) if dataset.is_multi_label else pa.int64()
    columns: dict[str, Any] = {"image": pa.array(cells, picture), "label": pa.array(_list_labels(dataset, rows), label)}
    for name, values in _list_columns(dataset).items():
        columns[name] = pa.array(values[rows].tolist(), pa.string() if values.dtype.kind == "U" else pa.float64())
    return pa.table(columns)


def _list_columns(dataset: Dataset) -> dict[str, NDArray[Any]]:
    """Column → N values, of those that the dataset has, beside pictures and labels."""
    named = {"id": dataset.ids, "group": dataset.groups, "site": dataset.sites, "split": dataset.parts}
    return {name: values for name, values in named.items() if values is not None} | list_window_columns(dataset)


def _list_labels(dataset: Dataset, rows: NDArray[np.int64]) -> list[Any]:
    """The number of each row's class, or the numbers of its labels; None where they are not known."""
    known = dataset.labelled[rows].tolist()
    if dataset.is_multi_label:
        return [np.flatnonzero(flags).tolist() if k else None for flags, k in zip(dataset.labels[rows], known, strict=True)]
    return [label if k else None for label, k in zip(dataset.labels[rows].tolist(), known, strict=True)]


def _make_metadata(dataset: Dataset) -> dict[bytes, bytes]:
    """The features as Hugging Face's datasets reads them, and how windows were drawn."""
    features: dict[str, Any] = {
        name: {"dtype": "string" if values.dtype.kind == "U" else "float64", "_type": "Value"}
        for name, values in _list_columns(dataset).items()
    }
    label: dict[str, Any] = {"names": list(dataset.classes), "_type": "ClassLabel"}
    features |= {
        "image": {"_type": "Image"},
        "label": {"feature": label, "_type": "Sequence"} if dataset.is_multi_label else label,
    }
    drawn = dataset.pictures.windows.view.plain() if isinstance(dataset.pictures, RenderedPictures) else None
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode(), **describe_drawing(dataset, drawn)}
