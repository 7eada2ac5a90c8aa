"""Summary of a dataset for `phoropter inspect PATH`: counts, sizes, duplicates and problems.

Of recordings also durations, rates, missing samples, and the seconds or events of each label by subject; recordings/contact_sheet
shows them as images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem
from phoropter.core.files import format_bytes
from phoropter.core.language.unit_words import GROUP, SITE, UnitWords
from phoropter.core.seeds import random_permutation
from phoropter.data.dataset import Dataset
from phoropter.data.images.blank import BlankRow, describe_blank_rows, describe_picture
from phoropter.data.images.decode_pool import picture_reader
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.source import resolve_path
from phoropter.data.source_table import detect_source
from phoropter.data.sources.file_hashes import UNREADABLE
from phoropter.data.spec import DataSpec
from phoropter.data.stores.store_copy import find_address
from phoropter.signals import recording as signals

MAX_SAMPLED_HEADERS = 500
MAX_DECODED = 100
MAX_LISTED = 20


@dataclass(frozen=True)
class DatasetSummary:
    """A dataset in numbers.

    classes, parts, sites: number of rows of each
    groups:     (number of groups, fewest, median and most rows in one), or None
    sizes:      (width, height) → number of pictures among the `sampled` headers, most frequent first
    unreadable: number of sampled headers that could not be read
    byte_count: of all files, None where the pictures are in one array
    duplicates: ids of rows with equal contents
    recordings: facts about each recording, where rows are windows of recordings
    words:      what a group and a site are called
    """

    name: str
    rows: int
    unlabelled: int
    classes: dict[str, int]
    parts: dict[str, int]
    sites: dict[str, int]
    groups: tuple[int, int, float, int] | None
    sizes: dict[tuple[int, int], int]
    sampled: int
    unreadable: int
    byte_count: int | None
    duplicates: tuple[tuple[str, ...], ...]
    problems: tuple[InputProblem, ...]
    notes: tuple[str, ...]
    recordings: tuple[dict[str, Any], ...] = ()
    words: UnitWords = (GROUP, SITE)

    def __str__(self) -> str:
        bytes_ = f", {format_bytes(self.byte_count)}" if self.byte_count is not None else ""
        unlabelled = f", {self.unlabelled} without a label" if self.unlabelled else ""
        lines = [f"{self.name}: {self.rows} pictures in {len(self.classes)} classes{unlabelled}{bytes_}"]
        lines += [f"  {note}" for note in self.notes]
        lines += (
            _count_lines("class", self.classes)
            + _count_lines("part", self.parts)
            + _count_lines(self.words[1].singular, self.sites)
        )
        if self.groups:
            count, fewest, median, most = self.groups
            lines.append(f"{self.words[0].plural}: {count}, of {fewest} to {most} pictures (median {median:g})")
        lines += _recording_lines(self.recordings)
        if self.sizes:
            sides = np.array(list(self.sizes))
            smallest, largest = "×".join(map(str, sides.min(axis=0))), "×".join(map(str, sides.max(axis=0)))
            common = ", ".join(f"{w}×{h} ({n})" for (w, h), n in islice(self.sizes.items(), 3))
            lines.append(f"sizes of {self.sampled} sampled pictures: from {smallest} to {largest}; most often {common}")
        if self.duplicates:
            rows = sum(len(same) for same in self.duplicates)
            lines.append(f"duplicates: {rows} rows have the same contents as another row")
            lines += _bounded_lines(" = ".join(same[:3]) + " …" * (len(same) > 3) for same in self.duplicates)
        if self.problems:
            lines.append(f"problems: {len(self.problems)}")
            lines += _bounded_lines(str(problem) for problem in self.problems)
        return "\n".join(lines)


def summarize_dataset(dataset: Dataset, sampled: int = MAX_SAMPLED_HEADERS, words: UnitWords = (GROUP, SITE)) -> DatasetSummary:
    """Summary of a dataset. Reads `sampled` headers and the bytes of every file once, and decodes MAX_DECODED pictures.

    words: what a group and a site are called (unit_names.py)
    """
    sizes, bad = _sample_image_sizes(dataset, sampled)
    sizes_seen = Counter(sizes)
    notes, undecodable = _decode_sample(dataset, {problem.where for problem in bad})
    return DatasetSummary(
        name=dataset.name,
        rows=len(dataset),
        unlabelled=int((~dataset.labelled).sum()),
        classes={name: int(count) for name, count in zip(dataset.classes, dataset.class_counts, strict=True)},
        parts=_count_values(dataset.parts),
        sites=_count_values(dataset.sites),
        groups=_summarize_groups(dataset.groups),
        sizes=dict(sizes_seen.most_common()),
        sampled=len(sizes),
        unreadable=len(bad),
        byte_count=_total_bytes(dataset),
        duplicates=_find_duplicates(dataset),
        problems=(*dataset.problems, *bad, *undecodable),
        notes=(*dataset.notes, *notes),
        recordings=_summarize_recordings(dataset),
        words=words,
    )


def detect_data_spec(path: Path) -> DataSpec:
    """A path → the spec of the data there, which skips and lists bad inputs. Raises DataError for an unrecognised source."""
    if str(path) == "digits" and not path.exists():
        return DataSpec.model_validate({"digits": True})
    place = resolve_path(path, None).absolute()  # of s3://…, where its copy is
    return DataSpec.model_validate({detect_source(place).key: path if find_address(path) else place, "on_bad_input": "skip"})


def _summarize_recordings(dataset: Dataset) -> tuple[dict[str, Any], ...]:
    """Facts about each recording, and the number of its windows and their classes."""
    if not isinstance(dataset.pictures, RenderedPictures) or dataset.recordings is None:
        return ()
    drawing = dataset.pictures.windows
    windows = Counter(dataset.recordings.tolist())
    classes: dict[str, set[str]] = defaultdict(set)
    for row, recording in enumerate(dataset.recordings.tolist()):
        classes[recording].add(dataset.describe_label(row) or "no label")
    return tuple(
        {
            **signals.recording_summary(r),
            "unmeasured": drawing.view.missing_fraction(r),
            "windows": windows[r.id],
            "classes": classes[r.id],
        }
        for r in drawing.recordings
    )


def _recording_lines(recorded: tuple[dict[str, Any], ...]) -> list[str]:
    """Durations, rates and missing samples; then a line for each of the first subjects."""
    if not recorded:
        return []
    durations = sorted(r["duration_s"] for r in recorded)
    rates = ", ".join(f"{rate:g} Hz" for rate in sorted({r["rate_hz"] for r in recorded}))
    missing = sorted(r["unmeasured"] for r in recorded)
    duration = f"{durations[0]:.0f} to {durations[-1]:.0f} s (median {durations[len(durations) // 2]:.0f})"
    lines = [
        f"recordings: {len(recorded)}, of {duration}, {rates}",
        f"missing: {missing[0]:.1%} to {missing[-1]:.1%} of a recording (median {missing[len(missing) // 2]:.1%})",
    ]
    return [
        *lines,
        "subject:",
        *_bounded_lines(_subject_line(name, recorded) for name in dict.fromkeys(r["subject"] for r in recorded)),
    ]


def _subject_line(name: str, recorded: tuple[dict[str, Any], ...]) -> str:
    own = [r for r in recorded if r["subject"] == name]
    words = [f"{sum(r['duration_s'] for r in own):.0f} s", f"{sum(r['windows'] for r in own)} windows"]
    for key, unit in (("seconds", " s"), ("events", "")):
        total: Counter[str] = Counter()
        for r in own:
            total.update(r[key])
        words += [f"{label} {amount:.0f}{unit}" for label, amount in sorted(total.items())]
    if not any(r["seconds"] or r["events"] for r in own):
        words += sorted({name for r in own for name in r["classes"]})
    return f"{name}  {', '.join(words)}"


def _sample_image_sizes(dataset: Dataset, sampled: int) -> tuple[list[tuple[int, int]], list[InputProblem]]:
    """(width, height) of a random sample of pictures, and a problem for each header that cannot be read."""
    sizes: list[tuple[int, int]] = []
    bad: list[InputProblem] = []
    for row in np.sort(random_permutation(dataset.hashed_ids, 0, "summary")[:sampled]):
        try:
            height, width = dataset.shape(int(row))
            sizes.append((width, height))
        except DataError as error:
            bad.append(InputProblem(str(dataset.ids[row]), str(error).removeprefix(f"{dataset.ids[row]}: ")))
    return sizes, bad


def _decode_sample(dataset: Dataset, known: set[str]) -> tuple[tuple[str, ...], list[InputProblem]]:
    """Notes on those of a random sample of pictures that show one colour or few greys, and a problem for each that is damaged.

    known: ids whose header cannot be read, which are listed already
    """
    if hasattr(dataset.pictures, "images"):  # drawn from recordings
        return (), []
    read = picture_reader(dataset)
    blank: list[BlankRow] = []
    damaged: list[InputProblem] = []
    looked_at = 0
    for row in np.sort(random_permutation(dataset.hashed_ids, 0, "summary")[:MAX_DECODED]).tolist():
        try:
            kinds = describe_picture(read(row))
        except DataError as error:
            name = str(dataset.ids[row])
            damaged += [] if name in known else [InputProblem(name, str(error).removeprefix(f"{name}: "))]
            continue
        looked_at += 1
        blank += [(row, kind) for kind in kinds]
    return describe_blank_rows(dataset, blank, looked_at), damaged


def _count_values(column: NDArray[np.str_] | None) -> dict[str, int]:
    return {} if column is None else {str(k) or "none": v for k, v in sorted(Counter(column.tolist()).items())}


def _summarize_groups(groups: NDArray[np.str_] | None) -> tuple[int, int, float, int] | None:
    if groups is None:
        return None
    counts = np.unique(groups, return_counts=True)[1]
    return len(counts), int(counts.min()), float(np.median(counts)), int(counts.max())


def _total_bytes(dataset: Dataset) -> int | None:
    count_bytes = getattr(dataset.pictures, "byte_count", None)
    return sum(count_bytes(row) for row in range(len(dataset))) if count_bytes else None


def _find_duplicates(dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    digests = dataset.digests()
    if len(set(digests)) == len(digests):
        return ()
    rows: dict[str, list[str]] = defaultdict(list)
    for name, contents in zip(dataset.ids.tolist(), digests, strict=True):
        rows[contents].append(name)
    return tuple(tuple(same) for contents, same in rows.items() if len(same) > 1 and not contents.startswith(UNREADABLE))


def _count_lines(what: str, counts: dict[str, int]) -> list[str]:
    """Two columns of names and counts; the end of a long list in one line."""
    if not counts:
        return []
    first = list(counts.items())[:MAX_LISTED]
    width = max(len(name) for name, _ in first)
    lines = [f"{what}:", *(f"  {name:<{width}}  {count}" for name, count in first)]
    if rest := list(counts.values())[MAX_LISTED:]:
        spread = f"{min(rest)}" if min(rest) == max(rest) else f"{min(rest)} to {max(rest)}"
        lines.append(f"  … and {len(rest)} more, with {spread} pictures each")
    return lines


def _bounded_lines(items: Iterable[str]) -> list[str]:
    lines = [f"  {item}" for item in items]
    return lines if len(lines) <= MAX_LISTED else [*lines[:MAX_LISTED], f"  … and {len(lines) - MAX_LISTED} more"]
