"""CIFAR-10 and CIFAR-100 in the files torchvision downloads → Dataset, from the folder or from the .tar.gz as it is.

Opening one reads every batch, because labels and pixels lie in one pickle; a process that is handed the dataset reads the
pixels again when it first needs one.

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

from phoropter.core.errors import DataError, listing
from phoropter.core.files import size_text
from phoropter.data.dataset import Dataset
from phoropter.data.folders import open_folder
from phoropter.data.pictures import ArrayPictures, Held
from phoropter.signals.arrays_only import load_arrays

MAX_BATCH_BYTES = 400_000_000
MAX_ARCHIVE_BYTES = 2_000_000_000


class Cifar(NamedTuple):
    """How one of the two sets lies on disk: its folder and archive, the batch files and their parts, and the keys inside."""

    title: str
    folder: str
    archive: str
    batches: dict[str, str]
    meta: str
    names: str
    labels: str

    @property
    def where(self) -> str:
        """What to get, from where."""
        return f"get {self.archive} from https://www.cs.toronto.edu/~kriz/cifar.html and put it there, packed or unpacked"


CIFAR10 = Cifar(
    "CIFAR-10",
    "cifar-10-batches-py",
    "cifar-10-python.tar.gz",
    {**{f"data_batch_{i}": "train" for i in range(1, 6)}, "test_batch": "test"},
    "batches.meta",
    "label_names",
    "labels",
)
CIFAR100 = Cifar(
    "CIFAR-100",
    "cifar-100-python",
    "cifar-100-python.tar.gz",
    {"train": "train", "test": "test"},
    "meta",
    "fine_label_names",
    "fine_labels",
)


def open_cifar(path: Path, kind: Cifar, *, name: str | None = None) -> Dataset:
    """The folder of batch files, one that holds it, or the .tar.gz (read without unpacking) → Dataset; ids are `train/00000`….

    A folder with train/ and test/ in it is taken for the set as picture files, which is how some keep it; the notes say so.
    Raises DataError for a missing or damaged file, or a pickle that holds more than arrays and text.
    """
    if (path / "train").is_dir() and (path / "test").is_dir():
        files = open_folder(path, name=name or kind.title.lower().replace("-", ""))
        return replace(files, notes=(*files.notes, f"{kind.title} as picture files, whose pixels may differ from the originals'"))
    place = _cifar_place(path, kind)
    labels, parts, images = _cifar(place, kind)
    classes = _words(_cifar_files(place, kind, (kind.meta,))[kind.meta], kind.names, f"{place.name}/{kind.meta}")
    if labels.size and (labels.min() < 0 or labels.max() >= len(classes)):
        raise DataError(f"{place}: labels run {labels.min()}..{labels.max()}, expected 0..{len(classes) - 1}")
    counts = dict.fromkeys(parts.tolist(), 0)
    ids = []
    for part in parts.tolist():
        ids.append(f"{part}/{counts[part]:05d}")
        counts[part] += 1
    batches = (place,) if place.is_file() else tuple(place / batch for batch in kind.batches)
    held = Held(_cifar_images, place, kind, files=batches).keep(images)
    return Dataset(
        name=name or kind.title.lower().replace("-", ""),
        ids=np.array(ids),
        labels=labels,
        classes=classes,
        pictures=ArrayPictures(held, np.arange(len(ids)), kind.title),
        parts=parts,
        notes=(f"{kind.title} of Krizhevsky 2009, in its official parts: " + ", ".join(f"{c} {p}" for p, c in counts.items()),),
    )


def _cifar_place(path: Path, kind: Cifar) -> Path:
    first = next(iter(kind.batches))
    for place in (path, path / kind.folder):
        if (place / first).is_file() and (place / kind.meta).is_file():
            return place
    for place in (path, path / kind.archive):
        if place.is_file():
            return place
    raise DataError(f"{kind.title} is not at {path}: {kind.where}")


def _cifar(place: Path, kind: Cifar) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.uint8]]:
    """(labels, parts, (N, 32, 32, 3) pictures) of every batch, in the official order."""
    labels, parts, images = [], [], []
    batches = _cifar_files(place, kind, tuple(kind.batches))
    for batch, part in kind.batches.items():
        where = f"{place.name}/{batch}"
        content = batches[batch]
        data = content.get("data") if isinstance(content, dict) else None
        given = content.get(kind.labels) if isinstance(content, dict) else None
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
            raise DataError(f"{where}: 'data' should be rows of 3072 bytes, as {kind.title} has them; fetch it again")
        if not isinstance(given, list) or len(given) != len(data) or any(type(label) is not int for label in given):
            raise DataError(
                f"{where}: '{kind.labels}' should be one whole number for each of {len(data)} pictures; fetch it again"
            )
        labels += given
        parts += [part] * len(given)
        images.append(data.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return np.array(labels, dtype=np.int64), np.array(parts), np.concatenate(images)


def _cifar_images(place: Path, kind: Cifar) -> NDArray[np.uint8]:
    return _cifar(place, kind)[2]


def _cifar_files(place: Path, kind: Cifar, wanted: Sequence[str]) -> dict[str, Any]:
    read = _from_archive if place.is_file() else _from_folder
    contents = read(place, kind.folder, wanted)
    if missing := [name for name in wanted if name not in contents]:
        raise DataError(f"{place}: {listing(missing)} is missing; {kind.where}")
    return {name: _unpickled(content, f"{place.name}/{name}") for name, content in contents.items()}


def _unpickled(content: bytes, where: str) -> Any:
    try:
        return load_arrays(content)
    except pickle.UnpicklingError as error:
        raise DataError(f"{where}: refused, because it is not the plain pickle of arrays it should be: {error}") from None


def _from_folder(place: Path, folder: str, wanted: Sequence[str]) -> dict[str, bytes]:
    contents = {}
    for name in wanted:
        file = place / name
        if file.is_file():
            _refuse_large(file.stat().st_size, f"{place.name}/{name}")
            contents[name] = file.read_bytes()
    return contents


def _from_archive(place: Path, folder: str, wanted: Sequence[str]) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(place, "r|*") as archive:
            for member in archive:
                if member.offset_data + member.size > MAX_ARCHIVE_BYTES:
                    raise DataError(f"{place} unfolds into more than {size_text(MAX_ARCHIVE_BYTES)}, which is no CIFAR archive")
                name = member.name.removeprefix("./").removeprefix(f"{folder}/")
                if name in wanted and member.isreg() and (file := archive.extractfile(member)):
                    _refuse_large(member.size, f"{place.name}/{name}")
                    contents[name] = file.read()
                if len(contents) == len(wanted):
                    break
    except (tarfile.TarError, OSError, EOFError, gzip.BadGzipFile, ValueError) as error:
        raise DataError(f"{place} is damaged or no tar archive ({error}); fetch it again") from None
    return contents


def _refuse_large(size: int, where: str) -> None:
    if size > MAX_BATCH_BYTES:
        raise DataError(f"{where} has {size_text(size)}, more than any CIFAR batch; fetch it again")


def _words(content: Any, key: str, where: str) -> tuple[str, ...]:
    words = content.get(key) if isinstance(content, dict) else None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise DataError(f"{where}: '{key}' should be the list of class names; fetch it again")
    return tuple(words)
