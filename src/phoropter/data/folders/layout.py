"""How a tree of folders is read: which folders are official parts, which are classes, and which pictures are masks.

Part words are matched as whole words: `training_set`, `Train Images` and `chest_xray_train` are training parts, `trains` is not.
A folder that carries a part word beside other words counts as a part only together with others that hold the same classes:
a class may be called `bullet train`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from phoropter.core.errors import DataError, join_words
from phoropter.data.folders.scan import FolderScan, PathParts, clean_class_name, normalize_unicode

IMAGE_WORDS = frozenset({"image", "images", "img", "imgs", "picture", "pictures", "original", "originals", "jpegimages"})
MAX_ANNOTATION_BYTES = 500_000_000

_PART_WORDS = {
    **dict.fromkeys(("train", "training", "trainval", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "vld"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation", "holdout", "heldout", "tst"), "test"),
    **dict.fromkeys(("pred", "predict", "prediction", "unlabelled", "unlabeled"), ""),
}
_FILLERS = frozenset(
    [
        "set",
        "sets",
        "data",
        "dataset",
        "dataset",
        "image",
        "images",
        "img",
        "imgs",
        "picture",
        "pictures",
        "photo",
        "photos",
        "folder",
        "dir",
        "split",
        "part",
        "samples",
        "seg",
    ]
)
_JOINED_FILLER = re.compile(r"(?:set|data|dataset|images|imgs|img|folder)$")
_WORD_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])|[\W_]+")


@dataclass(frozen=True)
class FolderLayout:
    """How paths are parsed.

    prefix: folders that contain everything
    parts:  top folder → (train, val, test, or '' for unlabelled; number of extra folders between it and its classes)
    inner_parts: folder below a class → its part, where parts lie inside classes
    listed: top folder → file name → class, for a part whose labels stand in a text file
    """

    prefix: PathParts = ()
    parts: dict[str, tuple[str, int]] = field(default_factory=dict)
    inner_parts: dict[str, str] = field(default_factory=dict)
    listed: dict[str, dict[str, str]] = field(default_factory=dict)

    def parse_path(self, name: PathParts) -> tuple[str, str | None] | None:
        """A picture's path → (official part, class or None), or None for a loose picture outside every class folder."""
        inner = name[len(self.prefix) :]
        part = ""
        if self.parts:
            if inner[0] not in self.parts:
                return None
            part, wrapped = self.parts[inner[0]]
            if inner[0] in self.listed:
                label = self.listed[inner[0]].get(normalize_unicode(inner[-1]))
                return None if label is None else (part, label)
            inner = inner[1 + wrapped :]
            if not part:
                return part, None
        if self.inner_parts and len(inner) > 2:
            part = self.inner_parts[inner[1]]
        return (part, clean_class_name(inner[0])) if len(inner) > 1 else None


def split_name_words(name: str) -> list[str]:
    """The lower-case words of a name, cut at signs, at digits and before capitals: `TrainImages_2017` → train, images, 2017."""
    return [word.lower() for word in _WORD_BOUNDARY.split(normalize_unicode(name)) if word]


def parse_split_name(word: str) -> str | None:
    """A folder's or file's name → `train`, `val`, `test`, '' for unlabelled, or None when it names no official part.

    The name must consist of one part word, beside fillers such as set, data or images.
    """
    words = split_name_words(word)
    core = "".join(w for w in words if w not in _FILLERS) or "".join(words)
    return _PART_WORDS.get(core, _PART_WORDS.get(_JOINED_FILLER.sub("", core)))


def find_split_word(name: str) -> str | None:
    """The part that a name mentions as a whole word among others: `chest_xray_train` → train; None for none or several."""
    words = [_JOINED_FILLER.sub("", w) or w for w in split_name_words(name)]
    parts = {_PART_WORDS[w] for w in words if _PART_WORDS.get(w)}
    return "train" if parts == {"train", "val"} else parts.pop() if len(parts) == 1 else parse_split_name(name)


def detect_layout(scan: FolderScan, pictures: list[PathParts]) -> FolderLayout:
    """The layout of the pictures that are no masks. Raises DataError for parts whose pictures have no class folders."""
    prefix: PathParts = ()
    while True:
        inner = [name[len(prefix) :] for name in pictures if name[: len(prefix)] == prefix]
        tops = Counter(name[0] for name in inner if len(name) > 1)
        if parts := _detect_official_splits(inner, tops):
            return _with_listed_labels(scan, FolderLayout(prefix, parts), pictures)
        if len(tops) > 1 and (inner_parts := _detect_inner_splits(inner)):
            return FolderLayout(prefix, inner_parts=inner_parts)
        wraps_classes = len(tops) == 1 and all(len(name) > 1 for name in inner) and any(len(name) > 2 for name in inner)
        if not wraps_classes:
            _refuse_flat_parts(scan, inner, tops)
            return FolderLayout(prefix)
        prefix = (*prefix, next(iter(tops)))


