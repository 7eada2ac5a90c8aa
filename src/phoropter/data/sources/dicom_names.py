"""Names for the rows of DICOM files that do not say whom they come from: no identifier leaves this module.

ids     image-3f2a9c81d0e4b7aa: the first 16 digits of the digest of the file (`b2sum -l 128 FILE`), so that whoever has the
        files finds the one that is meant, on any machine, and an added file renames no other
groups  patient-0007: patients in the order of the smallest digest among their files; where no file names a patient, exam-0007
sites   site-02: institutions, in the same order

Names made of a digest of PatientID could be undone by trying all numbers, and those made with a secret key would differ from
machine to machine. The digests of files hold pixels, which nobody can try out without having the files.
Class names stay as the user's folders or manifest spell them; a class that is called like a patient is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.columns import clean_cell
from phoropter.core.errors import DataError, InputProblem
from phoropter.core.files import digest
from phoropter.data.dataset import Dataset
from phoropter.data.dicom_file import is_dicom_file, may_be_dicom
from phoropter.data.images.formats.dicom import DicomFacts, read_dicom_facts
from phoropter.data.sources.file_hashes import UNREADABLE, file_digests, memoize_by_files
from phoropter.data.sources.storage import FilePictures

ID_DIGITS = 16
_NO_FACTS = DicomFacts("", "", "", (), False, False)


def hide_identifiers(dataset: Dataset, on_bad_input: str = "stop", read_groups: bool = True) -> Dataset:
    """A dataset of files → the same with opaque ids, groups and sites if any file is DICOM; unchanged otherwise.

    Groups and sites that the dataset has (of a manifest) get opaque names; others are read from the headers.
    read_groups: whether headers are read at all
    Raises DataError for a header that cannot be read (listed with "skip"), for a patient in some files only, and for a class
    that is called like a patient; MissingExtraError without pydicom.
    """
    pictures = dataset.pictures
    if not isinstance(pictures, FilePictures) or not any(map(may_be_dicom, pictures.file_names)):
        return dataset
    paths = [pictures.file_path(row) for row in range(len(dataset))]
    dicom = np.array([_is_dicom(path) for path in paths])
    if not dicom.any():
        return dataset
    digests = file_digests(paths)
    ids = _name_by_contents(digests)
    hidden = replace(
        dataset,
        ids=np.array(ids),
        pictures=FilePictures(pictures.root, pictures.file_names, ids),
        groups=None if dataset.groups is None else _name_by_order(dataset.groups.tolist(), digests, "group", 4),
        sites=None if dataset.sites is None else _name_by_order(dataset.sites.tolist(), digests, "site", 2),
    )
    return _add_header_columns(hidden, paths, dicom, digests, on_bad_input) if read_groups else hidden


def _is_dicom(path: Path) -> bool:
    try:
        return is_dicom_file(path)
    except OSError:
        return True  # by its name it may be: decoding will say what is wrong, and must not say its name


def _add_header_columns(
    dataset: Dataset, paths: list[Path], dicom: NDArray[np.bool_], digests: list[str], on_bad_input: str
) -> Dataset:
    """Groups, sites and notes from the headers, remembered under opaque names as long as no file changes."""

    def read_columns() -> bytes:
        facts, bad = _read_all_facts(dataset, paths, dicom, on_bad_input)
        _check_class_names(dataset, facts)
        kept = [row for row in range(len(paths)) if row not in bad]
        columns, notes = _make_columns(dataset, [facts[row] for row in kept], [digests[row] for row in kept])
        return json.dumps({"bad": bad, "columns": columns, "notes": notes}).encode()

    labels = [dataset.classes[label] if label >= 0 else None for label in dataset.labels.tolist()]
    given = [dataset.groups is not None, dataset.sites is not None]
    what = f"dicom-2 of {digest([dataset.ids.tolist(), labels, given])} {on_bad_input}"
    found = json.loads(memoize_by_files(paths, what, read_columns))
    bad: dict[str, str] = found["bad"]
    if bad:
        problems = [InputProblem(str(dataset.ids[int(row)]), words) for row, words in bad.items()]
        rows = np.setdiff1d(np.arange(len(dataset), dtype=np.int64), [int(row) for row in bad])
        kept_rows = dataset.note_exclusion(dataset.select_rows(rows), "cannot be read")
        dataset = replace(kept_rows, problems=(*dataset.problems, *problems))
    columns: dict[str, Any] = {name: np.array(values) for name, values in found["columns"].items()}
    return replace(dataset, **columns, notes=(*dataset.notes, *found["notes"]))


def _read_all_facts(
    dataset: Dataset, paths: list[Path], dicom: NDArray[np.bool_], on_bad_input: str
) -> tuple[list[DicomFacts], dict[int, str]]:
    """(facts of every file, row → what is wrong with its header)."""
    facts, bad = [_NO_FACTS] * len(paths), {}
    for row in np.flatnonzero(dicom).tolist():
        name = str(dataset.ids[row])
        try:
            facts[row] = read_dicom_facts(paths[row], name)
        except DataError as error:
            if on_bad_input == "stop":
                raise DataError(f"{error}; or set on_bad_input: skip") from None
            bad[row] = str(error).removeprefix(f"{name}: ")
    if len(bad) == len(paths):
        raise DataError(f"{dataset.name}: none of its {len(paths)} files can be read; the first: {next(iter(bad.values()))}")
    return facts, bad


def _make_columns(dataset: Dataset, facts: list[DicomFacts], digests: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(groups and sites that the dataset lacks, notes), of the files whose header was read."""
    columns: dict[str, list[str]] = {}
    notes = [f"{len(facts):,} DICOM files: their ids, groups and sites are opaque names"]
    if dataset.groups is None:
        groups, note = _make_groups(dataset.name, facts, digests)
        columns |= {} if groups is None else {"groups": groups}
        notes += [note] if note else []
    if dataset.sites is None:
        places = [clean_cell(f.institution).casefold() for f in facts]
        if all(places):
            columns["sites"] = _name_by_order(places, digests, "site", 2).tolist()
        elif any(places):
            notes.append(f"{places.count(''):,} of {len(places):,} DICOM files name no institution, so there are no sites")
    if burnt := sum(f.burnt_in for f in facts):
        notes.append(
            f"WARNING: {burnt:,} of {len(facts):,} DICOM files say that text is burnt into their pixels: names may be readable "
            "on the page and in thumbnails, and a network may read them; cut the text off, or leave these files out"
        )
    if faces := sum(f.face for f in facts):
        notes.append(f"WARNING: {faces:,} of {len(facts):,} DICOM files say that the patient may be recognised in the picture")
    return columns, notes


