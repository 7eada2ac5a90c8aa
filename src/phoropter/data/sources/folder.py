"""Folders of pictures → Dataset: one folder a class, or a tree of train/, val/ and test/ of such.

The dataset's notes name the layout that was detected, and its problems everything that was left out: loose pictures without a
class, empty class folders, circular links. Hidden files and thumbnails of file managers are ignored. The order of rows depends on
names only, never on the file system.

Left out on purpose: guessing a class from a file's name (write a manifest, or `group_from` for groups), and archives.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from phoropter.core.errors import DataError, InputProblem, join_words
from phoropter.data.dataset import Dataset, encode_labels
from phoropter.data.source import Source
from phoropter.data.sources.storage import FilePictures

IMAGE_EXTENSIONS = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".ppm",
    ".pgm",
    ".pbm",
    ".jp2",
)
UNSUPPORTED_EXTENSIONS = (
    ".heic",
    ".heif",
    ".avif",
    ".svg",
    ".psd",
    ".pdf",
    ".dng",
    ".nef",
    ".cr2",
    ".arw",
    ".raw",
    ".dcm",
    ".mp4",
    ".avi",
)
IGNORED_NAMES = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found", "icon\r")
MAX_DEPTH = 32
MAX_FILES = 20_000_000

PathParts = tuple[str, ...]


@dataclass
class FolderScan:
    """Contents of a folder and its subfolders.

    picture_paths: relative to the root, as the file system spells them; sorted by their normalised form
    folders:       every visible folder below the root
    other_files:   visible files that are no pictures
    ignored:       left out, without losing a picture that has a class
    unusable:      may be or contain pictures, and cannot be read
    """

    root: Path
    picture_paths: list[PathParts] = field(default_factory=list)
    folders: list[PathParts] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)
    ignored: list[InputProblem] = field(default_factory=list)
    unusable: list[InputProblem] = field(default_factory=list)

    def collect_problems(self, on_bad_input: str) -> tuple[InputProblem, ...]:
        """All that was left out. Raises DataError for the first unusable entry unless `on_bad_input` is "skip"."""
        if self.unusable and on_bad_input == "stop":
            more = f" (and {len(self.unusable) - 1} more)" if len(self.unusable) > 1 else ""
            raise DataError(f"{self.root}: {self.unusable[0]}{more}; correct it, or say on_bad_input: skip")
        return (*self.unusable, *self.ignored)

    def describe_other_files(self) -> tuple[str, ...]:
        """A note on the files that are no pictures, or none."""
        if not self.other_files:
            return ()
        return (f"{len(self.other_files)} files that are no pictures were left out: {join_words(sorted(self.other_files), 3)}",)


@dataclass(frozen=True)
class FolderLayout:
    """How paths are parsed.

    prefix: folders that contain everything
    parts:  top folder → (train, val, test, or '' for unlabelled; number of extra folders between it and its classes)
    """

    prefix: PathParts = ()
    parts: dict[str, tuple[str, int]] = field(default_factory=dict)

    def parse_path(self, name: PathParts) -> tuple[str, str | None] | None:
        """A picture's path → (official part, class or None), or None for a loose picture outside every class folder."""
        inner = name[len(self.prefix) :]
        part = ""
        if self.parts:
            if inner[0] not in self.parts:
                return None
            part, wrapped = self.parts[inner[0]]
            inner = inner[1 + wrapped :]
            if not part:
                return part, None
        return (part, normalize_unicode(inner[0])) if len(inner) > 1 else None


def open_folder(root: Path, *, on_bad_input: str = "stop", name: str | None = None) -> Dataset:
    """A folder of class folders, or a tree of train/, val/ and test/ → Dataset; ids are relative POSIX paths.

    Raises DataError for a folder without pictures in class folders, and for unreadable entries unless `on_bad_input` is "skip".
    """
    scan = scan_folder(root)
    layout = _detect_layout(scan)
    rows: list[tuple[PathParts, str, str | None]] = []
    for path in scan.picture_paths:
        if parsed := layout.parse_path(path):
            rows.append((path, *parsed))
        else:
            scan.ignored.append(_report_stray_picture(layout, path))
    if not any(label for _, _, label in rows):
        raise DataError(_explain_no_pictures(scan, on_bad_input))
    labels, classes = encode_labels([label for _, _, label in rows])
    scan.ignored += _find_empty_classes(scan, layout, classes)
    parts = np.array([part for _, part, _ in rows]) if layout.parts else None
    return Dataset(
        name=name or root.resolve().name,
        ids=np.array([normalize_unicode("/".join(path)) for path, _, _ in rows]),
        labels=labels,
        classes=classes,
        pictures=FilePictures(root, ["/".join(path) for path, _, _ in rows]),
        parts=parts,
        problems=scan.collect_problems(on_bad_input),
        notes=(_describe_layout(layout, rows, classes), *_note_case_collisions(classes), *scan.describe_other_files()),
    )


