"""Lists a folder and its subfolders: pictures, folders, other files, and what was left out and why. No picture is decoded.

Files without a suffix are looked into, because exports of DICOM have none.

Left out with a count: hidden entries, files and folders that file managers, archives and notebooks leave behind, and the results
folders that phoropter itself writes. Every walk over a user's folder of pictures is this one.
"""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from phoropter.core.columns import clean_cell
from phoropter.core.errors import DataError, InputProblem, join_words
from phoropter.core.language.unit_words import UnitWord
from phoropter.data.dicom_file import is_dicom_file, may_be_dicom

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
    ".avif",
)
UNSUPPORTED_EXTENSIONS = (
    ".heic",
    ".heif",
    ".svg",
    ".psd",
    ".pdf",
    ".dng",
    ".nef",
    ".cr2",
    ".cr3",
    ".jxl",
    ".arw",
    ".raw",
    ".mp4",
    ".avi",
)
IGNORED_NAMES = (
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "__macosx",
    "__pycache__",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "icon\r",
)
OWN_FILES = (  # of a results folder (results/store.py), a report (report/render), a bundle with examples, maps (deploy/explain)
    {"study.json"},
    {"conclusion.txt", "tables"},
    {"bundle.json"},
    {"explanations.csv"},
)
MAX_DEPTH = 32
MAX_FILES = 20_000_000

_OWN = "that phoropter wrote (results, reports, bundles, maps)"
_OWN_FOLDERS = UnitWord(f"folder {_OWN}", f"folders {_OWN}")
_LITTER = UnitWord("hidden entry or leftover of another program", "hidden entries and leftovers of other programs")
_OTHER_FILES = UnitWord("file that is no picture", "files that are no pictures")

PathParts = tuple[str, ...]


@dataclass
class FolderScan:
    """Contents of a folder and its subfolders.

    picture_paths: relative to the root, as the file system spells them; sorted by their normalised form
    folders:       every visible folder below the root
    other_files:   visible files that are no pictures
    litter:        hidden entries, and those of file managers and other programs
    results:       results, report, bundle and map folders of phoropter
    ignored:       left out, without losing a picture that has a class
    unusable:      may be or contain pictures, and cannot be read
    """

    root: Path
    picture_paths: list[PathParts] = field(default_factory=list)
    folders: list[PathParts] = field(default_factory=list)
    other_files: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    ignored: list[InputProblem] = field(default_factory=list)
    unusable: list[InputProblem] = field(default_factory=list)

    @cached_property
    def holds_dicom(self) -> bool:
        """Whether a picture is DICOM, so that no name of a file or folder may be told: it may be a patient's."""
        return any(may_be_dicom(path[-1]) for path in self.picture_paths)

    def collect_problems(self, on_bad_input: str) -> tuple[InputProblem, ...]:
        """All that was left out; beside DICOM files without names. Raises DataError for the first unusable entry unless
        `on_bad_input` is "skip"."""
        if self.unusable and on_bad_input == "stop":
            first = f"a file: {self.unusable[0].what}" if self.holds_dicom else str(self.unusable[0])
            more = f" (and {len(self.unusable) - 1} more)" if len(self.unusable) > 1 else ""
            raise DataError(f"{self.root}: {first}{more}; correct it, or say on_bad_input: skip")
        problems = (*self.unusable, *self.ignored)
        if self.holds_dicom:
            counts = Counter(problem.what for problem in problems)
            return tuple(InputProblem(f"{count} file{'s' * (count > 1)}", what) for what, count in counts.items())
        return problems

    def describe_other_files(self) -> tuple[str, ...]:
        """Notes, with counts, on results folders, litter and files that are no pictures; beside DICOM files without names."""
        kinds = ((self.results, _OWN_FOLDERS), (self.litter, _LITTER), (self.other_files, _OTHER_FILES))
        notes = [
            (names, f"{what.count(len(names))} {'was' if len(names) == 1 else 'were'} left out") for names, what in kinds if names
        ]
        if self.holds_dicom:
            return tuple(note for _, note in notes)
        return tuple(f"{note}: {join_words(sorted(names), 3)}" for names, note in notes)


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
            with os.scandir(root.joinpath(*at)) as listing:
                entries = list(listing)
            names = {entry.name for entry in entries}
            if at and any(own <= names for own in OWN_FILES):
                scan.folders.remove(at)
                scan.results.append("/".join(at))
                continue
            todo += [(below, chain) for entry in entries for below, chain in _scan_entry(scan, entry, at, above)]
        except OSError as error:
            scan.unusable.append(InputProblem("/".join(at) or ".", f"the folder cannot be read: {error.strerror or error}"))
        if len(scan.picture_paths) > MAX_FILES:
            raise DataError(f"{root} holds more than {MAX_FILES:,} pictures; name a smaller folder")
    scan.picture_paths.sort(key=lambda parts: (normalize_unicode("/".join(parts)), parts))
    _leave_out_twins(scan)
    scan.folders.sort()
    scan.ignored.sort(key=str)
    scan.unusable.sort(key=str)
    return scan


def _leave_out_twins(scan: FolderScan) -> None:
    """Takes out the second of two pictures whose paths differ in their Unicode form alone."""
    kept: dict[str, PathParts] = {}
    for path in scan.picture_paths:
        name = normalize_unicode("/".join(path))
        if kept.setdefault(name, path) is not path:
            scan.unusable.append(
                InputProblem(name, "two files have this path, in two forms of Unicode (NFC and NFD): remove one, or rename it")
            )
    scan.picture_paths = list(kept.values())


def _scan_entry(
    scan: FolderScan, entry: os.DirEntry[str], at: PathParts, above: tuple[tuple[int, int], ...]
) -> Iterable[tuple[PathParts, tuple[tuple[int, int], ...]]]:
    """Records a file, or yields a folder to scan, with the (device, inode) of every folder above it."""
    where = (*at, entry.name)
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 (a Path for each of millions of files is slow)
    try:
        entry.name.encode()
        if entry.name.startswith(".") or entry.name.lower() in IGNORED_NAMES:
            scan.litter.append("/".join(where))
        elif entry.is_dir():
            stat = entry.stat()
            key = (stat.st_dev, stat.st_ino)
            if key in above or len(where) > MAX_DEPTH:
                scan.ignored.append(
                    InputProblem("/".join(where), "the link leads back to a folder that contains it and was not followed")
                )
                return
            scan.folders.append(where)
            yield where, (*above, key)
        elif entry.is_file() and (suffix in IMAGE_EXTENSIONS or (may_be_dicom(entry.name) and is_dicom_file(Path(entry.path)))):
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


def normalize_unicode(text: str) -> str:
    """NFC form of a name: file systems differ in how they store accents."""
    return unicodedata.normalize("NFC", text)


@lru_cache(maxsize=4096)  # asked for every picture
def clean_class_name(folder: str) -> str:
    """A folder's name → the name of its class, by the rules of tables: `cats ` is `cats`, and 1.0 is 1."""
    return clean_cell(folder) or normalize_unicode(folder)
