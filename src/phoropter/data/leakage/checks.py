"""Leakage checks of one split: rows, groups, sites, stretches of recordings and images on both sides, and prior fits.

audit.py makes every check on every split and reports the worst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.core.language.unit_words import GROUP, RECORDING, SITE, UnitWord, UnitWords
from phoropter.data.dataset import Dataset
from phoropter.data.leakage.near_duplicates import DuplicatePairs
from phoropter.data.sources.file_hashes import UNREADABLE
from phoropter.data.splits.protocol import Split
from phoropter.data.time_overlap import largest_overlap, overlap_mask

Rows = NDArray[np.int64]
Example = tuple[str, ...]
MAX_EXAMPLES = 10


class TrainTest(NamedTuple):
    """Rows of one split: training side and test side."""

    train: Rows
    test: Rows

    @classmethod
    def from_split(cls, split: Split) -> TrainTest:
        """Training and inner validation against test and unseen sites."""
        return cls(_concatenate_rows(split.train, split.val), _concatenate_rows(split.test, split.external))

    @classmethod
    def from_unseen_sites(cls, split: Split) -> TrainTest:
        """Against the rows of unseen sites alone: held-out rows of the training sites share their site on purpose."""
        return cls(_concatenate_rows(split.train, split.val), split.test if split.external is None else split.external)


class CheckResult(NamedTuple):
    """Outcome of one check: the affected tested rows, a function that lists examples, and a description for sentences."""

    rows: Rows
    make_examples: Callable[[], list[Example]]
    description: str


@dataclass(frozen=True, eq=False)
class PriorFit:
    """Something that was fitted on rows beforehand: weights, a teacher, a grey scale, a selection of candidates.

    description: the subject of a sentence
    fitted_rows: a split → the rows it was fitted on where this split uses it; empty where it does not
    uses:        what it has seen of them: `labels`, which is severe; `pictures` alone; `choice`: labels, to select candidates
    group_level: it has seen other rows of these rows' groups, not the rows themselves
    """

    description: str
    fitted_rows: Callable[[Split], Rows]
    uses: Literal["labels", "pictures", "choice"] = "labels"
    group_level: bool = False


class SplitChecks:
    """The checks for one dataset; each takes the two sides of a split and returns the tested rows that are affected."""

    def __init__(
        self,
        dataset: Dataset,
        near_pairs: DuplicatePairs | None = None,
        feature_pairs: DuplicatePairs | None = None,
        words: UnitWords = (GROUP, SITE),
    ) -> None:
        self.dataset, self.near_pairs, self.feature_pairs = dataset, near_pairs, feature_pairs
        self.group_word, self.site_word = words

    def shared_rows(self, sides: TrainTest) -> CheckResult:
        """Rows that are on both sides."""
        rows = np.intersect1d(sides.test, sides.train)
        return CheckResult(
            rows, lambda: [(self._row_id(r),) for r in rows[:MAX_EXAMPLES]], "the very same rows are trained on and tested"
        )

    def shared_groups(self, sides: TrainTest) -> CheckResult:
        """Rows whose group is on the training side too."""
        return self._check_shared_codes(self._encode_column("groups"), self.dataset.groups, sides, self.group_word)

    def shared_sites(self, sides: TrainTest) -> CheckResult:
        """Rows whose site is on the training side too. None where the dataset has one site."""
        codes = self._encode_column("sites")
        return self._check_shared_codes(
            codes if codes is not None and codes.max() else None, self.dataset.sites, sides, self.site_word
        )

    def shared_recordings(self, sides: TrainTest) -> CheckResult:
        """Rows of a recording that is on both sides, where there are no groups, which would report it already."""
        named = None if self.dataset.groups is not None else self.dataset.recordings
        return self._check_shared_codes(self._encode_column("recordings"), named, sides, RECORDING)

    def overlapping_windows(self, sides: TrainTest) -> CheckResult:
        """Windows that share samples with a training window."""
        what = "windows overlap in time with windows that are trained on"
        if self.dataset.spans is None or self._recording_codes is None:
            return CheckResult(_empty_rows(), list, what)
        overlaps = overlap_mask(self.dataset.spans, self._recording_codes, sides.train, sides.test)
        rows = sides.test[overlaps]
        return CheckResult(rows, partial(self._overlap_examples, sides, rows), what)

    def exact_duplicates(self, sides: TrainTest) -> CheckResult:
        """Rows whose image, byte for byte, is on the training side."""
        codes = self._content_codes
        rows = sides.test[np.isin(codes[sides.test], codes[sides.train])]
        rows = np.setdiff1d(rows[codes[rows] >= 0], sides.train)
        return CheckResult(
            rows, partial(self._identical_examples, sides, rows), "byte-identical images are trained on and tested"
        )

    def near_duplicates(self, sides: TrainTest) -> CheckResult:
        """Rows with a near-duplicate on the training side that is not byte-identical."""
        what = "near-duplicate images are trained on and tested"
        if self.near_pairs is None or not len(self.near_pairs.pairs):
            return CheckResult(_empty_rows(), list, what)
        return self._pairs_across_split(self.near_pairs, np.arange(len(self.near_pairs.pairs)), sides, what)

    def _pairs_across_split(self, duplicates: DuplicatePairs, which: Rows, sides: TrainTest, what: str) -> CheckResult:
        """The pairs that have one row on each side; byte-identical ones are left out."""
        side = np.zeros(len(self.dataset), dtype=np.int8)
        side[sides.test] = 1
        side[sides.train] = 2
        a, b = duplicates.pairs[which].T
        across = np.flatnonzero(
            (side[a] * side[b] == 2) & ((self._content_codes[a] != self._content_codes[b]) | (self._content_codes[a] < 0))
        )
        flipped = side[a[across]] == 2
        tested, learned = np.where(flipped, b[across], a[across]), np.where(flipped, a[across], b[across])

        def list_pair_examples() -> list[Example]:
            views = duplicates.relation[which[across]]
            some = list(zip(tested, learned, views, strict=True))[:MAX_EXAMPLES]  # the most similar come first
            return [(self._row_id(t), self._row_id(r), str(v)) for t, r, v in some]

        return CheckResult(np.unique(tested), list_pair_examples, what)

    def feature_duplicates(self, sides: TrainTest) -> CheckResult:
        """Rows with a duplicate in feature space on the training side; near-duplicates found before are left out."""
        what = "images that a network hardly distinguishes are trained on and tested"
        if self.feature_pairs is None or not len(self.feature_pairs.pairs):
            return CheckResult(_empty_rows(), list, what)
        known = set() if self.near_pairs is None else {tuple(pair) for pair in self.near_pairs.pairs.tolist()}
        new = np.array([tuple(pair) not in known for pair in self.feature_pairs.pairs.tolist()], dtype=np.bool_)
        return self._pairs_across_split(self.feature_pairs, np.flatnonzero(new), sides, what)

    def fitted_on_tested(self, fitting: PriorFit, sides: TrainTest) -> CheckResult:
        """Tested rows that something was fitted on; `sides.train` are the rows it was fitted on."""
        rows = np.intersect1d(sides.test, sides.train)
        relation = (
            f"knows the {self.group_word.singular} of"
            if fitting.group_level
            else "has used labels of"
            if fitting.uses == "choice"
            else "was fitted on"
        )
        words = f"{fitting.description} {relation} rows that are tested"
        names = self.dataset.groups if fitting.group_level and self.dataset.groups is not None else self.dataset.ids
        first = rows if names is self.dataset.ids else rows[np.unique(names[rows], return_index=True)[1]]
        return CheckResult(rows, lambda: [(str(names[row]),) for row in first[:MAX_EXAMPLES]], words)

    def label_conflicts(self) -> tuple[Rows, list[Example]]:
        """Rows whose images are exact or near-duplicates and have different labels; and example pairs."""
        labels, known = self.dataset.label_sets, self.dataset.labelled
        order = np.lexsort((labels, self._content_codes))
        order = order[(self._content_codes[order] >= 0) & known[order]]
        first, second = order[:-1], order[1:]
        pairs = np.stack([first, second], axis=1)[self._content_codes[first] == self._content_codes[second]]
        if self.near_pairs is not None:
            pairs = np.concatenate([pairs, self.near_pairs.pairs])
        pairs = pairs[known[pairs].all(axis=1) & (labels[pairs[:, 0]] != labels[pairs[:, 1]])]
        examples: list[Example] = []
        for a, b in pairs[:MAX_EXAMPLES]:
            words = f"{self.dataset.describe_label(a)} and {self.dataset.describe_label(b)}"
            examples.append((self._row_id(a), self._row_id(b), words))
        return np.unique(pairs), examples

    def skipped_checks(self) -> list[str]:
        """One sentence for each check that could not be made."""
        reasons = [words for pairs in (self.near_pairs, self.feature_pairs) if pairs for words in pairs.skipped]
        if self.dataset.spans is not None and self._recording_codes is None:
            reasons.append("overlap in time was not checked, because neither recordings nor groups are named")
        return reasons

    @cached_property
    def _content_codes(self) -> Rows:
        """(N,) equal numbers for equal bytes; -1 where the image cannot be read."""
        digests = np.array(self.dataset.digests(), dtype=np.str_)
        codes = np.unique(digests, return_inverse=True)[1].astype(np.int64)
        codes[np.char.startswith(digests, UNREADABLE)] = -1
        return codes

    @cached_property
    def _recording_codes(self) -> Rows | None:
        """(N,) the recording of each row; the same name in two groups means two recordings."""
        groups, recordings = self._encode_column("groups"), self._encode_column("recordings")
        if groups is None or recordings is None:
            return recordings if groups is None else groups
        both: Rows = recordings * (groups.max() + 1) + groups
        return both

    def _encode_column(self, column: str) -> Rows | None:
        names: NDArray[np.str_] | None = getattr(self.dataset, column)
        return None if names is None else np.unique(names, return_inverse=True)[1].astype(np.int64)

    def _check_shared_codes(
        self, codes: Rows | None, names: NDArray[np.str_] | None, sides: TrainTest, word: UnitWord
    ) -> CheckResult:
        if codes is None or names is None:
            return CheckResult(_empty_rows(), list, "")
        learned = np.zeros(codes.max() + 1, dtype=np.bool_)
        learned[codes[sides.train]] = True
        rows = sides.test[learned[codes[sides.test]]]
        shared, first = np.unique(codes[rows], return_index=True)
        tested = len(np.unique(codes[sides.test]))
        what = f"{word.plural} lie on both sides ({len(shared)} of the {tested} that are tested)"
        return CheckResult(rows, lambda: [(str(names[rows[place]]),) for place in first[:MAX_EXAMPLES]], what)

    def _overlap_examples(self, sides: TrainTest, rows: Rows) -> list[Example]:
        assert self.dataset.spans is not None and self._recording_codes is not None
        partners = [
            largest_overlap(self.dataset.spans, self._recording_codes, sides.train, int(row)) for row in rows[:MAX_EXAMPLES]
        ]
        return [
            (self._row_id(row), self._row_id(other), f"{seconds:g} s in common")
            for row, (other, seconds) in zip(rows[:MAX_EXAMPLES], partners, strict=True)
        ]

    def _identical_examples(self, sides: TrainTest, rows: Rows) -> list[Example]:
        out: list[Example] = []
        for row in rows[:MAX_EXAMPLES]:
            other = sides.train[np.flatnonzero(self._content_codes[sides.train] == self._content_codes[row])[0]]
            out.append((self._row_id(row), self._row_id(other), "byte for byte"))
        return out

    def _row_id(self, row: Any) -> str:
        return str(self.dataset.ids[row])


def _concatenate_rows(rows: Rows, more: Rows | None) -> Rows:
    return rows if more is None else np.concatenate([rows, more])


def _empty_rows() -> Rows:
    return np.empty(0, dtype=np.int64)
