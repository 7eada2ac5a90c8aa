"""How a candidate's metric depends on each independent unit, split by split: what both questions about a pair are answered from.

Both are linear in the candidates: the contributions of a difference are the difference of the contributions, so each candidate's
predictions are read once, however many pairs there are.

    per split  the metric of each split, averaged: its derivatives by the weights of the units in that split
    pooled     the metric of all rows of a round: each split gets the value that the derivatives of its rows add to the whole
               (the round's value for a metric that is a mean over rows, split by split)

Letters: J splits · E entries, one for each unit in each split · U units.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from phoropter.core.files import digest, digest_array
from phoropter.results.metrics.registry import get_metric
from phoropter.results.metrics.sufficient_sums import Floats, Ints, LabelledProbabilities
from phoropter.results.store import Predictions

SplitKey = tuple[Hashable, Hashable]  # a name of the test rows, and the seed and repeat of the run; equal names mean equal rows


@dataclass(frozen=True, eq=False)
class EntryLayout:
    """Which unit stands in which split. Candidates tested on the same rows share one object.

    splits: names of the splits, (J,) · rounds: (J,) number of the round of each
    split_of, unit_of: (E,) numbers, split by split · units:  (U,) names, sorted
    """

    key: str
    splits: tuple[Hashable, ...]
    rounds: Ints
    split_of: Ints
    unit_of: Ints
    units: NDArray[np.str_]

    @cached_property
    def sizes(self) -> Ints:
        """(J,) units of each split."""
        return np.bincount(self.split_of, minlength=len(self.splits))

    @cached_property
    def spread_rounds(self) -> Ints:
        """(J,) within which round a split's spread is taken: its own, or one for all where each round has one split."""
        return self.rounds if np.bincount(self.rounds).max() > 1 else np.zeros(len(self.splits), dtype=np.int64)

    @cached_property
    def shared_cells(self) -> tuple[Ints, Ints] | None:
        """(E,) the number of each entry's round and unit as one, and of each such number its round; None where no unit stands
        in two splits of a round."""
        cells = self.spread_rounds[self.split_of] * len(self.units) + self.unit_of
        found, cell_of = np.unique(cells, return_inverse=True)
        return None if len(found) == len(cells) else (cell_of, found // len(self.units))


@dataclass(frozen=True, eq=False)
class UnitContributions:
    """values: (J,) of the splits · slopes: (E,) derivatives of the value of the entry's split by the weight of its unit
    shares: (J,) how much a split counts, 1 on average; pooled rows make a split count by its rows
    """

    layout: EntryLayout
    values: Floats
    slopes: Floats
    shares: Floats

    @property
    def unweighted_values(self) -> Floats:
        """(J,) what each split has by itself, whatever its share."""
        mean = self.values.mean()
        return np.asarray(mean + (self.values - mean) / self.shares)

    def subtract_other(self, other: UnitContributions) -> UnitContributions:
        """self - other, on the splits that both have; a unit that one of them lacks adds nothing there."""
        if self.layout.key == other.layout.key:
            made = UnitContributions(self.layout, self.values - other.values, self.slopes - other.slopes, self.shares)
            # linear, too: once for each candidate, not for each pair
            vars(made).update(
                {name: getattr(self, name) - getattr(other, name) for name in ("centred_slopes", "mean_influences")}
            )
            return made
        common = [s for s in self.layout.splits if s in other.layout.splits]
        names = np.union1d(self.layout.units, other.layout.units)
        mine, theirs = (_EntryTable.from_contributions(c, common, names) for c in (self, other))
        entries = np.union1d(mine.entries, theirs.entries)
        slopes = mine.spread_over(entries) - theirs.spread_over(entries)
        places = [self.layout.splits.index(s) for s in common]
        rounds, shares = self.layout.rounds[places], self.shares[places]
        layout = EntryLayout("pair", tuple(common), rounds, entries // len(names), entries % len(names), names)
        return UnitContributions(layout, mine.values - theirs.values, slopes, shares)

    @cached_property
    def mean_influences(self) -> Floats:
        """(U,) derivatives of the mean over splits: of each split's value, and of the weight its units give it."""
        layout, n = self.layout, len(self.values)
        weights = (self.values - self.values.mean()) / np.maximum(layout.sizes, 1)
        parts = self.centred_slopes + np.repeat(weights, layout.sizes)
        return np.bincount(layout.unit_of, parts, minlength=len(layout.units)).astype(np.float64) / n

    @cached_property
    def split_variances(self) -> Floats:
        """(J,) the variance of each split's value from its units, n units' multiplied by n / (n - 1); 0 for one unit."""
        sizes = self.layout.sizes
        return np.asarray(self._sum_splits(self.centred_slopes**2) * sizes / np.maximum(sizes - 1, 1))

    @cached_property
    def centred_slopes(self) -> Floats:
        """(E,) with a mean of 0 in each split."""
        sizes = self.layout.sizes
        return np.asarray(self.slopes - np.repeat(self._sum_splits(self.slopes) / np.maximum(sizes, 1), sizes))

    def _sum_splits(self, entries: Floats) -> Floats:
        """(E,) → (J,) sums over the entries of each split, which stand side by side."""
        return np.asarray(np.bincount(self.layout.split_of, entries, minlength=len(self.values)), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _EntryTable:
    """entries: split number × units + unit number, sorted · slopes: of each · values: (J,)"""

    entries: Ints
    slopes: Floats
    values: Floats

    @classmethod
    def from_contributions(cls, of: UnitContributions, splits: list[Hashable], names: NDArray[np.str_]) -> _EntryTable:
        number = {split: i for i, split in enumerate(splits)}
        new = np.array([number.get(split, -1) for split in of.layout.splits])
        kept = new[of.layout.split_of] >= 0
        units = np.searchsorted(names, of.layout.units)[of.layout.unit_of[kept]]
        entries = new[of.layout.split_of[kept]] * len(names) + units
        order = np.argsort(entries, kind="stable")
        values = of.values[[of.layout.splits.index(split) for split in splits]]
        return cls(entries[order], of.slopes[kept][order], values)

    def spread_over(self, entries: Ints) -> Floats:
        out = np.zeros(len(entries))
        out[np.searchsorted(entries, self.entries)] = self.slopes
        return out


class ContributionReader:
    """Reads candidates one by one, by one metric and one estimand, and lets those with the same rows share their layout."""

    def __init__(self, name: str, pooled: bool = False) -> None:
        self.metric, self.pooled = get_metric(name), pooled
        self._layouts: dict[str, EntryLayout] = {}
        self._units: dict[Hashable, _Units] = {}  # by the name of the test rows

    def read_candidate(
        self, predictions: Mapping[SplitKey, Predictions], rounds: Mapping[SplitKey, Hashable] | None = None
    ) -> UnitContributions | None:
        """None where no split has a value, or a user's metric has no derivative. Runs with the same test rows are averaged.

        rounds: the round (repeat or seed) of each split, all one round where None; splits of a round have no row in common.
        """
        of_round = {key: (rounds[key] if rounds else 0) for key in predictions}
        runs = self._read_pooled(predictions, of_round) if self.pooled else self._read_splits(predictions)
        if not runs or any(np.isnan(r.slopes).any() for r in runs):
            return None
        by_split: dict[Hashable, list[_Run]] = {}
        for run in runs:
            by_split.setdefault(run.key[0], []).append(run)
        averaged = [_average_runs(same) for same in by_split.values()]
        values = np.array([run.value for run in averaged])
        layout = self._share_layout(averaged, [of_round[run.key] for run in averaged])
        shares = np.array([run.share for run in averaged])
        return UnitContributions(layout, values, np.concatenate([run.slopes for run in averaged]), shares)

    def _read_splits(self, predictions: Mapping[SplitKey, Predictions]) -> list[_Run]:
        runs = []
        for key, sheet in predictions.items():
            rows, units = sheet.labelled, self._find_units(key[0], sheet)
            if not self.metric.undefined_reason(rows):
                value, slopes = self.metric.compute_unit_gradient(rows, units.unit_of, len(units.names))
                runs += [] if np.isnan(value) else [_Run(key, value, units, slopes)]
        return runs

    def _read_pooled(self, predictions: Mapping[SplitKey, Predictions], of_round: Mapping[SplitKey, Hashable]) -> list[_Run]:
        runs: list[_Run] = []
        for block in dict.fromkeys((of_round[key], key[1]) for key in predictions):
            keys = [key for key in predictions if (of_round[key], key[1]) == block]
            sheets, units = [], []
            for key in keys:
                sheet = predictions[key]
                sheets.append(sheet.labelled)
                units.append(self._find_units(key[0], sheet))
            starts = np.cumsum([0, *(len(of.names) for of in units)])
            rows = LabelledProbabilities.join(sheets)
            if self.metric.undefined_reason(rows):
                continue
            entry_of = np.concatenate([of.unit_of + start for of, start in zip(units, starts, strict=False)])
            value, slopes = self.metric.compute_unit_gradient(rows, entry_of, int(starts[-1]))
            for key, sheet_rows, of, first, last in zip(keys, sheets, units, starts[:-1], starts[1:], strict=True):
                own = slopes[first:last] * len(keys)
                share = len(sheet_rows.labels) * len(keys) / len(rows.labels)
                runs += [] if np.isnan(value) else [_Run(key, value + float(own.sum()), of, own, share)]
        return runs

    def _find_units(self, rows: Hashable, sheet: Predictions) -> _Units:
        """Of the test rows of this name: groups where known, else ids."""
        if rows not in self._units:
            column = sheet.ids if sheet.groups is None else sheet.groups
            names, unit_of = np.unique(column.astype(np.str_), return_inverse=True)
            self._units[rows] = _Units(names, unit_of.astype(np.int64), digest_array(names))
        return self._units[rows]

    def _share_layout(self, runs: list[_Run], rounds: list[Hashable]) -> EntryLayout:
        splits = tuple(run.key[0] for run in runs)
        key = digest([[repr(s) for s in splits], [repr(r) for r in rounds], [run.units.digest for run in runs]])
        if key not in self._layouts:
            units, unit_of = np.unique(np.concatenate([run.units.names for run in runs]), return_inverse=True)
            split_of = np.repeat(np.arange(len(runs)), [len(run.units.names) for run in runs])
            number = {r: i for i, r in enumerate(dict.fromkeys(rounds))}
            round_of = np.array([number[r] for r in rounds], dtype=np.int64)
            self._layouts[key] = EntryLayout(key, splits, round_of, split_of, unit_of.astype(np.int64), units)
        return self._layouts[key]


@dataclass(frozen=True, eq=False)
class _Units:
    """Of some test rows. names: (u,) sorted · unit_of: (n,) the number of each row's · digest: of the names"""

    names: NDArray[np.str_]
    unit_of: Ints
    digest: str


@dataclass(frozen=True, eq=False)
class _Run:
    """One run: its value, its units, and the derivative of the value by the weight of each."""

    key: SplitKey
    value: float
    units: _Units
    slopes: Floats
    share: float = 1.0


def _average_runs(runs: list[_Run]) -> _Run:
    """Runs that differ only in the seed have the same rows, and so the same units."""
    if len(runs) == 1:
        return runs[0]
    slopes = np.mean([run.slopes for run in runs], axis=0)
    return _Run(runs[0].key, float(np.mean([run.value for run in runs])), runs[0].units, slopes, runs[0].share)
