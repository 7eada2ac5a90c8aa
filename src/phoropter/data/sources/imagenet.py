"""ImageNet-1k in its usual layouts on disk → Dataset, always with all 1000 classes in the order of the public weights.

Layouts: synset folders (`n01440764/…`), flat files named by synset (`n01440764_tench.JPEG`), and flat files with a label file:
Kaggle's LOC_val_solution.csv (its boxes are ignored), lines of `file synset` or `file index`, or one label a line in the order
of file names. A bare number can mean two things, and the wrong one gives a study at chance level: the ILSVRC2012_ID of the
development kit, 1 to 1000 in an order of its own (translated by the kit's meta.mat), or the class index of the weights, 0 to 999.
A 0 in the list or the kit's file name decides; otherwise `labels_order` must be given.

Synsets and names are read from the data files that timm installs, without importing timm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem, join_words
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.folders.layout import parse_split_name
from phoropter.data.folders.scan import PathParts, normalize_unicode, scan_folder
from phoropter.data.source import FILE_OPTIONS, NonEmptyPath, PathContents, Source, SourceOption, SourceRequest
from phoropter.data.sources.storage import FilePictures
from phoropter.results.exclusions import make_step

DEVKIT_LABEL_FILE = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT_META_FILE = "meta.mat"
LABEL_FILES = ("LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt", "val.txt", DEVKIT_LABEL_FILE)
MAX_LABEL_BYTES = 500_000_000
MIN_SYNSET_FOLDERS = 500  # fewer synset folders are somebody's own selection, with classes of its own
DOWNLOAD_HINT = (
    "register at https://image-net.org and unpack ILSVRC2012_img_val.tar into it, and beside the pictures put "
    "ILSVRC2012_validation_ground_truth.txt and meta.mat of the development kit, or LOC_val_solution.csv from Kaggle"
)

_SYNSET_PATTERN = re.compile(r"n\d{8}")


@lru_cache(maxsize=1)
def synset_ids() -> tuple[str, ...]:
    """The 1000 synset ids, in the order of the weights' classes (0 is n01440764, tench)."""
    return tuple(_locate_timm_file("imagenet_synsets.txt").read_text(encoding="utf-8").split())


@lru_cache(maxsize=1)
def _synset_to_index() -> dict[str, int]:
    return {synset: place for place, synset in enumerate(synset_ids())}


