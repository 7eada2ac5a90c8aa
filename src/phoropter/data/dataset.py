"""Dataset: labelled pictures, each with an id and, where known, a group (subject, recording, patient) and a site.

Making a Dataset makes an index; no picture is decoded. `read(i)` decodes one picture at its own size. Everything that
decides who is trained on and who is tested — ids, labels, groups, sites, official parts, time spans — lies here as arrays,
so that protocols and the leakage audit need no picture at all.
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
from phoropter.core.seeds import hash_ids, random_permutation

UNLABELLED = -1
MIN_PER_CLASS = 2  # rows, or groups, of each class that a sample keeps: fewer could not be split


class PictureSource(Protocol):
    """Where the pictures of a dataset are. An object with these three methods is enough; it must be picklable.

    Three more are used where they exist: `image(row)`, an RGB Pillow Image, saves a copy of the pixels; `shape(row)` and
    `digests(rows)` answer without decoding.
    """

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8, sRGB, upright. Raises DataError naming the picture when it cannot be decoded."""
        ...

    def identity(self, rows: NDArray[np.int64]) -> str:
        """A digest of the contents of these rows: equal contents, equal identity, wherever they lie."""
        ...

    def select(self, rows: NDArray[np.int64]) -> PictureSource:
        """The same pictures, only these rows, in this order."""
        ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled pictures: N rows, C classes.

    name:     what people call it
    ids:      (N,) str, unique; the name of a row in every seed, split, cache and predictions file
    labels:   (N,) int64 in 0..C-1, or UNLABELLED
    classes:  C names, in the order of the labels
    pictures: where the pictures are
    groups:   (N,) str or None; rows of one group (subject, recording, patient) belong together
    sites:    (N,) str or None; hospital, camera
    parts:    (N,) str or None; the official part: "train", "val" or "test"
    spans:    (N, 2) float64 seconds or None; from when to when in its recording (the group) a rendered window comes
    problems: bad inputs that were listed and skipped
    notes:    facts a reader of results must know (source, what was left out, licence)
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

    def __post_init__(self) -> None:
        count = len(self.ids)
        for name in ("labels", "groups", "sites", "parts", "spans", "recordings"):
            column = getattr(self, name)
            if column is not None and len(column) != count:
                raise DataError(f"{self.name}: {name} has {len(column)} rows, expected one for each of {count} ids")
        if count == 0:
            raise DataError(f"{self.name} holds no pictures: expected at least two classes with pictures in each")
        unique, counts = np.unique(self.ids, return_counts=True)
        if (counts > 1).any():
            twice = join_words([str(i) for i in unique[counts > 1]], 3)
            raise DataError(f"{self.name}: ids must be unique, but {twice} came more than once; give each row its own id")
        known = self.labels[self.labels != UNLABELLED]
        if known.size and (known.min() < 0 or known.max() >= len(self.classes)):
            raise DataError(f"{self.name}: labels must be 0..{len(self.classes) - 1}, but {known.min()}..{known.max()} came")

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8. Raises DataError when the picture cannot be decoded."""
        return self.pictures.read(row)

    @cached_property
    def hashed_ids(self) -> NDArray[np.uint64]:
        """(N,) uint64: the sample id's part of every random draw (core/seeds)."""
        return hash_ids(self.ids)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of everything that could change a result: ids, labels, groups, sites, parts, classes and contents."""
        columns = [self.ids, self.labels, self.groups, self.sites, self.parts, self.spans, self.recordings]
        return digest([[None if c is None else digest_array(c) for c in columns], list(self.classes), self.content_digest])

    @cached_property
    def content_digest(self) -> str:
        """A digest of ids and pictures alone: what decoding, features and teachers' answers depend on."""
        return digest([digest_array(self.ids), self.pictures.identity(np.arange(len(self), dtype=np.int64))])

    def shape(self, row: int) -> tuple[int, int]:
        """Row → (H, W), from the picture's header where it has one. Raises DataError when it cannot be read."""
        asked = getattr(self.pictures, "shape", None)
        height, width = asked(row) if asked else self.read(row).shape[:2]
        return int(height), int(width)

    def digests(self) -> list[str]:
        """N digests: rows with equal ones hold the same file, or the same pixels."""
        rows = np.arange(len(self), dtype=np.int64)
        asked = getattr(self.pictures, "digests", None)
        return list(asked(rows)) if asked else [digest_array(self.read(int(row))) for row in rows]

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(C,) rows of each class."""
        return np.bincount(self.labels[self.labels != UNLABELLED], minlength=len(self.classes)).astype(np.int64)

    def select_rows(self, rows: NDArray[np.int64]) -> Dataset:
        """The same dataset with only these rows, in this order."""
        picked: dict[str, Any] = {
            name: None if getattr(self, name) is None else getattr(self, name)[rows]
            for name in ("ids", "labels", "groups", "sites", "parts", "spans", "recordings")
        }
        return replace(self, pictures=self.pictures.select(rows), **picked)

    def drop_unlabelled(self) -> Dataset:
        """Without the rows that have no label (the same object when every row has one)."""
        rows = np.flatnonzero(self.labels != UNLABELLED)
        return self if len(rows) == len(self) else self.select_rows(rows)

    def sample(self, count: int, seed: int = 0) -> Dataset:
        """At most `count` rows, classes in proportion; whole groups where there are groups.

        Where `count` allows it every class (of every official part) keeps two rows, or two groups, so that it can be split.
        Which rows is a function of (seed, id): growing the dataset does not reshuffle the choice.
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
            return self.labels
        return np.array([f"{part}/{label}" for part, label in zip(self.parts, self.labels, strict=True)])

    def _sample_whole_groups(self, groups: NDArray[np.str_], count: int, seed: int) -> NDArray[np.int64]:
        """Whole groups in an order drawn by name: first those a class still lacks, then whatever fits."""
        names, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        drawn = random_permutation(hash_ids(names), seed, "sample")
        missing = np.full(len(self.classes), MIN_PER_CLASS)
        holds = np.zeros((len(names), len(self.classes)), dtype=bool)
        known = self.labels != UNLABELLED
        holds[index[known], self.labels[known]] = True
        taken = np.zeros(len(names), dtype=bool)
        total = 0
        for needed in (True, False):
            for group in drawn:
                if taken[group] or (needed and not (holds[group] & (missing > 0)).any()):
                    continue
                if total + sizes[group] <= count or not total:
                    taken[group] = True
                    total += sizes[group]
                    missing -= holds[group]
        return np.flatnonzero(taken[index]).astype(np.int64)