def scan_folder(root: Path) -> FolderScan:
    """Lists a folder and its subfolders without opening a picture. Links are followed, except circular ones."""
    if not root.is_dir():
        what = "is a file; a folder of class folders was expected" if root.exists() else "does not exist"
        raise DataError(f"{root}: the folder {what}")
    scan = FolderScan(root)
    stat = root.stat()
    todo: list[tuple[PathParts, tuple[tuple[int, int], ...]]] = [((), ((stat.st_dev, stat.st_ino),))]
    while todo:
        at, above = todo.pop()
        try:
            with os.scandir(root.joinpath(*at)) as entries:
                todo += [(below, chain) for entry in entries for below, chain in _scan_entry(scan, entry, at, above)]
        except OSError as error:
            scan.unusable.append(InputProblem("/".join(at) or ".", f"the folder cannot be read: {error.strerror or error}"))
        if len(scan.picture_paths) > MAX_FILES:
            raise DataError(f"{root} holds more than {MAX_FILES:,} pictures; name a smaller folder")
    scan.picture_paths.sort(key=lambda parts: (normalize_unicode("/".join(parts)), parts))
    scan.folders.sort()
    scan.ignored.sort(key=str)
    scan.unusable.sort(key=str)
    return scan


def _scan_entry(
    scan: FolderScan, entry: os.DirEntry[str], at: PathParts, above: tuple[tuple[int, int], ...]
) -> Iterable[tuple[PathParts, tuple[tuple[int, int], ...]]]:
    """Records a file, or yields a folder to scan, with the (device, inode) of every folder above it."""
    if entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES:
        return
    where = (*at, entry.name)
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (a Path for each of millions of files is slow)
    try:
        entry.name.encode()
        if entry.is_dir():
            stat = entry.stat()
            key = (stat.st_dev, stat.st_ino)
            if key in above or len(where) > MAX_DEPTH:
                scan.ignored.append(
                    InputProblem("/".join(where), "the link leads back to a folder that contains it and was not followed")
                )
                return
            scan.folders.append(where)
            yield where, (*above, key)
        elif suffix in IMAGE_EXTENSIONS and entry.is_file():
            scan.picture_paths.append(where)
        elif suffix in UNSUPPORTED_EXTENSIONS:
            scan.unusable.append(
                InputProblem("/".join(where), f"files in the format {suffix} are not read; convert it to PNG or JPEG")
            )
        elif suffix in IMAGE_EXTENSIONS:
            what = "the link leads nowhere" if entry.is_symlink() else "not a regular file"
            scan.unusable.append(InputProblem("/".join(where), what))
        else:
            scan.other_files.append("/".join(where))
    except UnicodeEncodeError:
        readable = os.fsencode("/".join(where)).decode("utf-8", "replace")
        scan.unusable.append(InputProblem(readable, "the name is not valid UTF-8; rename it"))
    except OSError as error:
        scan.unusable.append(InputProblem("/".join(where), f"cannot be read: {error.strerror or error}"))


def parse_split_name(word: str) -> str | None:
    """A folder's or file's name → `train`, `val`, `test`, '' for unlabelled, or None when it names no official part."""
    return _SPLIT_NAMES.get(word.lower().replace("-", "_").replace(" ", "_"))


def normalize_unicode(text: str) -> str:
    """NFC form of a name: file systems differ in how they store accents."""
    return unicodedata.normalize("NFC", text)


def _detect_layout(scan: FolderScan) -> FolderLayout:
    prefix: PathParts = ()
    while True:
        inner = [name[len(prefix) :] for name in scan.picture_paths if name[: len(prefix)] == prefix]
        tops = Counter(name[0] for name in inner if len(name) > 1)
        if parts := _detect_official_splits(inner, tops):
            return FolderLayout(prefix, parts)
        wraps_classes = len(tops) == 1 and all(len(name) > 1 for name in inner) and any(len(name) > 2 for name in inner)
        if not wraps_classes:
            return FolderLayout(prefix)
        prefix = (*prefix, next(iter(tops)))


