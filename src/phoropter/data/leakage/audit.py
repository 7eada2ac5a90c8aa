"""What a split lets through: rows, groups, sites, moments of a recording or pictures that are learned from and tested.

`audit` looks at every split and says the worst of what it found, in plain sentences. What is learned from is the training part
and the inner validation part (it chooses the epoch); what is tested is the test part and the rows of unseen sites.

How a single split is looked at is in crossings.py. What was fitted on which rows, the one who fits must say (study/audit.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from phoropter.core.errors import DataError, LeakageError
from phoropter.data.dataset import Dataset
from phoropter.data.images.pixels import Pixels
from phoropter.data.leakage.checks import MAX_EXAMPLES, CheckResult, Example, PriorFit, SplitChecks, TrainTest
from phoropter.data.leakage.near_duplicates import DuplicatePairs, dct_features, find_near_duplicates
from phoropter.data.splits.protocol import Split

Severity = Literal["stop", "warn", "note"]


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


def audit_splits(
    dataset: Dataset,
    splits: Sequence[Split],
    pixels: Pixels | None = None,
    *,
    allow_group_overlap: bool = False,
    by_site: bool = False,
    likeness: DuplicatePairs | None = None,
    neighbours: DuplicatePairs | None = None,
    fitted: Sequence[PriorFit] = (),
) -> list[Finding]:
    """Everything the splits let through, the gravest first; an empty list when there is nothing to say.

    pixels:   of the dataset, row for row; without them, or a likeness found before, near-identical pictures are not looked for
    allow_group_overlap: the study asked for groups on both sides: said as a warning, not as a reason to stop
    by_site:  sites are meant to be unseen, so that one on both sides is grave
    neighbours: pairs that a network takes for one picture (data/neighbours.py), where its features are there
    fitted:   what was fitted beforehand, and on which rows
    Raises DataError when the pixels are another dataset's.
    """
    if pixels is not None and len(pixels) != len(dataset):
        raise DataError(
            f"{dataset.name}: {len(pixels)} pictures came for {len(dataset)} rows; audit a dataset with its own pixels"
        )
    if likeness is None and pixels is not None:
        likeness = find_duplicates_in_pixels(pixels)
    sides = [TrainTest.from_split(split) for split in splits]
    met = SplitChecks(dataset, likeness, neighbours)
    asked: Severity = "warn" if allow_group_overlap else "stop"
    checks = [
        _SplitCheck("rows", "stop", met.shared_rows, sides),
        _SplitCheck("groups", asked, met.shared_groups, sides),
        _SplitCheck("windows", asked, met.overlapping_windows, sides),
        _SplitCheck("recordings", "warn", met.shared_recordings, sides),
        _SplitCheck(
            "sites",
            "stop" if by_site else "note",
            met.shared_sites,
            [TrainTest.from_unseen_sites(s) for s in splits] if by_site else sides,
        ),
        _SplitCheck("exact_duplicates", "warn", met.identical_pictures, sides),
        _SplitCheck("near_duplicates", "warn", met.near_duplicates, sides),
        _SplitCheck("feature_duplicates", "warn", met.feature_duplicates, sides),
    ]
    for thing in fitted:
        own = [TrainTest(thing.fitted_rows(split), side.test) for split, side in zip(splits, sides, strict=True)]
        severity = "warn" if thing.uses in ("pictures", "choice") else asked if thing.group_level else "stop"
        checks.append(_SplitCheck("fitted", severity, partial(met.fitted_on_tested, thing), own))
    found = [finding for check in checks if (finding := _find_worst_split(check, splits, allow_group_overlap))]
    found += _dataset_findings(met)
    return sorted(found, key=lambda finding: ("stop", "warn", "note").index(finding.severity))


def find_duplicates_in_pixels(pixels: Pixels, progress: Callable[[int, int], None] | None = None) -> DuplicatePairs:
    """The near-identical pairs of stored pixels. Streamed ones would all be decoded again: they are left, and it says so."""
    if not pixels.stored:
        said = "near-identical pictures were not looked for, because the pictures are streamed and not stored"
        return DuplicatePairs(
            np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32), np.empty(0, dtype=np.str_), (said,)
        )
    return find_near_duplicates(dct_features(pixels, progress))


def raise_on_leak(findings: Sequence[Finding]) -> None:
    """Raises LeakageError for the gravest finding that is a reason to stop, if there is one."""
    for finding in findings:
        if finding.severity == "stop":
            example = f", for example {' and '.join(finding.examples[0][:2])}" if finding.examples else ""
            raise LeakageError(
                f"{finding.words.rstrip('.')}{example}: {_REMEDIES[finding.kind]}; or say leakage: warn to go on all the same"
            )


class _SplitCheck(NamedTuple):
    kind: str
    severity: Severity
    find: Callable[[TrainTest], CheckResult]
    sides: Sequence[TrainTest]


def _find_worst_split(check: _SplitCheck, splits: Sequence[Split], allowed: bool) -> Finding | None:
    """The split with the largest share of tested rows, and how many splits have any."""
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


def _dataset_findings(met: SplitChecks) -> list[Finding]:
    """One picture under two labels, of which one is wrong; and what could not be looked for."""
    rows, examples = met.label_conflicts()
    of, found = len(met.dataset), []
    if len(rows):
        words = f"The same or nearly the same picture has two labels: {len(rows):,} of {of:,} rows"
        found.append(Finding("label_conflicts", "note", len(rows), of, (0, 0), words, tuple(examples)))
    said = (words[0].upper() + words[1:] for words in met.skipped_checks())
    return [*found, *(Finding("skipped", "note", 0, 0, (0, 0), words) for words in said)]


def _format_percent(share: float) -> str:
    """Never 0 % of something, nor 100 % of less than all.

    >>> _percent(0.9999), _percent(1), _percent(0.0001)
    ('more than 99.9 %', '100 %', 'less than 0.1 %')
    """
    if share < 0.001:
        return "less than 0.1 %"
    return "more than 99.9 %" if 0.999 < share < 1 else f"{100 * share:.1f} %".replace(".0 %", " %")


_REMEDIES = {
    "rows": "give each row to one part only",
    "groups": "keep groups together (the default), or say allow_group_overlap: true if this is the question",
    "windows": "name the subject of each recording as its group so that it stays on one side, or cut windows that do not overlap",
    "sites": "name each site in train_sites or in test_sites, not in both",
    "fitted": "fit it on the training rows of each split alone, as a candidate of this study",
}