def encode_labels(
    labels: Sequence[str | None], classes: Iterable[str] | None = None
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Class names, None where unknown → (labels, classes); numbers as classes are ordered by value, words by their letters.

    >>> coded(["10", "9", None, "9"])
    (array([ 1,  0, -1,  0]), ('9', '10'))
    """
    named = {label for label in labels if label is not None}
    order_ = tuple(classes) if classes is not None else tuple(sorted(named, key=_class_sort_key(named)))
    place: dict[str | None, int] = {name: i for i, name in enumerate(order_)}
    place[None] = UNLABELLED
    return np.array([place[label] for label in labels], dtype=np.int64), order_


def _class_sort_key(names: Iterable[str]) -> Any:
    if all(name.isascii() and name.isdigit() for name in names):
        return lambda name: (int(name), name)
    return str


def _allocate_quotas(sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of each stratum: in proportion by largest remainder, at least two of each where `count` has room for that."""
    floor = np.minimum(sizes, MIN_PER_CLASS) if MIN_PER_CLASS * len(sizes) <= count else np.zeros_like(sizes)
    share = count * sizes / sizes.sum()
    quotas: NDArray[np.int64] = np.maximum(np.floor(share).astype(np.int64), floor)
    while quotas.sum() > count:
        quotas[np.argmax(np.where(quotas > floor, quotas - share, -np.inf))] -= 1
    for stratum in np.argsort(quotas - share, kind="stable")[: count - quotas.sum()]:
        quotas[stratum] += 1
    return quotas