def _make_groups(name: str, facts: list[DicomFacts], digests: list[str]) -> tuple[list[str] | None, str]:
    """(a group for each file, or None where no header has any; a note, or "")."""
    patients = [clean_cell(f.patient) for f in facts]
    if empty := patients.count("") if any(patients) else 0:
        raise DataError(
            f"{name}: {empty:,} of {len(patients):,} files name no patient (PatientID) and others do; complete the headers, or "
            "write a manifest with the columns path, label and group"
        )
    if any(patients):
        groups = _name_by_order(patients, digests, "patient", 4).tolist()
        one = len(set(groups)) == 1 and len(groups) > 1
        note = "all DICOM files name one patient; if names were replaced before, write a manifest with a column group"
        return groups, note if one else ""
    exams = [clean_cell(f.exam) for f in facts]
    if all(exams):
        return _name_by_order(exams, digests, "exam", 4).tolist(), "no DICOM file names a patient; the groups are exams"
    return None, "no DICOM file names a patient, so there are no groups: one person may stand on both sides of a split"


def _name_by_contents(digests: Sequence[str]) -> list[str]:
    """An id for each file: the start of its digest; a number after it where files are equal."""
    seen: dict[str, int] = {}
    ids = []
    for each in digests:
        name = "unreadable" if each.startswith(UNREADABLE) else f"image-{each[:ID_DIGITS]}"
        seen[name] = seen.get(name, 0) + 1
        ids.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return ids


def _name_by_order(values: Sequence[str], digests: Sequence[str], word: str, width: int) -> NDArray[np.str_]:
    """Each value → `word-0007`, its place in the order of the smallest digest among the files that have it."""
    smallest: dict[str, str] = {}
    for value, each in zip(values, digests, strict=True):
        smallest[value] = min(smallest.get(value, each), each)
    order = sorted(smallest, key=lambda value: (smallest[value], digest(value)))
    width = max(width, len(str(len(order))))
    names = {value: f"{word}-{at:0{width}d}" for at, value in enumerate(order, 1)}
    return np.array([names[value] for value in values])


def _check_class_names(dataset: Dataset, facts: list[DicomFacts]) -> None:
    """Raises DataError where a class is called like one of its patients: the folders are patients, and would be shown.

    A class is called so where all names of each patient are words of it, or where it has one patient and shares a word with the
    names: a surname, say. Of several patients a shared word is no name (`COVID^001`).
    """
    for label, name in enumerate(dataset.classes):
        own = _name_words(name)
        headers = [facts[row] for row in np.flatnonzero(dataset.labels == label).tolist()]
        words = [[w for w in map(_name_words, (f.patient, *f.names)) if w] for f in headers]
        one_patient = len({clean_cell(f.patient).casefold() or f.names for f in headers}) == 1
        shared = frozenset(word for word in own if len(word) > 2)
        if headers and all(any(w <= own or (one_patient and w & shared) for w in each) for each in words):
            raise DataError(
                f"{dataset.name}: a class is called like the patient in its files, so the folders are no classes; write a "
                "manifest with the columns path and label"
            )


def _name_words(text: str) -> frozenset[str]:
    return frozenset(word for word in re.split(r"[\W_^]+", text.casefold()) if word)
