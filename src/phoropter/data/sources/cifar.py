"""CIFAR-10 and CIFAR-100 in the files torchvision downloads → Dataset, from the folder or from the .tar.gz as it is.

Opening one reads every batch, because labels and pixels are in one pickle; another process that gets the dataset reads the pixels
again when it needs one.

Left out on purpose: CIFAR-100's twenty coarse classes, and the binary and MATLAB versions of both.
"""

from __future__ import annotations

import gzip
import pickle
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, join_words
from phoropter.core.files import format_bytes
from phoropter.core.storage.foreign_files import GZIP, TAR
from phoropter.data.dataset import Dataset
from phoropter.data.source import PathContents, Source
from phoropter.data.sources.folder import open_folder
from phoropter.data.sources.storage import ArrayPictures, LazyArray
from phoropter.signals.readers.safe_pickle import load_arrays

MAX_BATCH_BYTES = 400_000_000
MAX_ARCHIVE_BYTES = 2_000_000_000


class CifarLayout(NamedTuple):
    """Names of one of the two sets on disk: its folder and archive, the batch files and their official parts, the keys inside."""

    title: str
    folder: str
    archive: str
    batch_files: dict[str, str]
    meta_file: str
    class_names_key: str
    labels_key: str

    @property
    def download_hint(self) -> str:
        """What to download from where."""
        return f"get {self.archive} from https://www.cs.toronto.edu/~kriz/cifar.html and put it there, packed or unpacked"


CIFAR10 = CifarLayout(
    "CIFAR-10",
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    {**{f"data_batch_{i}": "train" for i in range(1, 6)}, "test_batch": "test"},
    "batches.meta",
    "label_names",
    "labels",
)
CIFAR100 = CifarLayout(
    "CIFAR-100",
    "cifar-100-python",
    "cifar-100-python.tar.gz",
    {"train": "train", "test": "test"},
    "meta",
    "fine_label_names",
    "fine_labels",
)


def open_cifar(path: Path, layout: CifarLayout, *, name: str | None = None) -> Dataset:
    """The folder of batch files, one that holds it, or the .tar.gz (read without unpacking) → Dataset; ids are `train/00000`….

    A folder with train/ and test/ in it is read as picture files, which is how some mirrors distribute the set; the notes say so.
    Raises DataError for a missing or damaged file, or a pickle that holds more than arrays and text.
    """
    if (path / "train").is_dir() and (path / "test").is_dir():
        files = open_folder(path, name=name or layout.title.lower().replace("-", ""))
        return replace(
            files, notes=(*files.notes, f"{layout.title} as picture files, whose pixels may differ from the originals'")
        )
    place = _locate_files(path, layout)
    labels, parts, images = _read_batches(place, layout)
    classes = _parse_class_names(
        _unpickle_files(place, layout, (layout.meta_file,))[layout.meta_file],
        layout.class_names_key,
        f"{place.name}/{layout.meta_file}",
    )
    if labels.size and (labels.min() < 0 or labels.max() >= len(classes)):
        raise DataError(f"{place}: labels run {labels.min()}..{labels.max()}, expected 0..{len(classes) - 1}")
    counts = dict.fromkeys(parts.tolist(), 0)
    ids = []
    for part in parts.tolist():
        ids.append(f"{part}/{counts[part]:05d}")
        counts[part] += 1
    batches = (place,) if place.is_file() else tuple(place / batch for batch in layout.batch_files)
    lazy_images = LazyArray(_read_images, place, layout, files=batches).with_array(images)
    return Dataset(
        name=name or layout.title.lower().replace("-", ""),
        ids=np.array(ids),
        labels=labels,
        classes=classes,
        pictures=ArrayPictures(lazy_images, np.arange(len(ids)), layout.title),
        parts=parts,
        notes=(f"{layout.title} of Krizhevsky 2009, in its official parts: " + ", ".join(f"{c} {p}" for p, c in counts.items()),),
    )


def _locate_files(path: Path, layout: CifarLayout) -> Path:
    first = next(iter(layout.batch_files))
    for place in (path, path / layout.folder):
        if (place / first).is_file() and (place / layout.meta_file).is_file():
            return place
    for place in (path, path / layout.archive):
        if place.is_file():
            return place
    raise DataError(f"{layout.title} is not at {path}: {layout.download_hint}")


