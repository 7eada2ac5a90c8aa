"""The table of sources, in the order of detection: the first source that recognises a path reads it."""

from __future__ import annotations

from pathlib import Path

from phoropter.core.errors import DataError
from phoropter.core.storage.foreign_files import PARQUET, refuse_foreign_file
from phoropter.core.text_table import PARQUET_ENDINGS
from phoropter.data.in_memory import OBJECT_SOURCE
from phoropter.data.recordings.sources import RECORDING_SOURCES
from phoropter.data.source import PathContents, Source, resolve_snapshot
from phoropter.data.sources.arrays import DIGITS_SOURCE
from phoropter.data.sources.cifar import CIFAR10_SOURCE, CIFAR100_SOURCE
from phoropter.data.sources.folder import FOLDER_SOURCE
from phoropter.data.sources.imagenet import IMAGENET_SOURCE
from phoropter.data.sources.manifest import MANIFEST_SOURCE
from phoropter.data.sources.npz import NPZ_SOURCE
from phoropter.data.sources.packed.hdf5 import HDF5_SOURCE
from phoropter.data.sources.packed.parquet import PARQUET_SOURCE
from phoropter.data.sources.packed.saved_dataset import SAVED_DATASET_SOURCE
from phoropter.data.sources.packed.webdataset import WEBDATASET_SOURCE

SOURCES: dict[str, Source] = {
    source.key: source
    for source in (
        CIFAR10_SOURCE,
        CIFAR100_SOURCE,
        *RECORDING_SOURCES,
        IMAGENET_SOURCE,
        NPZ_SOURCE,
        MANIFEST_SOURCE,  # before Parquet: a Parquet file may be a manifest
        PARQUET_SOURCE,
        SAVED_DATASET_SOURCE,
        HDF5_SOURCE,
        WEBDATASET_SOURCE,
        FOLDER_SOURCE,  # after all others: every folder is one
        DIGITS_SOURCE,
        OBJECT_SOURCE,
    )
}

TABLE_ENDINGS = (".csv", ".tsv", ".txt", *PARQUET_ENDINGS)
_ARCHIVES = (".tar", ".gz", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz")
_EXPECTED = (
    "a folder of pictures or recordings, a manifest (.csv, .parquet), .npz, Parquet, HDF5 or CIFAR files, WebDataset tars, or a "
    "folder that save_to_disk wrote"
)


def detect_source(path: Path) -> Source:
    """The source that reads a path. Raises DataError when nothing is there, and for files that no source reads."""
    if not path.exists():
        raise DataError(f"there is nothing at {path}; expected {_EXPECTED}")
    contents = PathContents(resolve_snapshot(path))
    if contents.is_file_like(*TABLE_ENDINGS):
        refuse_foreign_file(path, (PARQUET,) if contents.is_file_like(*PARQUET_ENDINGS) else ())
    for source in SOURCES.values():
        if source.detect is not None and source.detect(contents):
            return source
    if contents.is_file_like(*_ARCHIVES):
        raise DataError(
            f"{path} is an archive; unpack it and name the folder (only CIFAR's own archives and plain tars of WebDataset are "
            "read as they are)"
        )
    refuse_foreign_file(path)
    raise DataError(f"{path}: expected {_EXPECTED}")
