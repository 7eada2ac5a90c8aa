"""The predictions of all runs of a study in one Parquet file, written run by run, so that memory holds one run at a time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from phoropter.core.errors import StoreError
from phoropter.core.files import atomic_write
from phoropter.interface.frames import PARTS, iter_prediction_frames
from phoropter.results.store import Run


def write_parquet_file(runs: Iterable[Run], path: Path) -> Path:
    """A row for each prediction of each part; text columns are dictionaries. Raises StoreError for no run, and DiskError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("candidate", "part", "id", "label", "class", "group", "site", "recording")
    writer: pq.ParquetWriter | None = None
    with atomic_write(path) as aside:
        try:
            for frame in iter_prediction_frames(runs, PARTS):
                kinds = {name: pa.string() if name in names else pa.float64() for name in frame.columns}
                kinds |= {name: pa.int64() for name in ("seed", "repeat", "fold")}
                schema = pa.schema(list(kinds.items()))
                writer = writer or pq.ParquetWriter(aside, schema)
                writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
            if writer is None:
                raise StoreError(f"{path} was not written: the study has no finished run; run it, then export")
        finally:
            if writer is not None:
                writer.close()
    return path
