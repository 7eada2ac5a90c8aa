"""What lies on both sides of one split: rows, groups, sites, moments of a recording, pictures, what was fitted on tested rows.

A look at one split each; leakage.py asks all of them about every split and says the worst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.digests import UNREADABLE
from phoropter.data.likeness import Likeness
from phoropter.data.overlap import next_to, overlapping
from phoropter.data.protocols import Split

Rows = NDArray[np.int64]
Example = tuple[str, ...]
EXAMPLES = 10


class Sides(NamedTuple):
    """Rows of one split: what is learned from, and what is tested."""

    learned: Rows
    tested: Rows

    @classmethod
    def of(cls, split: Split) -> Sides:
        """Training and inner validation against test and unseen sites."""
        return cls(_joined(split.train, split.val), _joined(split.test, split.external))

    @classmethod
    def of_sites(cls, split: Split) -> Sides:
        """Against the rows of unseen sites alone; the held-out rows of the trained sites share their site on purpose."""
        return cls(_joined(split.train, split.val), split.test if split.external is None else split.external)


class Leak(NamedTuple):
    """What one split lets through: the tested rows, and a way to name examples and what they are of."""

    rows: Rows
    examples: Callable[[], list[Example]]
    what: str


@dataclass(frozen=True, eq=False)
class Fitting:
    """Something whose numbers come from rows: weights, a teacher, a grey scale, a choice.

    what:   in words, as the beginning of a sentence
    on:     a split → the rows it was fitted on where it is used in this split, few or all; empty where it is not
    by:     what of them it has seen: `labels`, which is grave, or `pictures` alone; `choice`: labels, to choose what is tried
    groups: it met other rows of these rows' groups, not the rows themselves
    """

    what: str
    on: Callable[[Split], Rows]
    by: Literal["labels", "pictures", "choice"] = "labels"
    groups: bool = False


class Crossings:
    """The checks of one dataset; each takes the two sides of a split and gives the tested rows that are met on the other."""

    def __init__(self, dataset: Dataset, likeness: Likeness | None = None, neighbours: Likeness | None = None) -> None:
        self.dataset, self.likeness, self.neighbours = dataset, likeness, neighbours

    def rows(self, sides: Sides) -> Leak:
        """Rows that are themselves on both sides."""
        rows = np.intersect1d(sides.tested, sides.learned)
        return Leak(rows, lambda: [(self._id(r),) for r in rows[:EXAMPLES]], "the very same rows are trained on and tested")

    def groups(self, sides: Sides) -> Leak:
        """Rows whose group is on the other side too."""
        return self._shared(self._codes("groups"), self.dataset.groups, sides, "groups")

    def sites(self, sides: Sides) -> Leak:
        """Rows whose site is on the other side too; of one site there is no other to be judged on."""
        codes = self._codes("sites")
        return self._shared(codes if codes is not None and codes.max() else None, self.dataset.sites, sides, "sites")

    def recordings(self, sides: Sides) -> Leak:
        """Rows of a recording that is on both sides, where no group says so already."""
        named = None if self.dataset.groups is not None else self.dataset.recordings
        return self._shared(self._codes("recordings"), named, sides, "recordings")

    def windows(self, sides: Sides) -> Leak:
        """Windows that share samples with one on the other side."""
        what = "windows overlap in time with windows that are trained on"
        if self.dataset.spans is None or self._recording is None:
            return Leak(_none(), list, what)
        met = overlapping(self.dataset.spans, self._recording, sides.learned, sides.tested)
        rows = sides.tested[met]
        return Leak(rows, partial(self._overlaps, sides, rows), what)

    def identical(self, sides: Sides) -> Leak:
        """Rows whose picture, byte for byte, is on the other side."""
        codes = self._contents
        rows = sides.tested[np.isin(codes[sides.tested], codes[sides.learned])]
        rows = np.setdiff1d(rows[codes[rows] >= 0], sides.learned)
        return Leak(rows, partial(self._twins, sides, rows), "byte-identical pictures are trained on and tested")

    def near(self, sides: Sides) -> Leak:
        """Rows with a near-identical picture on the other side that is not byte-identical."""
        what = "near-identical pictures are trained on and tested"
        if self.likeness is None or not len(self.likeness.pairs):
            return Leak(_none(), list, what)
        return self._across(self.likeness, np.arange(len(self.likeness.pairs)), sides, what)

    def _across(self, found: Likeness, which: Rows, sides: Sides, what: str) -> Leak:
        """Those of a likeness's pairs that the split parts, byte-identical ones left out."""
        side = np.zeros(len(self.dataset), dtype=np.int8)
        side[sides.tested] = 1
        side[sides.learned] = 2
        a, b = found.pairs[which].T
        across = np.flatnonzero((side[a] * side[b] == 2) & ((self._contents[a] != self._contents[b]) | (self._contents[a] < 0)))
        flipped = side[a[across]] == 2
        tested, learned = np.where(flipped, b[across], a[across]), np.where(flipped, a[across], b[across])

        def examples() -> list[Example]:
            views = found.view[which[across]]
            some = list(zip(tested, learned, views, strict=True))[:EXAMPLES]  # the most alike come first
            return [(self._id(t), self._id(r), str(v)) for t, r, v in some]

        return Leak(np.unique(tested), examples, what)

    def alike(self, sides: Sides) -> Leak:
        """Rows that look to a network like one picture on the other side and like nothing else; copies found before left out."""
        what = "pictures that a network takes for one are trained on and tested"
        if self.neighbours is None or not len(self.neighbours.pairs):
            return Leak(_none(), list, what)
        known = set() if self.likeness is None else {tuple(pair) for pair in self.likeness.pairs.tolist()}
        new = np.array([tuple(pair) not in known for pair in self.neighbours.pairs.tolist()], dtype=np.bool_)
        return self._across(self.neighbours, np.flatnonzero(new), sides, what)

    def fitted(self, fitting: Fitting, sides: Sides) -> Leak:
        """Tested rows that something was fitted on; `sides.learned` are the rows it was fitted on."""
        rows = np.intersect1d(sides.tested, sides.learned)
        met = "knows the group of" if fitting.groups else "looked at labels of" if fitting.by == "choice" else "was fitted on"
        words = f"{fitting.what} {met} rows that are tested"
        names = self.dataset.groups if fitting.groups and self.dataset.groups is not None else self.dataset.ids
        first = rows if names is self.dataset.ids else rows[np.unique(names[rows], return_index=True)[1]]
        return Leak(rows, lambda: [(str(names[row]),) for row in first[:EXAMPLES]], words)

    def two_labels(self) -> tuple[Rows, list[Example]]:
        """Rows of one picture, byte for byte or nearly, under two labels, and pairs of them."""
        labels, known = self.dataset.labels, self.dataset.labels != UNLABELLED
        order = np.lexsort((labels, self._contents))
        order = order[(self._contents[order] >= 0) & known[order]]
        first, second = order[:-1], order[1:]
        pairs = np.stack([first, second], axis=1)[self._contents[first] == self._contents[second]]
        if self.likeness is not None:
            pairs = np.concatenate([pairs, self.likeness.pairs])
        pairs = pairs[known[pairs].all(axis=1) & (labels[pairs[:, 0]] != labels[pairs[:, 1]])]
        names = self.dataset.classes
        examples: list[Example] = []
        for a, b in pairs[:EXAMPLES]:
            examples.append((self._id(a), self._id(b), f"{names[labels[a]]} and {names[labels[b]]}"))
        return np.unique(pairs), examples

    def not_looked(self) -> list[str]:
        """What could not be checked, and why."""
        said = [words for found in (self.likeness, self.neighbours) if found for words in found.said]
        if self.dataset.spans is not None and self._recording is None:
            said.append("overlap in time was not looked for, because neither recordings nor groups are named")
        return said

    @cached_property
    def _contents(self) -> Rows:
        """(N,) equal numbers for equal bytes; -1 where the picture cannot be read."""
        digests = np.array(self.dataset.digests(), dtype=np.str_)
        codes = np.unique(digests, return_inverse=True)[1].astype(np.int64)
        codes[np.char.startswith(digests, UNREADABLE)] = -1
        return codes

    @cached_property
    def _recording(self) -> Rows | None:
        """(N,) the recording of each row; one name in two groups is two recordings."""
        groups, recordings = self._codes("groups"), self._codes("recordings")
        if groups is None or recordings is None:
            return recordings if groups is None else groups
        both: Rows = recordings * (groups.max() + 1) + groups
        return both

    def _codes(self, column: str) -> Rows | None:
        names: NDArray[np.str_] | None = getattr(self.dataset, column)
        return None if names is None else np.unique(names, return_inverse=True)[1].astype(np.int64)

    def _shared(self, codes: Rows | None, names: NDArray[np.str_] | None, sides: Sides, word: str) -> Leak:
        if codes is None or names is None:
            return Leak(_none(), list, "")
        learned = np.zeros(codes.max() + 1, dtype=np.bool_)
        learned[codes[sides.learned]] = True
        rows = sides.tested[learned[codes[sides.tested]]]
        shared, first = np.unique(codes[rows], return_index=True)
        tested = len(np.unique(codes[sides.tested]))
        what = f"{word} lie on both sides ({len(shared)} of the {tested} that are tested)"
        return Leak(rows, lambda: [(str(names[rows[place]]),) for place in first[:EXAMPLES]], what)

    def _overlaps(self, sides: Sides, rows: Rows) -> list[Example]:
        assert self.dataset.spans is not None and self._recording is not None
        partners = [next_to(self.dataset.spans, self._recording, sides.learned, int(row)) for row in rows[:EXAMPLES]]
        return [
            (self._id(row), self._id(other), f"{seconds:g} s in common")
            for row, (other, seconds) in zip(rows[:EXAMPLES], partners, strict=True)
        ]

    def _twins(self, sides: Sides, rows: Rows) -> list[Example]:
        out: list[Example] = []
        for row in rows[:EXAMPLES]:
            other = sides.learned[np.flatnonzero(self._contents[sides.learned] == self._contents[row])[0]]
            out.append((self._id(row), self._id(other), "byte for byte"))
        return out

    def _id(self, row: Any) -> str:
        return str(self.dataset.ids[row])


def _joined(rows: Rows, more: Rows | None) -> Rows:
    return rows if more is None else np.concatenate([rows, more])


def _none() -> Rows:
    return np.empty(0, dtype=np.int64)