def _detect_official_splits(inner: list[PathParts], tops: Counter[str]) -> dict[str, tuple[str, int]]:
    """Top folders that are official parts; empty when the tree has none.

    A class may be called `train`. So unless every top folder is a part, there must be a training part and another one, and the
    training part must contain folders. Parts that are only mentioned in a longer name must also hold the same classes.
    """
    exact = {top: part for top in tops if (part := parse_split_name(top)) is not None}
    labelled = {part for part in exact.values() if part}
    if labelled and (len(exact) == len(tops) or ("train" in labelled and len(labelled) > 1)):
        return _unwrap_parts(inner, exact)[0]
    mentioned = {top: part for top in tops if (part := find_split_word(top)) is not None}
    labelled = {part for part in mentioned.values() if part}
    if "train" not in labelled or len(labelled) < 2:
        return {}
    parts, classes = _unwrap_parts(inner, mentioned)
    known = set().union(*(classes[top] for top, (part, _) in parts.items() if part == "train"))
    shared = all(2 * len(classes[top] & known) >= len(classes[top]) for top in parts)
    flat = any(not classes[top] for top in parts)
    return parts if shared and (not flat or len(parts) == len(tops)) else {}


def _unwrap_parts(inner: list[PathParts], found: dict[str, str]) -> tuple[dict[str, tuple[str, int]], dict[str, set[str]]]:
    """(parts as in FolderLayout, top folder → its class folders); no parts where a training part has no class folders.

    A part without class folders is unlabelled. Skipped are folders between part and classes, as in `train/train/cat` and
    `train/images/cat`.
    """
    parts: dict[str, tuple[str, int]] = {}
    classes: dict[str, set[str]] = {}
    for top, part in found.items():
        below = [name[1:] for name in inner if name[0] == top and len(name) > 1]
        wrapped = 0
        while (
            len({name[0] for name in below}) == 1
            and all(len(name) > 1 for name in below)
            and (find_split_word(below[0][0]) == part or below[0][0].lower() in IMAGE_WORDS)
        ):
            below, wrapped = [name[1:] for name in below], wrapped + 1
        classes[top] = {clean_class_name(name[0]) for name in below if len(name) > 1}
        if part == "train" and not classes[top]:
            return {}, classes
        parts[top] = (part if classes[top] else "", wrapped)
    return (parts if any(part for part, _ in parts.values()) else {}), classes


def _detect_inner_splits(inner: list[PathParts]) -> dict[str, str]:
    """Parts inside classes (`cat/train/a.png`): folder → part, where all pictures lie directly in such folders; else empty."""
    names = {name[1] if len(name) == 3 else "" for name in inner}  # deeper, the lowest folders may be the classes
    parts = {name: parse_split_name(name) for name in names}
    if not {"train"} < {part for part in parts.values() if part} or not all(parts.values()):
        return {}
    return {name: part for name, part in parts.items() if part}


def _refuse_flat_parts(scan: FolderScan, inner: list[PathParts], tops: Counter[str]) -> None:
    parts = {top: find_split_word(top) for top in tops}
    if None in parts.values() or not {"train"} < set(parts.values()):
        return
    found = {top: part for top, part in parts.items() if part is not None}
    classes = {top: _unwrap_parts(inner, {top: part})[1].get(top) for top, part in found.items()}
    flat = [top for top, part in found.items() if part == "train" and not classes[top]]
    if flat:
        tables = [name for name in scan.other_files if name.lower().endswith((".csv", ".tsv", ".parquet"))]
        hint = f"name a manifest with their labels ({join_words(tables, 2)} may be one)" if tables else "write a manifest"
        raise DataError(
            f"{scan.root}: '{flat[0]}' is named as an official part and holds pictures without class folders, so they have no "
            f"labels: {hint}, or rename {join_words(sorted(tops), 3)} if they are classes"
        )


def _with_listed_labels(scan: FolderScan, layout: FolderLayout, pictures: list[PathParts]) -> FolderLayout:
    """Adds the labels of tiny-imagenet's layout: a part of loose pictures beside `val_annotations.txt`, of names and classes."""
    parts, listed = dict(layout.parts), {}
    train = {parsed[1] for name in pictures if (parsed := layout.parse_path(name)) and parsed[0] == "train"}
    for top, (part, wrapped) in layout.parts.items():
        above = "/".join((*layout.prefix, top)) + "/"
        files = [f for f in scan.other_files if f.startswith(above) and re.fullmatch(r"\w*annotations\.txt", f[len(above) :])]
        if not part and len(files) == 1:
            listed[top] = _read_annotations(scan.root / files[0], files[0], train)
            parts[top] = (find_split_word(top) or "", wrapped)
    return FolderLayout(layout.prefix, parts, listed=listed)


def _read_annotations(path: Path, name: str, known: Iterable[str | None]) -> dict[str, str]:
    """Lines of `file<TAB>class[<TAB>…]` → file name → class. Raises DataError for a class without a training folder."""
    try:
        if path.stat().st_size > MAX_ANNOTATION_BYTES:
            raise DataError(f"{name}: the file has more than {MAX_ANNOTATION_BYTES:,} bytes; expected a line for each picture")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: the file cannot be read: {error}") from None
    labels: dict[str, str] = {}
    classes = set(known)
    for number, line in enumerate(lines, 1):
        fields = [normalize_unicode(text.strip()) for text in (line.split("\t") if "\t" in line else line.split())]
        if not any(fields):
            continue
        if len(fields) < 2 or (label := clean_class_name(fields[1])) not in classes:
            what = f"the class '{fields[1]}' has no folder in the training part" if len(fields) > 1 else "it has one column"
            raise DataError(f"{name}, line {number}: {what}; expected a picture's file name, a tab and its class folder")
        if labels.setdefault(fields[0], label) != label:
            raise DataError(f"{name}, line {number}: '{fields[0]}' has the class '{label}' here and another above; keep one")
    return labels