@lru_cache(maxsize=1)
def class_names() -> tuple[str, ...]:
    """`n01440764 tench`: the synset, because words repeat (there are two cranes), and its first word, to be readable."""
    lines = _locate_timm_file("imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    words = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return tuple(f"{synset} {words[synset].split(',')[0]}" for synset in synset_ids())


def _locate_timm_file(name: str) -> Path:
    found = find_spec("timm")
    folder = found.submodule_search_locations[0] if found and found.submodule_search_locations else ""
    file = Path(folder) / "data" / "_info" / name
    if not folder or not file.exists():
        raise DataError(
            f"the list of ImageNet classes ({name}) comes with the package timm, which is not installed: pip install timm"
        )
    return file


@dataclass(frozen=True)
class LabelFile:
    """A label file. order: of its numbers, `index` (0..999, of the weights) or `ilsvrc` (1..1000, of the development kit)."""

    path: Path | None = None
    order: str | None = None


def open_imagenet(root: Path, *, given: LabelFile = LabelFile(), on_bad_input: str = "stop", name: str | None = None) -> Dataset:
    """ImageNet's pictures, all or some → Dataset with 1000 classes; ids are relative POSIX paths.

    Raises DataError for a picture without a label, and for label numbers whose order is unknown.
    """
    if not root.is_dir():
        raise DataError(f"ImageNet is not at {root}: {DOWNLOAD_HINT}")
    scan = scan_folder(root)
    if not scan.picture_paths:
        raise DataError(f"{root} holds no pictures: {DOWNLOAD_HINT}")
    labels = np.array([_label_from_path(path) for path in scan.picture_paths], dtype=np.int64)
    notes = [f"classes by synset for {int((labels != UNLABELLED).sum())} of {len(labels)} pictures"]
    if (missing := np.flatnonzero(labels == UNLABELLED)).size:
        found, note = _labels_from_file(root, given, [scan.picture_paths[i] for i in missing])
        labels[missing] = found
        notes = [note] if len(missing) == len(labels) else [*notes, note]
    nameless = np.flatnonzero(labels == UNLABELLED)
    left_out = {"cannot be read": len(scan.unusable), "without a label": len(nameless)}
    scan.unusable += [InputProblem("/".join(scan.picture_paths[i]), "no label was found for it") for i in nameless]
    kept = np.flatnonzero(labels != UNLABELLED)
    problems = scan.collect_problems(on_bad_input)
    parts = [parse_split_name(scan.picture_paths[i][0]) if len(scan.picture_paths[i]) > 1 else None for i in kept]
    return Dataset(
        name=name or "imagenet",
        ids=np.array([normalize_unicode("/".join(scan.picture_paths[i])) for i in kept], dtype=np.str_),
        labels=labels[kept],
        classes=class_names(),
        pictures=FilePictures(root, ["/".join(scan.picture_paths[i]) for i in kept]),
        parts=np.array([part or "" for part in parts], dtype=np.str_) if any(parts) else None,
        problems=problems,
        exclusions=(make_step("pictures", len(kept), left_out),) if any(left_out.values()) else (),
        notes=(*notes, *scan.describe_other_files()),
    )


def _label_from_path(path: PathParts) -> int:
    """The class by the picture's folder, else by the beginning of its name."""
    for word in (*path[-2:-1], path[-1][:9]):
        if _SYNSET_PATTERN.fullmatch(word):
            return _synset_to_index().get(word, UNLABELLED)
    return UNLABELLED


def _labels_from_file(root: Path, given: LabelFile, paths: Sequence[PathParts]) -> tuple[NDArray[np.int64], str]:
    file = given.path or next((f for at in (root, root.parent) for n in LABEL_FILES if (f := at / n).is_file()), None)
    if file is None:
        raise DataError(
            f"{root}: {'/'.join(paths[0])} has no synset in its name or folder, and no label file is beside it; "
            f"name one with labels: FILE (for example {join_words(LABEL_FILES)})"
        )
    entries = _read_label_file(file)
    order = _detect_label_order(file, [label for _, label in entries], given.order)
    labels = _convert_labels(file, [label for _, label in entries], order)
    if entries and entries[0][0]:
        by_stem = {name: label for (name, _), label in zip(entries, labels, strict=True)}
        found = [by_stem.get(_lowercase_stem(path[-1]), UNLABELLED) for path in paths]
    else:
        found = _match_by_position(file, labels, paths)
    return np.array(found, dtype=np.int64), f"labels from {file.name}, read as {_ORDER_DESCRIPTIONS[order]}"


def _read_label_file(file: Path) -> list[tuple[str, str]]:
    """Lines → (name without suffix or '', label). The header and anything after the label (boxes) are dropped."""
    if not file.is_file():
        raise DataError(f"labels: there is no file {file}")
    if file.stat().st_size > MAX_LABEL_BYTES:
        raise DataError(f"labels: {file} has {file.stat().st_size:,} bytes, which is too much for a label file")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise DataError(
            f"labels: {file} is not UTF-8 text; expected one label, or a file name and a label, on each line"
        ) from None
    words = [re.split(r"[,;\s]+", line.strip()) for line in lines if line.strip()]
    if words and not _is_label_word(words[0][min(1, len(words[0]) - 1)]):
        words = words[1:]
    for number, line in enumerate(words, start=1):
        if not _is_label_word(line[min(1, len(line) - 1)]):
            raise DataError(f"labels: {file.name}, entry {number}: '{' '.join(line)[:60]}' holds no synset id or class number")
    return [(_lowercase_stem(line[0]), line[1]) if len(line) > 1 else ("", line[0]) for line in words]


def _is_label_word(word: str) -> bool:
    return bool(_SYNSET_PATTERN.fullmatch(word)) or (word.isascii() and word.isdigit())


def _lowercase_stem(name: str) -> str:
    return Path(name).stem.lower()


def _detect_label_order(file: Path, labels: Sequence[str], named: str | None) -> str:
    """`synset`, `index` or `ilsvrc`: what the labels are. Raises DataError for numbers whose order is unknown."""
    if not labels or _SYNSET_PATTERN.fullmatch(labels[0]):
        return "synset"
    if named:
        return named
    if file.name == DEVKIT_LABEL_FILE:
        return "ilsvrc"
    if "0" in labels:
        return "index"
    raise DataError(
        f"labels: {file.name} has numbers in an unknown order; set labels_order: index (the weights' class index, "
        "0 to 999) or labels_order: ilsvrc (the development kit's ILSVRC2012_ID, 1 to 1000)"
    )


def _convert_labels(file: Path, labels: Sequence[str], order: str) -> list[int]:
    """Labels as written → class indices. Raises DataError naming the first that is none of the 1000 classes."""
    if order == "ilsvrc":
        table = _read_devkit_index(file)
    else:
        table = {name if order == "synset" else str(place): place for place, name in enumerate(synset_ids())}
    words = labels if order == "synset" else [label.lstrip("0") or "0" for label in labels]
    if unknown := next((entry for entry, word in enumerate(words, start=1) if word not in table), None):
        raise DataError(
            f"labels: {file.name}, entry {unknown}: '{labels[unknown - 1]}' is none of the 1000 classes, read as "
            f"{_ORDER_DESCRIPTIONS[order]}"
        )
    return [table[word] for word in words]


def _read_devkit_index(labels: Path) -> dict[str, int]:
    """ILSVRC2012_ID → class index of the weights, from the development kit's meta.mat beside the label file."""
    folders = (labels.parent, labels.parent / "data", labels.parent.parent / "data")
    file = next((folder / DEVKIT_META_FILE for folder in folders if (folder / DEVKIT_META_FILE).is_file()), None)
    if file is None:
        raise DataError(
            f"labels: the numbers in {labels.name} are ILSVRC2012_IDs, whose order is in the development kit's "
            f"{DEVKIT_META_FILE}; put that file (from ILSVRC2012_devkit_t12.tar.gz, folder data) into {labels.parent}"
        )
    from scipy.io import loadmat

    try:
        entries = loadmat(file, squeeze_me=True)["synsets"]
        pairs = [(str(int(entry["ILSVRC2012_ID"])), str(entry["WNID"])) for entry in entries]
    except Exception as error:  # SciPy raises whatever the damaged file leads it to
        raise DataError(
            f"{file} is not readable as the development kit's {DEVKIT_META_FILE}: {type(error).__name__}: {error}"
        ) from None
    return {number: _synset_to_index()[synset] for number, synset in pairs if synset in _synset_to_index()}


def _match_by_position(file: Path, labels: list[int], paths: Sequence[PathParts]) -> list[int]:
    """One label a line: matched by the number at the end of each name (…_val_00000001 is line 1), else by the order of names."""
    numbers = [re.search(r"_val_(\d{8})$", Path(path[-1]).stem) for path in paths]
    if all(numbers):
        lines = [int(number.group(1)) for number in numbers if number]
        return [labels[line - 1] if 0 < line <= len(labels) else UNLABELLED for line in lines]
    if len(labels) != len(paths):
        raise DataError(
            f"labels: {file.name} has {len(labels)} lines for {len(paths)} pictures, and their names carry no number to go by; "
            "expected one line for each picture, in the order of the names"
        )
    return labels


_ORDER_DESCRIPTIONS = {
    "synset": "synset ids",
    "index": "the class index of the weights, 0 to 999",
    "ilsvrc": "the development kit's ILSVRC2012_ID, 1 to 1000",
}


def _is_imagenet(contents: PathContents) -> bool:
    names = contents.names
    flat = sum(1 for name in names if re.match(r"n\d{8}_.*\.jpe?g$", name, re.IGNORECASE))
    synsets = sum(1 for name in names if _SYNSET_PATTERN.fullmatch(name))
    labelled = any((contents.path / name).is_file() for name in LABEL_FILES)
    return synsets >= MIN_SYNSET_FOLDERS or 2 * flat > len(names) or (labelled and ".jpeg" in contents.suffixes)


def _check_label_options(spec: Any) -> None:
    if spec.labels_order and not spec.labels:
        raise ValueError("'labels_order' tells how to read a label file, and 'labels' names none: add 'labels'")


def _open_requested(request: SourceRequest) -> Dataset:
    given = LabelFile(request.option_path("labels"), request.option("labels_order"))
    return open_imagenet(request.path, given=given, on_bad_input=request.on_bad_input, name=request.name)


IMAGENET_SOURCE = Source(
    "imagenet",
    _open_requested,
    "ImageNet-1k: synset folders, files named by synset, or flat files with a label file",
    options=(
        SourceOption("labels", NonEmptyPath | None, None, "ImageNet's label file"),
        SourceOption(
            "labels_order",
            Literal["index", "ilsvrc"] | None,
            None,
            "what numbers in the label file mean: `index`, the class index of the weights (0 to 999), or `ilsvrc`, the "
            "development kit's ILSVRC2012_ID (1 to 1000)",
        ),
    ),
    uses=FILE_OPTIONS,
    fixed_classes=True,
    check=_check_label_options,
    detect=_is_imagenet,
)
