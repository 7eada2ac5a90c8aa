"""Folders of pictures → Dataset: one folder a class, or a tree of train/, val/ and test/ of such.

The dataset's notes name the layout that was detected and count what was left out (masks, files that are no pictures); its
problems list every picture without a class, empty class folders and circular links. The order of rows depends on names only,
never on the file system.

Left out on purpose: guessing a class from a file's name (write a manifest, or `group_from` for groups), and archives.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from phoropter.core.errors import DataError, InputProblem, join_words
from phoropter.core.language.unit_words import PICTURE
from phoropter.data.dataset import Dataset, encode_labels
from phoropter.data.folders.layout import FolderLayout, detect_layout
from phoropter.data.folders.masks import separate_masks
from phoropter.data.folders.scan import FolderScan, PathParts, clean_class_name, normalize_unicode, scan_folder
from phoropter.data.source import FILE_OPTIONS, Source
from phoropter.data.sources.dicom_names import hide_identifiers
from phoropter.data.sources.storage import FilePictures
from phoropter.results.exclusions import make_step

_RECORDING_SUFFIXES = frozenset({".csv", ".edf", ".bdf", ".hea", ".dat", ".mat"})
LabelledPath = tuple[PathParts, str, str | None]  # path, official part, class


def open_folder(root: Path, *, on_bad_input: str = "stop", name: str | None = None) -> Dataset:
    """A folder of class folders, or a tree of train/, val/ and test/ → Dataset; ids are relative POSIX paths.

    Raises DataError for a folder without pictures in class folders, and for unreadable entries unless `on_bad_input` is "skip".
    """
    scan = scan_folder(root)
    pictures, mask_notes = separate_masks(scan.picture_paths)
    layout = detect_layout(scan, pictures)
    rows: list[LabelledPath] = []
    for path in pictures:
        if parsed := layout.parse_path(path):
            rows.append((path, *parsed))
        else:
            scan.ignored.append(_report_stray_picture(layout, path))
    if not any(label for _, _, label in rows):
        raise DataError(_explain_no_pictures(scan, on_bad_input))
    labels, classes = encode_labels([label for _, _, label in rows])
    _refuse_one_class(scan, classes)
    scan.ignored += _find_empty_classes(scan, layout, classes)
    left_out = {"cannot be read": len(scan.unusable), "in no class folder or official part": len(pictures) - len(rows)}
    has_parts = bool(layout.parts or layout.inner_parts)
    dataset = Dataset(
        name=name or root.resolve().name,
        ids=np.array([normalize_unicode("/".join(path)) for path, _, _ in rows]),
        labels=labels,
        classes=classes,
        pictures=FilePictures(root, ["/".join(path) for path, _, _ in rows]),
        parts=np.array([part for _, part, _ in rows]) if has_parts else None,
        problems=scan.collect_problems(on_bad_input),
        exclusions=(make_step("pictures", len(rows), left_out),) if any(left_out.values()) else (),
        notes=(
            *(_describe_without_names(has_parts, len(classes)) if scan.holds_dicom else _describe_layout(layout, rows, classes)),
            *([] if scan.holds_dicom else _note_shared_folders(layout, rows)),
            *(note.partition(" (")[0] if scan.holds_dicom else note for note in mask_notes),
            *_note_case_collisions(classes),
            *([] if scan.holds_dicom else _note_joined_folders(layout, rows)),
            *scan.describe_other_files(),
        ),
    )
    return hide_identifiers(dataset, on_bad_input)


def _explain_no_pictures(scan: FolderScan, on_bad_input: str) -> str:
    expected = "expected a folder for each class with pictures in it"
    if scan.picture_paths:
        count = len(scan.picture_paths)
        lie = "lies" if count == 1 else "lie"
        return f"{scan.root}: {PICTURE.count(count)} {lie} outside class folders; {expected}, or a manifest with their labels"
    reasons = [*map(str, scan.collect_problems(on_bad_input)), *scan.describe_other_files()][:1]
    suffixes = {Path(name).suffix.lower() for name in scan.other_files}
    if suffixes & _RECORDING_SUFFIXES:
        expected += "; recordings are listed in a manifest with the columns path and label, which is named as recordings"
        expected += f" and which phoropter init {scan.root} writes"
    elif ".npy" in suffixes:
        expected += "; arrays are packed into one .npz with images and labels, which is named as npz"
    return f"{scan.root}: no pictures were found" + "".join(f" ({what})" for what in reasons) + f"; {expected}"


def _refuse_one_class(scan: FolderScan, classes: tuple[str, ...]) -> None:
    """Raises DataError for one class folder beside tables, which then hold the labels."""
    tables = sorted(name for name in scan.other_files if name.lower().endswith((".csv", ".tsv", ".parquet")))
    if len(classes) == 1 and tables and not scan.holds_dicom:
        raise DataError(
            f"{scan.root}: all pictures lie in one class folder, '{classes[0]}', so it is no class: name a manifest with their "
            f"labels ({join_words(tables, 2)} may be one, or become one by columns: {{path: NAME, label: NAME}})"
        )


def _report_stray_picture(layout: FolderLayout, name: PathParts) -> InputProblem:
    top = name[len(layout.prefix)]
    if layout.parts and top not in layout.parts:
        return InputProblem("/".join(name), "lies outside the official parts and was left out")
    if top in layout.listed:
        return InputProblem("/".join(name), "is not named in the file of labels of its part and was left out")
    return InputProblem("/".join(name), "lies in no class folder, so has no label, and was left out")


def _find_empty_classes(scan: FolderScan, layout: FolderLayout, classes: tuple[str, ...]) -> list[InputProblem]:
    depth = len(layout.prefix)
    problems = []
    filled = {name[:end] for name in scan.picture_paths for end in range(1, len(name))}
    for other in (*(problem.where for problem in scan.unusable), *scan.results):  # an unusable folder may contain pictures
        above = tuple(other.split("/"))
        filled |= {above[:end] for end in range(1, len(above) + 1)}
    for path in scan.folders:
        if path in filled or path[:depth] != layout.prefix:
            continue
        inner = path[depth:]
        wrapped = 1 + layout.parts[inner[0]][1] if inner and inner[0] in layout.parts else 0
        if len(inner) == wrapped + 1 and (wrapped or not layout.parts):
            known = clean_class_name(path[-1]) in classes
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


def _note_joined_folders(layout: FolderLayout, rows: list[LabelledPath]) -> tuple[str, ...]:
    """Notes on folders beside each other that are one class, because their names differ in white space or spelling only."""
    at = len(layout.prefix)
    spelled: dict[tuple[PathParts, str], set[str]] = defaultdict(set)
    for path, _, label in rows:
        end = at + 1 + layout.parts[path[at]][1] if layout.parts else at
        if label is not None and len(path) > end + 1 and clean_class_name(path[end]) == label:
            spelled[path[:end], label].add(path[end])
    joined = [(label, sorted(folders)) for (_, label), folders in spelled.items() if len(folders) > 1]
    quoted = [(label, ", ".join(f"'{name}'" for name in names)) for label, names in joined[:3]]
    return tuple(f"the class {label} was read from several folders: {folders}" for label, folders in quoted)


def _note_shared_folders(layout: FolderLayout, rows: list[LabelledPath]) -> tuple[str, ...]:
    """A question where several classes hold the same folders: they may be parts, or variants of the same pictures."""
    if layout.parts or layout.inner_parts:
        return ()
    notes: tuple[str, ...] = ()
    depth = len(layout.prefix)
    while True:
        below: dict[str, set[str]] = defaultdict(set)  # class → names of the folders in it
        for path, _, label in rows:
            below[label or ""].add(clean_class_name(path[depth + 1]) if len(path) > depth + 2 else "")
        names = Counter(name for inside in below.values() for name in inside if name)
        if len(below) < 2 or len(names) != 1 or any("" in inside for inside in below.values()):
            return (*notes, *_ask_about_shared_folders(below, names))
        notes = (f"the pictures of every class lie in its folder '{next(iter(names))}' ({len(rows)} pictures)",)
        depth += 1


def _ask_about_shared_folders(below: dict[str, set[str]], names: Counter[str]) -> tuple[str, ...]:
    for label, inside in sorted(below.items()):
        if len(again := sorted(inside & (set(below) - {label}))) > 1:
            return (
                f"QUESTION: the folder {label} was read as a class, and holds folders named as the classes beside it "
                f"({_list_names(again)}): is it a second copy of the data? Then move it out, or say exclude: ['{label}']",
            )
    shared = sorted(name for name, count in names.items() if count > 1)
    holders = sorted(label for label, inside in below.items() if len(inside & set(shared)) > 1)
    if all(inside and inside <= set(shared) for inside in below.values()) and len(below) > len(shared):
        holders = sorted(below)  # each holds one or more of a few folders, as people hold classes
    if len(shared) < 2 or len(holders) < 2:
        return ()
    return (
        f"QUESTION: the folders {_list_names(holders)} hold the same folders {_list_names(shared)} and were read as the classes: "
        "are they parts or variants of the data instead? Then call them train, val or test, or name one of them as the folder, "
        "and the folders inside become the classes; if either are people, write a manifest with path, label and group, or find "
        "the people in the paths by group_from",
    )


def _list_names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _describe_without_names(has_parts: bool, count: int) -> tuple[str, ...]:
    return (f"read as {'official parts' if has_parts else 'one folder a class'}: {count} classes",)


def _describe_layout(layout: FolderLayout, rows: list[LabelledPath], classes: tuple[str, ...]) -> tuple[str, ...]:
    inside = f" inside {'/'.join(layout.prefix)}" if layout.prefix else ""
    if layout.inner_parts:
        counts = Counter(path[len(layout.prefix) + 1] for path, _, _ in rows)
        words = [f"{name} = {part} ({counts[name]} pictures)" for name, part in sorted(layout.inner_parts.items())]
        return (f"read as one folder a class with official parts in it{inside}: {', '.join(words)}; {len(classes)} classes",)
    if not layout.parts:
        return (f"read as one folder a class{inside}: {len(classes)} classes",)
    depth = len(layout.prefix)
    counts = Counter(path[depth] for path, _, _ in rows)
    first = {path[depth]: path for path, _, _ in reversed(rows)}
    parts = []
    for top, (part, wrapped) in sorted(layout.parts.items()):
        folders = "/".join(first[top][depth : depth + 1 + wrapped]) if top in first else top
        listed = ", labels from its text file" if top in layout.listed else ""
        parts.append(f"{folders} = {part or 'unlabelled'} ({counts[top]} pictures{listed})")
    return (f"read as official parts{inside}: {', '.join(parts)}; {len(classes)} classes",)


FOLDER_SOURCE = Source(
    "folder",
    lambda request: open_folder(request.path, on_bad_input=request.on_bad_input, name=request.name),
    "a folder for each class, or a tree of train/, val/ and test/ of such",
    uses=FILE_OPTIONS,
    detect=lambda contents: contents.is_folder,
)