def _detect_official_splits(inner: list[PathParts], tops: Counter[str]) -> dict[str, tuple[str, int]]:
    """Top folders that are official parts; empty when the tree has none.

    A class may be called `train`. So unless every top folder is a part, there must be a training part and another one, and the
    training part must contain folders.
    """
    found = {top: part for top in tops if (part := parse_split_name(top)) is not None}
    labelled = {part for part in found.values() if part}
    if not labelled or (len(found) < len(tops) and not ("train" in labelled and len(labelled) > 1)):
        return {}
    parts: dict[str, tuple[str, int]] = {}
    for top, part in found.items():
        below = [name[1:] for name in inner if name[0] == top and len(name) > 1]
        wrapped = 0
        while (
            len({name[0] for name in below}) == 1
            and all(len(name) > 1 for name in below)
            and parse_split_name(below[0][0]) == part
        ):
            below, wrapped = [name[1:] for name in below], wrapped + 1
        in_classes = any(len(name) > 1 for name in below)
        if part == "train" and not in_classes:
            return {}
        parts[top] = (part if in_classes else "", wrapped)
    return parts if any(part for part, _ in parts.values()) else {}


def _explain_no_pictures(scan: FolderScan, on_bad_input: str) -> str:
    expected = "expected a folder for each class with pictures in it"
    if scan.picture_paths:
        count = len(scan.picture_paths)
        return f"{scan.root}: {count} pictures lie outside class folders; {expected}, or a manifest with their labels"
    reasons = [*map(str, scan.collect_problems(on_bad_input)), *scan.describe_other_files()][:1]
    return f"{scan.root}: no pictures were found" + "".join(f" ({what})" for what in reasons) + f"; {expected}"


def _report_stray_picture(layout: FolderLayout, name: PathParts) -> InputProblem:
    top = name[len(layout.prefix)]
    if layout.parts and top not in layout.parts:
        return InputProblem("/".join(name), "lies outside the official parts and was left out")
    return InputProblem("/".join(name), "lies in no class folder, so has no label, and was left out")


def _find_empty_classes(scan: FolderScan, layout: FolderLayout, classes: tuple[str, ...]) -> list[InputProblem]:
    depth = len(layout.prefix)
    problems = []
    filled = {name[:end] for name in scan.picture_paths for end in range(1, len(name))}
    filled |= {tuple(problem.where.split("/")) for problem in scan.unusable}  # they may contain pictures
    for path in scan.folders:
        if path in filled or path[:depth] != layout.prefix:
            continue
        inner = path[depth:]
        wrapped = 1 + layout.parts[inner[0]][1] if inner and inner[0] in layout.parts else 0
        if len(inner) == wrapped + 1 and (wrapped or not layout.parts):
            known = normalize_unicode(path[-1]) in classes
            problems.append(
                InputProblem(
                    "/".join(path), "this class folder is empty" + ("" if known else ", so it is not counted as a class")
                )
            )
    return problems


def _note_case_collisions(classes: tuple[str, ...]) -> tuple[str, ...]:
    by_lower: dict[str, list[str]] = {}
    for name in classes:
        by_lower.setdefault(name.lower(), []).append(name)
    return tuple(f"class names that differ in case only: {', '.join(same)}" for same in by_lower.values() if len(same) > 1)


def _describe_layout(layout: FolderLayout, rows: list[tuple[PathParts, str, str | None]], classes: tuple[str, ...]) -> str:
    inside = f" inside {'/'.join(layout.prefix)}" if layout.prefix else ""
    if not layout.parts:
        return f"read as one folder a class{inside}: {len(classes)} classes"
    counts = Counter(path[len(layout.prefix)] for path, _, _ in rows)
    parts = [
        f"{'/'.join([top] * (1 + wrapped))} = {part or 'unlabelled'} ({counts[top]} pictures)"
        for top, (part, wrapped) in sorted(layout.parts.items())
    ]
    return f"read as official parts{inside}: {', '.join(parts)}; {len(classes)} classes"


_SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trainset", "train_set", "seg_train"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "seg_val"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "test_set", "seg_test"), "test"),
    **dict.fromkeys(("pred", "predict", "prediction", "seg_pred", "unlabelled", "unlabeled"), ""),
}


FOLDER_SOURCE = Source(
    "folder",
    lambda request: open_folder(request.path, on_bad_input=request.on_bad_input, name=request.name),
    "a folder for each class, or a tree of train/, val/ and test/ of such",
    detect=lambda contents: contents.is_folder,
)
