"""Leakage audit: rows, groups, sites, stretches of recordings or images that a split both trains on and tests.

`audit_splits` checks every split and reports the worst split of each kind of leak. The training side is the training part and the
inner validation part (which selects the epoch); the test side is the test part and the rows of unseen sites.

The checks of a single split are in checks.py. What was fitted beforehand, and on which rows, is passed in by study/audit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from phoropter.core.errors import DataError, LeakageError
from phoropter.core.language.unit_words import GROUP, SITE, UnitWords
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.data.leakage.checks import MAX_EXAMPLES, CheckResult, Example, PriorFit, SplitChecks, TrainTest
from phoropter.data.leakage.near_duplicates import DuplicatePairs, dct_features, find_near_duplicates
from phoropter.data.splits.protocol import Split

Severity = Literal["stop", "warn", "note"]


@dataclass(frozen=True)
class Finding:
    """One kind of leak, over all splits.

    kind:      rows, groups, windows, recordings, sites, exact_duplicates, near_duplicates, feature_duplicates, fitted,
               label_conflicts, or skipped (a check that could not be made)
    severity:  `stop` (do not run), `warn`, or `note`
    count, of: affected tested rows and all tested rows of the worst split; of label_conflicts: of all rows of the dataset
    splits:    (splits that have it, all splits)
    words:     one sentence without a full stop
    examples:  at most 10: (group,), (site,), (row,), or (tested row, training row, what they have in common)
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
        """count / of."""
        return self.count / self.of if self.of else 0.0

    def plain(self) -> dict[str, Any]:
        """JSON-ready plain data."""
        return {**asdict(self), "share": self.share, "splits": list(self.splits), "examples": [list(e) for e in self.examples]}


def audit_splits(
    dataset: Dataset,
    splits: Sequence[Split],
    images: Pixels | DuplicatePairs | None = None,
    *,
    allow_group_overlap: bool = False,
    by_site: bool = False,
    feature_pairs: DuplicatePairs | None = None,
    fitted: Sequence[PriorFit] = (),
    words: UnitWords = (GROUP, SITE),
) -> list[Finding]:
    """Every leak of the splits, the most severe first; an empty list when there is none.

    images:        pixels of the dataset, row for row, in which near-duplicates are searched for, or those that were found before
                   (near_duplicates.py); without either, nothing is said about them
    allow_group_overlap: the study wants groups on both sides, which is then a warning and no reason to stop
    by_site:       sites are meant to be unseen, so a site on both sides is a reason to stop
    feature_pairs: duplicates in a network's feature space (feature_duplicates.py), where features are cached
    fitted:        what was fitted beforehand, and on which rows
    words:         what a group and a site of the dataset are called
    Raises DataError when the number of pixels is not that of the rows.
    """
    near_pairs = images if images is None or isinstance(images, DuplicatePairs) else _search_pixels(dataset, images)
    checker = SplitChecks(dataset, near_pairs, feature_pairs, words)
    checks = _list_checks(checker, splits, "warn" if allow_group_overlap else "stop", by_site, fitted)
    found = [finding for check in checks if (finding := _find_worst_split(check, splits, allow_group_overlap))]
    found += _dataset_findings(checker)
    return sorted(found, key=lambda finding: ("stop", "warn", "note").index(finding.severity))


def _search_pixels(dataset: Dataset, pixels: Pixels) -> DuplicatePairs:
    if len(pixels) != len(dataset):
        raise DataError(
            f"{dataset.name}: {len(pixels)} images were given for {len(dataset)} rows; audit a dataset with its own pixels"
        )
    return find_duplicates_in_pixels(pixels)


def find_duplicates_in_pixels(pixels: Pixels, progress: Callable[[int, int], None] | None = None) -> DuplicatePairs:
    """The near-duplicates among stored pixels; streamed pixels, which would be decoded again, are noted as skipped."""
    if not pixels.stored:
        reason = "near-duplicates were not searched for, because the images are streamed and not stored"
        return DuplicatePairs(
            np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.str_), (reason,)
        )
    return find_near_duplicates(dct_features(pixels, progress))


def raise_on_leak(findings: Sequence[Finding]) -> None:
    """Raises LeakageError for the first finding that is a reason to stop."""
    for finding in findings:
        if finding.severity == "stop":
            example = f", for example {' and '.join(finding.examples[0][:2])}" if finding.examples else ""
            raise LeakageError(
                f"{finding.words.rstrip('.')}{example}: {_REMEDIES[finding.kind]}; or set leakage: warn to run all the same"
            )


