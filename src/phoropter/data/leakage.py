"""What a split lets through: rows, groups, sites, moments of a recording or pictures that are learned from and tested.

`audit` looks at every split and says the worst of what it found, in plain sentences. What is learned from is the training part
and the inner validation part (it chooses the epoch); what is tested is the test part and the rows of unseen sites.

Left out: likeness by a network's features, which finds the same subject as readily as the same picture, and what was fitted on
which rows, which the one who fits must say (study/audit.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, LeakageError
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.digests import UNREADABLE
from phoropter.data.likeness import Likeness, alike, coefficients
from phoropter.data.overlap import next_to, overlapping
from phoropter.data.pixels import Pixels
from phoropter.data.protocols import Split

Rows = NDArray[np.int64]
Severity = Literal["stop", "warn", "note"]
Example = tuple[str, ...]
EXAMPLES = 10


@dataclass(frozen=True)
class Finding:
    """One kind of leak, over all splits.

    count, of: how many of how many tested rows it concerns, in the worst split (for `labels`: of all rows)
    splits:    how many splits have it, of how many
    words:     one sentence for people
    examples:  at most 10: (group,), (site,), (row,), or pairs (tested row, trained row, what they have in common)
    """

    kind: str
    severity: Severity
    count: int
    of: int
    splits: tuple[int, int]
    words: str
    examples: tuple[Example, ...] = ()

    @property
    def share(self) -> float:
        """Of the tested rows of the worst split."""
        return self.count / self.of if self.of else 0.0

    def plain(self) -> dict[str, Any]:
        """As JSON-ready plain data."""
        return {**asdict(self), "share": self.share, "splits": list(self.splits), "examples": [list(e) for e in self.examples]}


def audit(
    dataset: Dataset,
    splits: Sequence[Split],
    pixels: Pixels | None = None,
    *,
    allow_group_overlap: bool = False,
    by_site: bool = False,
    likeness: Likeness | None = None,
) -> list[Finding]:
    """Everything the splits let through, the gravest first; an empty list when there is nothing to say.

    pixels:   of the dataset, row for row; without them, or a likeness found before, near-identical pictures are not looked for
    allow_group_overlap: the study asked for groups on both sides: said as a warning, not as a reason to stop
    by_site:  sites are meant to be unseen, so that one on both sides is grave
    Raises DataError when the pixels are another dataset's.
    """
    if pixels is not None and len(pixels) != len(dataset):
        raise DataError(
            f"{dataset.name}: {len(pixels)} pictures came for {len(dataset)} rows; audit a dataset with its own pixels"
        )
    if likeness is None and pixels is not None:
        likeness = likeness_of(pixels)
    sides = [Sides.of(split) for split in splits]
    met = _Met(dataset, likeness)
    asked: Severity = "warn" if allow_group_overlap else "stop"
    checks = [
        _Check("rows", "stop", met.rows, sides),
        _Check("groups", asked, met.groups, sides),
        _Check("windows", asked, met.windows, sides),
        _Check("recordings", "warn", met.recordings, sides),
        _Check("sites", "stop" if by_site else "note", met.sites, [Sides.of_sites(s) for s in splits] if by_site else sides),
        _Check("identical pictures", "warn", met.identical, sides),
        _Check("near-identical pictures", "warn", met.near, sides),
    ]
    found = [finding for check in checks if (finding := _worst(check, splits, allow_group_overlap))]
    found += [finding for finding in (met.two_labels(), *met.not_looked()) if finding]
    return sorted(found, key=lambda finding: ("stop", "warn", "note").index(finding.severity))


def likeness_of(pixels: Pixels, progress: Callable[[int, int], None] | None = None) -> Likeness:
    """The near-identical pairs of stored pixels. Streamed ones would all be decoded again: they are left, and it says so."""
    if not pixels.stored:
        said = "near-identical pictures were not looked for, because the pictures are streamed and not stored"
        return Likeness(np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.str_), (said,))
    return alike(coefficients(pixels, progress))


def refuse(findings: Sequence[Finding]) -> None:
    """Raises LeakageError for the gravest finding that is a reason to stop, if there is one."""
    for finding in findings:
        if finding.severity == "stop":
            example = f", for example {' and '.join(finding.examples[0][:2])}" if finding.examples else ""
            raise LeakageError(
                f"{finding.words.rstrip('.')}{example}: {_REMEDY[finding.kind]}; or say leakage: warn to go on all the same"
            )


def refuse_met(what: str, fitted_on: NDArray[np.str_], tested: NDArray[np.str_]) -> None:
    """For whatever was fitted and carries the ids it was fitted on (a normaliser, teacher, fusion, choice of epoch).

    Raises LeakageError when any of these ids is tested.
    """
    met = np.intersect1d(fitted_on, tested)
    if met.size:
        raise LeakageError(
            f"{what} was fitted on {met.size:,} of the {len(tested):,} rows that are tested, for example {met[0]}: "
            "fit it on training rows alone"
        )


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


class _Leak(NamedTuple):
    """What one split lets through: the tested rows, and a way to name examples and what they are of."""

    rows: Rows
    examples: Callable[[], list[Example]]
    what: str


class _Check(NamedTuple):
    kind: str
    severity: Severity
    find: Callable[[Sides], _Leak]
    sides: Sequence[Sides]


def _worst(check: _Check, splits: Sequence[Split], allowed: bool) -> Finding | None:
    """The split with the largest share of tested rows, and how many splits have any."""
    worst: tuple[float, _Leak, int] | None = None
    having = 0
    for place, sides in enumerate(check.sides):
        leak = check.find(sides)
        if len(leak.rows):
            having += 1
            share = len(leak.rows) / len(sides.tested)
            if worst is None or share > worst[0]:
                worst = (share, leak, place)
    if worst is None:
        return None
    share, leak, place = worst
    of = len(check.sides[place].tested)
    where = "" if len(splits) == 1 else f" in {having} of {len(splits)} splits, at worst" if having > 1 else " in 1 split,"
    begin = "as the study allows, " if allowed and check.kind in ("groups", "windows") else ""
    words = f"{begin}{leak.what}:{where} {len(leak.rows):,} of {of:,} tested rows ({_percent(share)})"
    examples = tuple(leak.examples()[:EXAMPLES])
    return Finding(check.kind, check.severity, len(leak.rows), of, (having, len(splits)), words[0].upper() + words[1:], examples)


class _Met:
    """The checks of one dataset; each takes the two sides of a split and gives the tested rows that are met on the other."""

    def __init__(self, dataset: Dataset, likeness: Likeness | None) -> None:
        self.dataset, self.likeness = dataset, likeness

    def rows(self, sides: Sides) -> _Leak:
        """Rows that are themselves on both sides."""
        rows = np.intersect1d(sides.tested, sides.learned)
        return _Leak(rows, lambda: [(self._id(r),) for r in rows[:EXAMPLES]], "the very same rows are trained on and tested")

    def groups(self, sides: Sides) -> _Leak:
        """Rows whose group is on the other side too."""
        return self._shared(self._codes("groups"), self.dataset.groups, sides, "groups")

    def sites(self, sides: Sides) -> _Leak:
        """Rows whose site is on the other side too; of one site there is no other to be judged on."""
        codes = self._codes("sites")
        return self._shared(codes if codes is not None and codes.max() else None, self.dataset.sites, sides, "sites")

    def recordings(self, sides: Sides) -> _Leak:
        """Rows of a recording that is on both sides, where no group says so already."""
        named = None if self.dataset.groups is not None else self.dataset.recordings
        return self._shared(self._codes("recordings"), named, sides, "recordings")

    def windows(self, sides: Sides) -> _Leak:
        """Windows that share samples with one on the other side."""
        what = "windows overlap in time with windows that are trained on"
        if self.dataset.spans is None or self._recording is None:
            return _Leak(_none(), list, what)
        met = overlapping(self.dataset.spans, self._recording, sides.learned, sides.tested)
        rows = sides.tested[met]
        return _Leak(rows, partial(self._overlaps, sides, rows), what)

    def identical(self, sides: Sides) -> _Leak:
        """Rows whose picture, byte for byte, is on the other side."""
        codes = self._contents
        rows = sides.tested[np.isin(codes[sides.tested], codes[sides.learned])]
        rows = np.setdiff1d(rows[codes[rows] >= 0], sides.learned)
        return _Leak(rows, partial(self._twins, sides, rows), "byte-identical pictures are trained on and tested")

    def near(self, sides: Sides) -> _Leak:
        """Rows with a near-identical picture on the other side that is not byte-identical."""
        if self.likeness is None or not len(self.likeness.pairs):
            return _Leak(_none(), list, "")
        side = np.zeros(len(self.dataset), dtype=np.int8)
        side[sides.tested] = 1
        side[sides.learned] = 2
        a, b = self.likeness.pairs.T
        across = np.flatnonzero((side[a] * side[b] == 2) & ((self._contents[a] != self._contents[b]) | (self._contents[a] < 0)))
        flipped = side[a[across]] == 2
        tested, learned = np.where(flipped, b[across], a[across]), np.where(flipped, a[across], b[across])

        def examples() -> list[Example]:
            assert self.likeness is not None
            views = self.likeness.view[across]
            some = list(zip(tested, learned, views, strict=True))[:EXAMPLES]  # the most alike come first
            return [(self._id(t), self._id(r), str(v)) for t, r, v in some]

        return _Leak(np.unique(tested), examples, "near-identical pictures are trained on and tested")

    def two_labels(self) -> Finding | None:
        """One picture, byte for byte or nearly, under two labels: one of them is wrong, whatever the split."""
        labels, known = self.dataset.labels, self.dataset.labels != UNLABELLED
        order = np.lexsort((labels, self._contents))
        order = order[(self._contents[order] >= 0) & known[order]]
        first, second = order[:-1], order[1:]
        pairs = np.stack([first, second], axis=1)[self._contents[first] == self._contents[second]]
        if self.likeness is not None:
            pairs = np.concatenate([pairs, self.likeness.pairs])
        pairs = pairs[known[pairs].all(axis=1) & (labels[pairs[:, 0]] != labels[pairs[:, 1]])]
        if not len(pairs):
            return None
        rows = np.unique(pairs)
        names = self.dataset.classes
        examples = [(self._id(a), self._id(b), f"{names[labels[a]]} and {names[labels[b]]}") for a, b in pairs[:EXAMPLES]]
        words = f"The same or nearly the same picture has two labels: {len(rows):,} of {len(labels):,} rows"
        return Finding("labels", "note", len(rows), len(labels), (0, 0), words, tuple(examples))

    def not_looked(self) -> list[Finding]:
        """What could not be checked, and why."""
        said = list(self.likeness.said) if self.likeness else []
        if self.dataset.spans is not None and self._recording is None:
            said.append("overlap in time was not looked for, because neither recordings nor groups are named")
        return [Finding("not looked for", "note", 0, 0, (0, 0), words[0].upper() + words[1:]) for words in said]

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

    def _shared(self, codes: Rows | None, names: NDArray[np.str_] | None, sides: Sides, word: str) -> _Leak:
        if codes is None or names is None:
            return _Leak(_none(), list, "")
        learned = np.zeros(codes.max() + 1, dtype=np.bool_)
        learned[codes[sides.learned]] = True
        rows = sides.tested[learned[codes[sides.tested]]]
        shared, first = np.unique(codes[rows], return_index=True)
        tested = len(np.unique(codes[sides.tested]))
        what = f"{word} lie on both sides ({len(shared)} of the {tested} that are tested)"
        return _Leak(rows, lambda: [(str(names[rows[place]]),) for place in first[:EXAMPLES]], what)

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


def _percent(share: float) -> str:
    """Never 0 % of something, nor 100 % of less than all.

    >>> _percent(0.9999), _percent(1), _percent(0.0001)
    ('more than 99.9 %', '100 %', 'less than 0.1 %')
    """
    if share < 0.001:
        return "less than 0.1 %"
    return "more than 99.9 %" if 0.999 < share < 1 else f"{100 * share:.1f} %".replace(".0 %", " %")


_REMEDY = {
    "rows": "give each row to one part only",
    "groups": "keep groups together (the default), or say allow_group_overlap: true if this is the question",
    "windows": "name the subject of each recording as its group so that it stays on one side, or cut windows that do not overlap",
    "sites": "name each site in train_sites or in test_sites, not in both",
}