def _read_batches(place: Path, layout: CifarLayout) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.uint8]]:
    """(labels, parts, (N, 32, 32, 3) pictures) of every batch, in the official order."""
    labels, parts, images = [], [], []
    batches = _unpickle_files(place, layout, tuple(layout.batch_files))
    for batch, part in layout.batch_files.items():
        where = f"{place.name}/{batch}"
        content = batches[batch]
        data = content.get("data") if isinstance(content, dict) else None
        given = content.get(layout.labels_key) if isinstance(content, dict) else None
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise DataError(f"{where}: 'data' should be rows of 3072 bytes, as {layout.title} has them; download it again")
        if not isinstance(given, list) or len(given) != len(data) or any(type(label) is not int for label in given):
            raise DataError(
                f"{where}: '{layout.labels_key}' should be one whole number for each of {len(data)} pictures; download it again"
            )
        labels += given
        parts += [part] * len(given)
        images.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return np.array(labels, dtype=np.int64), np.array(parts), np.concatenate(images)


def _read_images(place: Path, layout: CifarLayout) -> NDArray[np.uint8]:
    return _read_batches(place, layout)[2]


def _unpickle_files(place: Path, layout: CifarLayout, wanted: Sequence[str]) -> dict[str, Any]:
    read = _read_from_archive if place.is_file() else _read_from_folder
    contents = read(place, layout.folder, wanted)
    if missing := [name for name in wanted if name not in contents]:
        raise DataError(f"{place}: {join_words(missing)} is missing; {layout.download_hint}")
    return {name: _unpickle_arrays(content, f"{place.name}/{name}") for name, content in contents.items()}


def _unpickle_arrays(content: bytes, where: str) -> Any:
    try:
        return load_arrays(content)
    except pickle.UnpicklingError as error:
        raise DataError(f"{where}: refused, because it is not the plain pickle of arrays it should be: {error}") from None


def _read_from_folder(place: Path, folder: str, wanted: Sequence[str]) -> dict[str, bytes]:
    contents = {}
    for name in wanted:
        file = place / name
        if file.is_file():
            _check_file_size(file.stat().st_size, f"{place.name}/{name}")
            contents[name] = file.read_bytes()
    return contents


def _read_from_archive(place: Path, folder: str, wanted: Sequence[str]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(place, "r|*") as archive:
            for member in archive:
                if member.offset_data + member.size > MAX_ARCHIVE_BYTES:
                    raise DataError(f"{place} unpacks to more than {format_bytes(MAX_ARCHIVE_BYTES)}, so it is no CIFAR archive")
                name = member.name.removeprefix("./").removeprefix(f"{folder}/")
                if name in wanted and member.isreg() and (file := archive.extractfile(member)):
                    _check_file_size(member.size, f"{place.name}/{name}")
                    contents[name] = file.read()
                if len(contents) == len(wanted):
                    break
    except (tarfile.TarError, OSError, EOFError, gzip.BadGzipFile, ValueError) as error:
        raise DataError(f"{place} is damaged or no tar archive ({error}); download it again") from None
    return contents


def _check_file_size(size: int, where: str) -> None:
    if size > MAX_BATCH_BYTES:
        raise DataError(f"{where} has {format_bytes(size)}, more than any CIFAR batch; download it again")


def _parse_class_names(content: Any, key: str, where: str) -> tuple[str, ...]:
    words = content.get(key) if isinstance(content, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{where}: '{key}' should be the list of class names; download it again")
    return tuple(words)


def _define_cifar_source(key: str, layout: CifarLayout) -> Source:
    return Source(
        key,
        lambda request: open_cifar(request.path, layout, name=request.name),
        f"{layout.title}: the folder or .tar.gz that torchvision downloads, or the folder it lies in",
        formats=(
            GZIP,
            TAR,
        ),
        detect=lambda contents: _is_cifar(contents, layout),
    )


def _is_cifar(contents: PathContents, layout: CifarLayout) -> bool:
    path, first = contents.path, next(iter(layout.batch_files))
    if not contents.is_folder:
        return path.name.lower() == layout.archive
    unpacked = any((place / first).is_file() and (place / layout.meta_file).is_file() for place in (path, path / layout.folder))
    return unpacked or (path / layout.archive).is_file()


CIFAR10_SOURCE = _define_cifar_source("cifar10", CIFAR10)
CIFAR100_SOURCE = _define_cifar_source("cifar100", CIFAR100)