class _SplitCheck(NamedTuple):
    kind: str
    severity: Severity
    find: Callable[[TrainTest], CheckResult]
    sides: Sequence[TrainTest]


def _list_checks(
    checker: SplitChecks, splits: Sequence[Split], overlap_severity: Severity, by_site: bool, fitted: Sequence[PriorFit]
) -> list[_SplitCheck]:
    sides = [TrainTest.from_split(split) for split in splits]
    site_sides = [TrainTest.from_unseen_sites(split) for split in splits] if by_site else sides
    checks = [
        _SplitCheck("rows", "stop", checker.shared_rows, sides),
        _SplitCheck("groups", overlap_severity, checker.shared_groups, sides),
        _SplitCheck("windows", overlap_severity, checker.overlapping_windows, sides),
        _SplitCheck("recordings", "warn", checker.shared_recordings, sides),
        _SplitCheck("sites", "stop" if by_site else "note", checker.shared_sites, site_sides),
        _SplitCheck("exact_duplicates", "warn", checker.exact_duplicates, sides),
        _SplitCheck("near_duplicates", "warn", checker.near_duplicates, sides),
        _SplitCheck("feature_duplicates", "warn", checker.feature_duplicates, sides),
    ]
    for fit in fitted:
        own = [TrainTest(fit.fitted_rows(split), side.test) for split, side in zip(splits, sides, strict=True)]
        severity: Severity = "warn" if fit.uses in ("pictures", "choice") else overlap_severity if fit.group_level else "stop"
        checks.append(_SplitCheck("fitted", severity, partial(checker.fitted_on_tested, fit), own))
    return checks


def _find_worst_split(check: _SplitCheck, splits: Sequence[Split], allowed: bool) -> Finding | None:
    """The finding of the split with the largest share of affected rows; None where no split has any."""
    worst: tuple[float, CheckResult, int] | None = None
    having = 0
    for place, sides in enumerate(check.sides):
        leak = check.find(sides)
        if len(leak.rows):
            having += 1
            share = len(leak.rows) / len(sides.test)
            if worst is None or share > worst[0]:
                worst = (share, leak, place)
    if worst is None:
        return None
    share, leak, place = worst
    of = len(check.sides[place].test)
    where = "" if len(splits) == 1 else f" in {having} of {len(splits)} splits, at worst" if having > 1 else " in 1 split,"
    begin = "as the study allows, " if allowed and check.kind in ("groups", "windows") else ""
    words = f"{begin}{leak.description}:{where} {len(leak.rows):,} of {of:,} tested rows ({_format_percent(share)})"
    examples = tuple(leak.make_examples()[:MAX_EXAMPLES])
    return Finding(check.kind, check.severity, len(leak.rows), of, (having, len(splits)), words[0].upper() + words[1:], examples)


def _dataset_findings(checks: SplitChecks) -> list[Finding]:
    """Images with two labels, of which one is wrong; and the checks that could not be made."""
    rows, examples = checks.label_conflicts()
    of, found = len(checks.dataset), []
    if len(rows):
        words = f"The same or nearly the same image has two labels: {len(rows):,} of {of:,} rows"
        found.append(Finding("label_conflicts", "note", len(rows), of, (0, 0), words, tuple(examples)))
    reasons = (words[0].upper() + words[1:] for words in checks.skipped_checks())
    return [*found, *(Finding("skipped", "note", 0, 0, (0, 0), words) for words in reasons)]


def _format_percent(share: float) -> str:
    """A share in per cent; never 0 % of something, nor 100 % of less than all.

    >>> _format_percent(0.9999), _format_percent(1), _format_percent(0.0001)
    ('more than 99.9 %', '100 %', 'less than 0.1 %')
    """
    if share < 0.001:
        return "less than 0.1 %"
    return "more than 99.9 %" if 0.999 < share < 1 else f"{100 * share:.1f} %".replace(".0 %", " %")


_REMEDIES = {
    "rows": "give each row to one part only",
    "groups": "keep them together (the default), or set allow_group_overlap: true if this is intended",
    "windows": "name the subject of each recording as its group so that it stays on one side, or use windows that do not overlap",
    "sites": "name each site in train_sites or in test_sites, not in both",
    "fitted": "fit it on the training rows of each split alone, as a candidate of this study",
}
