"""Writes a dataset as Parquet shards with encoded pictures, labels, groups, sites and official parts: one folder to carry.

    OUT/data-00000.parquet, data-00001.parquet, …    columns image {bytes, path}, label, id and, where known, group, site, split

This is the layout of the Hugging Face hub; `data: {parquet: OUT}` reads it. Ordinary picture files keep their bytes. Everything
else (DICOM, TIFF, arrays, rendered windows) is stored as PNG of the pixels that a study would see, which loses nothing.

Left out: time spans of windows and names of recordings, for which Parquet files have no place here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from phoropter.core.errors import DataError, InputProblem, StoreError
from phoropter.core.files import atomic_write_folder, require_space
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.sources.storage import FilePictures

SHARD_BYTES = 256 << 20
KEPT_FORMATS = {".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".png": b"\x89PNG\r\n\x1a\n", ".webp": b"RIFF", ".bmp": b"BM"}
_GROUP_ROWS = 64  # pictures that are in memory at once


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
    Raises StoreError where `out` exists, DataError for rows with several labels or spans in recordings, and for a picture that
    cannot be read unless `on_bad_input` is "skip".
    """
    if out.exists():
        raise StoreError(f"{out} exists already: name a new folder with -o")
    if dataset.is_multi_label or dataset.spans is not None:
        what = "rows with several labels" if dataset.is_multi_label else "windows of recordings"
        raise DataError(f"{dataset.name} has {what}, which pack does not write: copy its source instead")
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

            with parquet.ParquetWriter(aside / f"data-{shards:05d}.parquet", pending[0].schema) as writer:
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
    """(a pyarrow table of at most _GROUP_ROWS rows, the bytes of its pictures), one after another."""
    for start in range(0, len(dataset), _GROUP_ROWS):
        kept, cells = [], []
        for row in range(start, min(start + _GROUP_ROWS, len(dataset))):
            try:
                cells.append(_encode_picture(dataset, row))
                kept.append(row)
            except DataError as error:
                if on_bad_input == "stop":
                    raise
                problems.append(InputProblem(str(dataset.ids[row]), str(error)))
        if kept:
            yield _make_table(dataset, np.array(kept), cells), sum(len(cell["bytes"]) for cell in cells)


def _as_files(dataset: Dataset) -> FilePictures | None:
    """The pictures, where each is a file as it is; None where they are derived from files: pages, channels, DICOM."""
    pictures = dataset.pictures
    return pictures if type(pictures) is FilePictures else None


def _encode_picture(dataset: Dataset, row: int) -> dict[str, Any]:
    """{bytes, path} of a row; a file's own bytes only where they are what its name says, and decode."""
    pixels = dataset.read(row)
    name = Path(str(dataset.ids[row])).stem
    if (files := _as_files(dataset)) is not None:
        path = files.file_path(row)
        start = KEPT_FORMATS.get(path.suffix.lower())
        if start and (content := path.read_bytes()).startswith(start):
            return {"bytes": content, "path": f"{name}{path.suffix.lower()}"}
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "png")
    return {"bytes": encoded.getvalue(), "path": f"{name}.png"}


def _make_table(dataset: Dataset, rows: np.ndarray[Any, Any], cells: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = [None if label == UNLABELLED else int(label) for label in dataset.labels[rows]]
    columns: dict[str, Any] = {"image": pa.array(cells, picture), "label": pa.array(labels, pa.int64())}
    named = {"id": dataset.ids, "group": dataset.groups, "site": dataset.sites, "split": dataset.parts}
    columns |= {name: pa.array(values[rows].tolist(), pa.string()) for name, values in named.items() if values is not None}
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in columns}
    features |= {"image": {"_type": "Image"}, "label": {"names": list(dataset.classes), "_type": "ClassLabel"}}
    return pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
