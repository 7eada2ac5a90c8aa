"""Dataset: labelled pictures, each with an id and, where known, a group (subject, recording, patient) and a site.

A Dataset is an index; no picture is decoded to make one. `read(row)` decodes one picture at its own size. Everything that decides
which rows are trained on and which are tested (ids, labels, groups, sites, official parts, time spans) is held as arrays, so that
protocols and the leakage audit need no pictures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, InputProblem, join_words
from phoropter.core.files import digest, digest_array
from phoropter.core.language.notebook_html import format_notebook_html
from phoropter.core.seeds import hash_ids, random_permutation
from phoropter.results.exclusions import ExclusionStep, make_step

UNLABELLED = -1
LABEL_SEPARATOR, NO_LABELS = "|", "none"  # how the labels of a row of a multi-label dataset are written
MIN_PER_CLASS = 2  # rows, or groups, of each class that a sample keeps: fewer cannot be split


class PictureSource(Protocol):
    """Storage of the pictures of a dataset. An object with these three methods is enough; it must be picklable.

    Optional methods: `image(row)` returns an RGB Pillow Image, which saves a copy of the pixels; `images(rows)` reads several
    rows at once; `shape(row)`, `digests(rows)` and `byte_count(row)` answer without decoding.
    """

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8, sRGB, upright. Raises DataError naming the picture when it cannot be decoded."""
        ...

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the contents of these rows, in order. It does not depend on where they are stored."""
        ...

    def select(self, rows: NDArray[np.int64]) -> PictureSource:
        """The same pictures, only these rows, in this order."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled pictures: N rows, C classes. Raises DataError for columns of unequal length, repeated ids and unknown labels.

    name:     the name in reports
    ids:      (N,) str, unique; they name rows in seeds, splits, caches and prediction files
    labels:   (N,) int64 in 0..C-1, or UNLABELLED; of a multi-label dataset (N, C) int64, 1 where the row has the label, else 0,
              and UNLABELLED in a whole row
    classes:  C names, in the order of the labels
    pictures: storage of the pictures
    groups:   (N,) str or None; rows of one group (subject, recording, patient) belong together
    sites:    (N,) str or None; hospital, camera
    parts:    (N,) str or None; the official part: "train", "val" or "test"
    spans:    (N, 2) float64 or None; start and end in seconds of a rendered window in its recording
    recordings: (N,) str or None; the recording of a rendered window
    problems: bad inputs that were skipped
    notes:    facts that a reader of the results must know (source, rows left out, licence)
    exclusions: how the source's recordings or pictures became these rows, step by step; empty where all of them did
    """

    name: str
    ids: NDArray[np.str_]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    pictures: PictureSource
    groups: NDArray[np.str_] | None = None
    sites: NDArray[np.str_] | None = None
    parts: NDArray[np.str_] | None = None
    spans: NDArray[np.float64] | None = None
    recordings: NDArray[np.str_] | None = None
    problems: tuple[InputProblem, ...] = ()
    notes: tuple[str, ...] = field(default=())
    exclusions: tuple[ExclusionStep, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.ids)
        for name in ("labels", "groups", "sites", "parts", "spans", "recordings"):
            column = getattr(self, name)
            if column is not None and len(column) != count:
                raise DataError(f"{self.name}: {name} has {len(column)} rows, expected one for each of {count} ids")
        if count == 0:
            raise DataError(f"{self.name} has no pictures: expected at least two classes with pictures in each")
        unique, counts = np.unique(self.ids, return_counts=True)
        if (counts > 1).any():
            twice = join_words([str(i) for i in unique[counts > 1]], 3)
            raise DataError(f"{self.name}: ids must be unique, but {twice} came more than once; give each row its own id")
        if self.is_multi_label and self.labels.shape[1] != len(self.classes):
            raise DataError(f"{self.name}: labels have {self.labels.shape[1]} columns, expected one for each of {self.classes}")
        known, last = self.labels[self.labelled], 1 if self.is_multi_label else len(self.classes) - 1
        if known.size and (known.min() < 0 or known.max() > last):
            raise DataError(f"{self.name}: labels must be 0..{last}, but {known.min()}..{known.max()} came")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}: {', '.join(self._list_facts())})"

    def _repr_html_(self) -> str:
        rows = list(zip(self.classes, self.class_counts.tolist(), strict=True))
        return format_notebook_html(f"Dataset {self.name}", self._list_facts(), ("Class", "Rows"), rows)

    def _list_facts(self) -> list[str]:
        units = (("groups", self.groups), ("sites", self.sites))
        known = [f"{len(np.unique(names)):,} {word}" for word, names in units if names is not None]
        several = f"{len(self):,} rows with {len(self.classes):,} labels, several of which a row may have"
        return [several if self.is_multi_label else f"{len(self):,} rows in {len(self.classes):,} classes", *known]

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8. Raises DataError when the picture cannot be decoded."""
        return self.pictures.read(row)

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have several labels, or none of them."""
        return self.labels.ndim == 2

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(N,) whether the label of a row is known."""
        return find_labelled(self.labels)

    @cached_property
    def label_sets(self) -> NDArray[np.int64]:
        """(N,) the label of each row; of a multi-label dataset the number of its set of labels, equal for equal sets."""
        if not self.is_multi_label:
            return self.labels
        return np.unique(self.labels, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @cached_property
    def hashed_ids(self) -> NDArray[np.uint64]:
        """(N,) uint64 hashes of the ids, from which random draws are made (core/seeds)."""
        return hash_ids(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of everything that could change a result: ids, all columns, classes and the contents of the pictures."""
        columns = [self.ids, self.labels, self.groups, self.sites, self.parts, self.spans, self.recordings]
        return digest([[None if c is None else digest_array(c) for c in columns], list(self.classes), self.content_digest])

    @cached_property
    def content_digest(self) -> str:
        """A digest of ids and pictures only, on which decoded pixels, features and teacher logits depend."""
        return digest([digest_array(self.ids), self.pictures.identity(np.arange(len(self), dtype=np.int64))])

    @cached_property
    def groups_several_recordings(self) -> bool:
        """Whether some group has several recordings; else the group of a window says which recording it is of."""
        if self.groups is None or self.recordings is None:
            return self.recordings is not None
        pairs = set(zip(self.groups.tolist(), self.recordings.tolist(), strict=True))
        return len(pairs) > len({group for group, _ in pairs})

    def shape(self, row: int) -> tuple[int, int]:
        """Row → (H, W), from the picture's header where it has one. Raises DataError when it cannot be read."""
        read_shape = getattr(self.pictures, "shape", None)
        height, width = read_shape(row) if read_shape else self.read(row).shape[:2]
        return int(height), int(width)

    def digests(self) -> list[str]:
        """N digests; rows with equal digests have the same file contents or the same pixels."""
        rows = np.arange(len(self), dtype=np.int64)
        read_digests = getattr(self.pictures, "digests", None)
        return list(read_digests(rows)) if read_digests else [digest_array(self.read(int(row))) for row in rows]

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(C,) rows of each class, or with each label."""
        return count_classes(self.labels[self.labelled], len(self.classes))

    def describe_label(self, row: int) -> str | None:
        """The class of a row; of several labels their names joined by |, or NO_LABELS; None where it is not known."""
        if not find_labelled(self.labels[[row]])[0]:
            return None
        if not self.is_multi_label:
            return self.classes[int(self.labels[row])]
        return name_label_set(self.labels[row], self.classes)

    def order_by_turns(self, purpose: str) -> NDArray[np.int64]:
        """All rows in random order by id, one of each class in turn; the same data always give the same order."""
        shuffled = random_permutation(self.hashed_ids, 0, purpose)
        labels, turn = self.label_sets, np.zeros(len(self), dtype=np.int64)
        for label in np.unique(labels):
            rows = shuffled[labels[shuffled] == label]
            turn[rows] = np.arange(len(rows))
        return shuffled[np.lexsort((labels[shuffled], turn[shuffled]))]

    def select_rows(self, rows: NDArray[np.int64]) -> Dataset:
        """The same dataset with only these rows, in this order."""
        columns: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in ("ids", "labels", "groups", "sites", "parts", "spans", "recordings")
        }
        return replace(self, pictures=self.pictures.select(rows), **columns)

    def note_exclusion(self, kept: Dataset, reason: str) -> Dataset:
        """`kept`, made of some of these rows, with the others counted under a reason in its `exclusions`."""
        if len(kept) == len(self):
            return kept
        step = make_step(self.row_unit, len(kept), {reason: len(self) - len(kept)}, kept.n_groups)
        return replace(kept, exclusions=(*self.exclusions, step))

    @property
    def row_unit(self) -> str:
        """What a row is, in the plural: windows or pictures."""
        return "pictures" if self.recordings is None else "windows"

    @property
    def n_groups(self) -> int | None:
        """How many different groups the rows have; None where they have none."""
        return None if self.groups is None else len(np.unique(self.groups))

    def sample(self, count: int, seed: int = 0) -> Dataset:
        """At most `count` rows, classes in proportion; complete groups where there are groups.

        Where `count` allows it, every class (of every official part) keeps two rows, or two groups, so that it can be split. The
        choice is a function of (seed, id): adding rows to the dataset does not reshuffle it.
        """
        if count >= len(self):
            return self
        if self.groups is not None:
            return self.select_rows(self._sample_whole_groups(self.groups, count, seed))
        _, strata = np.unique(self._sampling_strata(), return_inverse=True)
        shuffled = random_permutation(self.hashed_ids, seed, "sample")
        quotas = _allocate_quotas(np.bincount(strata), count)
        chosen = [shuffled[strata[shuffled] == stratum][:quota] for stratum, quota in enumerate(quotas)]
        return self.select_rows(np.sort(np.concatenate(chosen)))

    def _sampling_strata(self) -> NDArray[Any]:
        if self.parts is None:
            return self.label_sets
        return np.array([f"{part}/{label}" for part, label in zip(self.parts, self.label_sets, strict=True)])

    def _sample_whole_groups(self, groups: NDArray[np.str_], count: int, seed: int) -> NDArray[np.int64]:
        """Complete groups in a random order that depends on their names: first groups of classes that have too few, then any that
        fit."""
        names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        order = random_permutation(hash_ids(names), seed, "sample")
        missing = np.full(len(self.classes), MIN_PER_CLASS)
        holds = count_classes_by_group(self.labels[self.labelled], index[self.labelled], (len(names), len(self.classes))) > 0
        taken = np.zeros(len(names), dtype=bool)
        total = 0
        for needed in (True, False):
            for group in order:
                if taken[group] or (needed and not (holds[group] & (missing > 0)).any()):
                    continue
                if total + sizes[group] <= count or not total:
                    taken[group] = True
                    total += sizes[group]
                    missing -= holds[group]
        return np.flatnonzero(taken[index]).astype(np.int64)


def name_label_set(flags: NDArray[Any], classes: Sequence[str]) -> str:
    """(C,) 0 and 1 → the labels joined by |, or NO_LABELS."""
    return LABEL_SEPARATOR.join(classes[k] for k in np.flatnonzero(flags).tolist()) or NO_LABELS


def find_labelled(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) or (N, C) labels → (N,) whether that of a row is known."""
    known: NDArray[np.bool_] = labels != UNLABELLED
    return np.asarray(known.all(axis=1)) if labels.ndim == 2 else known


def count_classes(labels: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """(n,) labels, or (n, C) of several a row → (C,) rows of each class, or with each label."""
    if labels.ndim == 2:
        return np.asarray(labels.sum(axis=0), dtype=np.int64)
    return np.bincount(labels, minlength=n_classes).astype(np.int64)


def count_classes_by_group(labels: NDArray[np.int64], group: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    """(n,) known labels, or (n, C) of several a row → (G, C) as `shape`: rows of each class, or with each label, in each group.

    group: (n,) the number of the group of each row, 0..G-1
    """
    counts = np.zeros(shape, dtype=np.int64)
    if labels.ndim == 2:
        np.add.at(counts, group, labels)
    else:
        np.add.at(counts, (group, labels), 1)
    return counts


def encode_label_sets(
    given: Sequence[Sequence[str] | None], classes: Iterable[str] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """The labels of each row, None where they are not known → ((N, C) of 0 and 1, classes), ordered as by `encode_labels`.

    >>> encode_label_sets([["edema", "mass"], [], None, ["edema"]])
    (array([[ 1,  1],
           [ 0,  0],
           [-1, -1],
           [ 1,  0]]), ('edema', 'mass'))
    """
    _, names = encode_labels([label for labels in given for label in labels or ()], classes)
    table = np.zeros((len(given), len(names)), dtype=np.int64)
    for row, labels in enumerate(given):
        if labels is None:
            table[row] = UNLABELLED
        else:
            table[row, [names.index(label) for label in labels]] = 1
    return table, names


def encode_labels(
    labels: Sequence[str | None], classes: Iterable[str] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class names, None where unknown → (labels, classes). Classes that are numbers are ordered by value, others alphabetically.

    >>> encode_labels(["10", "9", None, "9"])
    (array([ 1,  0, -1,  0]), ('9', '10'))
    """
    named = {label for label in labels if label is not None}
    names = tuple(classes) if classes is not None else tuple(sorted(named, key=_class_sort_key(named)))
    index: dict[str | None, int] = {name: i for i, name in enumerate(names)}
    index[None] = UNLABELLED
    return np.array([index[label] for label in labels], dtype=np.int64), names


def _class_sort_key(names: Iterable[str]) -> Any:
    if all(name.isascii() and name.isdigit() for name in names):
        return lambda name: (int(name), name)
    return str


def _allocate_quotas(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """(S,) sizes of strata → (S,) rows to take: in proportion (largest remainder), at least two of each where `count` allows."""
    floor = np.minimum(sizes, MIN_PER_CLASS) if MIN_PER_CLASS * len(sizes) <= count else np.zeros_like(sizes)
    share = count * sizes / sizes.sum()
    quotas: NDArray[np.int64] = np.maximum(np.floor(share).astype(np.int64), floor)
    while quotas.sum() > count:
        quotas[np.argmax(np.where(quotas > floor, quotas - share, -np.inf))] -= 1
    for stratum in np.argsort(quotas - share, kind="stable")[: count - quotas.sum()]:
        quotas[stratum] += 1
    return quotas
