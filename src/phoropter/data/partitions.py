"""How the labelled rows of a dataset are parted, one function for each `split:`, and what is refused with what would work.

k-folds without groups are scikit-learn's. Groups are dealt by deal.py, which says why. Hold-out and inner validation take from
each class the rows that come first in an order drawn by id, so that more data do not reshuffle what was there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SplitError, listing, nearest
from phoropter.core.seeds import generator, order
from phoropter.data.blocks import STRADDLES, blocks
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.deal import deal

if TYPE_CHECKING:
    from phoropter.data.protocols import ProtocolSpec

Rows = NDArray[np.int64]


class Part(NamedTuple):
    """Places in a pool, and what this parting is in words."""

    name: str
    train: Rows
    test: Rows
    val: Rows | None = None
    external: Rows | None = None


@dataclass(frozen=True, eq=False)
class Pool:
    """The labelled rows in the order of their ids. rows: their numbers in the dataset; groups: numbers, or None."""

    dataset: Dataset
    rows: Rows
    labels: Rows
    groups: Rows | None
    said: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> Pool:
        """All labelled rows. Raises SplitError when there are none."""
        by_id = np.argsort(dataset.ids, kind="stable")
        rows = by_id[dataset.labels[by_id] != UNLABELLED].astype(np.int64)
        if not rows.size:
            raise SplitError(f"{dataset.name} has no labelled rows to split")
        dropped = len(dataset) - len(rows)
        groups = None if dataset.groups is None else np.unique(dataset.groups[rows], return_inverse=True)[1].astype(np.int64)
        return cls(dataset, rows, dataset.labels[rows], groups, (f"{dropped} unlabelled rows left out",) if dropped else ())

    @property
    def name(self) -> str:
        """What people call the dataset."""
        return self.dataset.name

    def column(self, name: str) -> NDArray[np.str_] | None:
        """`sites`, `parts`, `groups` or `recordings` of these rows."""
        values: NDArray[np.str_] | None = getattr(self.dataset, name)
        return None if values is None else values[self.rows]

    def among(self, places: Rows) -> Pool:
        """Only these places."""
        return Pool(self.dataset, self.rows[places], self.labels[places], None if self.groups is None else self.groups[places])

    def numbers(self, places: Rows) -> Rows:
        """Places → row numbers of the dataset, sorted."""
        return np.sort(self.rows[places])

    def group_names(self, groups: Rows) -> list[str]:
        """Group numbers → their names."""
        assert self.dataset.groups is not None and self.groups is not None
        return sorted({str(name) for name in self.dataset.groups[self.rows[np.isin(self.groups, groups)]]})

    def class_counts(self) -> Rows:
        """(C,) rows of each class."""
        return np.bincount(self.labels, minlength=len(self.dataset.classes)).astype(np.int64)

    def group_counts(self, stratified: bool) -> tuple[Rows, Rows]:
        """((G, C) rows of each class, or (G, 1) rows, in each group that is here; (n,) which of these a row belongs to)."""
        assert self.groups is not None
        _, index = np.unique(self.groups, return_inverse=True)
        counts = np.zeros((index.max() + 1, len(self.dataset.classes)), dtype=np.int64)
        np.add.at(counts, (index, self.labels), 1)
        return counts[:, counts.any(axis=0)] if stratified else counts.sum(axis=1, keepdims=True), index.astype(np.int64)

    def keeps_groups(self, spec: ProtocolSpec) -> bool:
        """Whether rows of one group stay on one side."""
        return self.groups is not None and not spec.allow_group_overlap

    def said_groups(self, spec: ProtocolSpec) -> str:
        """What becomes of groups, for the name of a split."""
        kept = " with groups kept together" if self.keeps_groups(spec) else " with groups on both sides"
        return "" if self.groups is None else kept


def with_validation(pool: Pool, part: Part, spec: ProtocolSpec, draw: int) -> Part:
    """With the asked share of the training part cut off as inner validation, by the same rule about groups."""
    if not spec.validation:
        return part
    inner = pool.among(part.train)
    cut = _cut(inner, spec.validation, inner.keeps_groups(spec), draw, "validation")
    return part._replace(train=np.delete(part.train, cut), val=part.train[cut])


def refuse_missing(pool: Pool, part: Part, spec: ProtocolSpec) -> None:
    """Every class must be trained on and, where the parting is ours to choose, tested. Raises SplitError."""
    if spec.split == "evaluate":
        return
    sides = {"training": part.train, "test": part.test}
    if spec.split in ("leave-one-group-out", "official") or (spec.split == "sites" and spec.folds == 1):
        del sides["test"]
    met = [places for places in (part.train, part.test, part.val) if places is not None]
    known = np.unique(pool.labels[np.concatenate(met)])
    for side, places in sides.items():
        gone = np.setdiff1d(known, pool.labels[places])
        if gone.size:
            word = pool.dataset.classes[gone[0]]
            raise SplitError(
                f"{pool.name}: no picture of '{word}' is in the {side} part of '{part.name}' ({_spread(pool, int(gone[0]))}); "
                f"{_WORKS.get(spec.split, 'use fewer folds')}, or leave the class out with exclude: ['{word}']"
            )


def _spread(pool: Pool, label: int) -> str:
    count = int((pool.labels == label).sum())
    groups = "" if pool.groups is None else f" in {len(np.unique(pool.groups[pool.labels == label]))} groups"
    return f"it has {count} pictures{groups}"


def _folds(pool: Pool, spec: ProtocolSpec, draw: int, before: str = "") -> Iterator[Part]:
    """The four k-folds, stratified or not, and those inside the training sites."""
    stratified = spec.split in ("stratified-k-fold", "stratified-group-k-fold", "sites")
    if pool.groups is None and spec.split in ("group-k-fold", "stratified-group-k-fold"):
        raise SplitError(
            f"split: {spec.split} needs groups, and {pool.name} names none; give the manifest a column group, read them from the "
            "paths with group_from, or use split: stratified-k-fold"
        )
    name = f"{before}{'stratified ' * stratified}{spec.folds}-fold{pool.said_groups(spec)}"
    deal_out = _group_folds if pool.keeps_groups(spec) else _row_folds
    of = deal_out(pool, spec.folds, stratified, draw)
    for fold in range(spec.folds):
        yield Part(name, np.flatnonzero(of != fold), np.flatnonzero(of == fold))


def _row_folds(pool: Pool, folds: int, stratified: bool, draw: int) -> Rows:
    """(n,) the fold each row is tested in."""
    from sklearn.model_selection import KFold, StratifiedKFold

    least, rarest = min((int(count), place) for place, count in enumerate(pool.class_counts()) if count)
    if stratified and least < folds:
        _refuse_few(pool, folds, least, rarest)
    if len(pool.rows) < folds:
        raise SplitError(f"{folds} folds need at least {folds} rows, and {pool.name} has {len(pool.rows)}: use fewer folds")
    splitter = (StratifiedKFold if stratified else KFold)(folds, shuffle=True, random_state=draw % 2**32)
    of = np.zeros(len(pool.rows), dtype=np.int64)
    for fold, (_, test) in enumerate(splitter.split(pool.rows, pool.labels)):
        of[test] = fold
    return of


def _refuse_few(pool: Pool, folds: int, count: int, label: int) -> None:
    word = pool.dataset.classes[label]
    pictures = "one labelled picture" if count == 1 else f"{count} labelled pictures"
    works = "add pictures" if count == 1 else f"use at most folds: {count}, add pictures"
    raise SplitError(f"{pool.name}: the class '{word}' has {pictures} for {folds} parts; {works}, or exclude: ['{word}']")


def _group_folds(pool: Pool, folds: int, stratified: bool, draw: int) -> Rows:
    counts, index = pool.group_counts(stratified)
    if len(counts) < folds:
        works = f"use at most folds: {len(counts)}, or split: leave-one-group-out" if len(counts) > 1 else "record more groups"
        raise SplitError(f"{folds} folds need at least {folds} groups, and {pool.name} has {len(counts)}: {works}")
    return deal(counts, np.full(folds, 1 / folds), generator(draw, "groups"))[index]


def _block_folds(pool: Pool, spec: ProtocolSpec, draw: int) -> Iterator[Part]:
    spans = pool.dataset.spans
    if spans is None:
        raise SplitError(
            f"split: block-k-fold needs windows of recordings, and {pool.name} has none; use split: stratified-k-fold"
        )
    if pool.keeps_groups(spec):
        raise SplitError(
            "split: block-k-fold has windows of every group on both sides: say allow_group_overlap: true if that is the "
            "question, or use split: group-k-fold"
        )
    names = pool.column("recordings") if pool.dataset.recordings is not None else pool.column("groups")
    recording = np.zeros(len(pool.rows), dtype=np.int64) if names is None else np.unique(names, return_inverse=True)[1]
    stretch = (recording * len(pool.dataset.classes) + pool.labels).astype(np.int64)
    fewest = int(np.unique(stretch, return_counts=True)[1].min())
    if fewest < spec.folds:
        raise SplitError(
            f"{spec.folds} blocks of each recording and class need as many windows, and {pool.name} has {fewest} in one of them: "
            f"{f'use at most folds: {fewest}' if fewest > 1 else 'use another split'}, or more windows"
        )
    of = blocks(spans[pool.rows], stretch, spec.folds)
    name = f"{spec.folds} blocks of time with groups on both sides, {int((of == STRADDLES).sum())} windows on borders left out"
    for fold in range(spec.folds):
        yield Part(name, np.flatnonzero((of != fold) & (of != STRADDLES)), np.flatnonzero(of == fold))


def _leave_one_out(pool: Pool, spec: ProtocolSpec, draw: int) -> Iterator[Part]:
    if pool.groups is None or len(np.unique(pool.groups)) < 2:
        named = "none" if pool.groups is None else "one"
        raise SplitError(f"split: leave-one-group-out needs two groups or more, and {pool.name} names {named}")
    for group in np.unique(pool.groups):
        name = f"without the group {pool.group_names(group)[0]}"
        yield Part(name, np.flatnonzero(pool.groups != group), np.flatnonzero(pool.groups == group))


def _hold_out(pool: Pool, spec: ProtocolSpec, draw: int) -> Iterator[Part]:
    if not spec.train_per_class:
        test = _cut(pool, spec.test, pool.keeps_groups(spec), draw, "test")
        yield Part(f"hold-out of {spec.test:.0%}{pool.said_groups(spec)}", np.setdiff1d(np.arange(len(pool.rows)), test), test)
        return
    if pool.keeps_groups(spec):
        raise SplitError("train_per_class cannot keep groups together: use 'test' for a share, or say allow_group_overlap: true")
    train = _some_of_each(pool, spec.train_per_class, draw)
    name = f"{spec.train_per_class} of each class to train{pool.said_groups(spec)}"
    yield Part(name, train, np.setdiff1d(np.arange(len(pool.rows)), train))


def _some_of_each(pool: Pool, count: int, draw: int) -> Rows:
    drawn = order(pool.dataset.hashes[pool.rows], draw, "hold-out")
    for label, there in enumerate(pool.class_counts()):
        if 0 < there <= count:
            word = pool.dataset.classes[label]
            raise SplitError(
                f"train_per_class: {count} leaves nothing to test of '{word}', which has {there} pictures; "
                f"use {there - 1} or fewer, or leave the class out with exclude: ['{word}']"
            )
    return np.concatenate([drawn[pool.labels[drawn] == label][:count] for label in np.unique(pool.labels)])


def _cut(pool: Pool, share: float, grouped: bool, draw: int, what: str) -> Rows:
    """Places of about `share` of the rows, classes in proportion, whole groups where they stay together."""
    if grouped:
        counts, index = pool.group_counts(stratified=True)
        if len(counts) < 2:
            raise SplitError(f"a {what} part needs two groups or more, and {pool.name} has one to part; record more groups")
        return np.flatnonzero(deal(counts, np.array([share, 1 - share]), generator(draw, what))[index] == 0)
    drawn = order(pool.dataset.hashes[pool.rows], draw, what)
    chosen = []
    for label in np.unique(pool.labels):
        there = drawn[pool.labels[drawn] == label]
        if len(there) < 2:
            _refuse_few(pool, 2, 1, int(label))
        chosen.append(there[: min(max(1, round(share * len(there))), len(there) - 1)])
    return np.sort(np.concatenate(chosen))


def _official(pool: Pool, spec: ProtocolSpec, draw: int) -> Iterator[Part]:
    parts = pool.column("parts")
    there = set() if parts is None else {str(part) for part in parts if part}
    if parts is None or "train" not in there or len(there) < 2:
        has = f"only '{min(there)}'" if there else "none"
        raise SplitError(f"split: official needs parts train and test, and {pool.name} has {has}; use split: stratified-k-fold")
    tested = "test" if "test" in there else "val"
    val = np.flatnonzero(parts == "val") if tested == "test" and "val" in there else None
    if val is not None and spec.validation:
        raise SplitError(f"'validation' asks for an inner part, and {pool.name} has an official val part: remove 'validation'")
    name = f"official parts, tested on {tested}{' with groups on both sides' * spec.allow_group_overlap}"
    part = Part(name, np.flatnonzero(parts == "train"), np.flatnonzero(parts == tested), val)
    _refuse_shared(pool, spec, part.train, part.test, "both the training and the test part")
    if val is not None:
        _refuse_shared(pool, spec, part.train, val, "both the training and the val part")
    yield part


def _refuse_shared(pool: Pool, spec: ProtocolSpec, train: Rows, test: Rows, where: str) -> None:
    if pool.groups is None or spec.allow_group_overlap:
        return
    shared = np.intersect1d(pool.groups[train], pool.groups[test])
    if shared.size:
        raise SplitError(
            f"{pool.name}: {len(shared)} groups lie in {where} ({listing(pool.group_names(shared), 3)}); "
            "correct them, or say allow_group_overlap: true"
        )


def _sites(pool: Pool, spec: ProtocolSpec, draw: int) -> Iterator[Part]:
    sites = pool.column("sites")
    if sites is None:
        raise SplitError(f"split: sites needs sites, and {pool.name} names none; use a manifest with a column site, or site_from")
    trained, tested = _sides(pool, spec, sorted({str(site) for site in sites}))
    inside, outside = np.flatnonzero(np.isin(sites, trained)), np.flatnonzero(np.isin(sites, tested))
    _refuse_shared(pool, spec, inside, outside, "both sites that are trained on and sites that are tested")
    name = f"trained on {listing(trained, 3)}, unseen {listing(tested, 3)}"
    if spec.folds == 1:
        yield Part(name, inside, outside)
        return
    for part in _folds(pool.among(inside), spec, draw, f"{name}, "):
        yield Part(part.name, inside[part.train], inside[part.test], external=outside)


def _sides(pool: Pool, spec: ProtocolSpec, known: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(sites trained on, sites tested): what is not named is all the rest."""
    for site in (*spec.train_sites, *spec.test_sites):
        if site not in known:
            raise SplitError(f"{pool.name} has no site '{site}'{nearest(site, known)}; it has {listing(known)}")
    trained = spec.train_sites or tuple(site for site in known if site not in spec.test_sites)
    tested = spec.test_sites or tuple(site for site in known if site not in spec.train_sites)
    if not trained or not tested:
        raise SplitError(f"{pool.name}: every site is on one side; leave one for {'testing' if trained else 'training'}")
    return trained, tested


def _evaluate(pool: Pool, spec: ProtocolSpec, draw: int) -> Iterator[Part]:
    everything = np.arange(len(pool.rows), dtype=np.int64)
    yield Part("everything is tested", everything[:0], everything)


_WORKS = {
    "k-fold": "use split: stratified-k-fold",
    "group-k-fold": "use split: stratified-group-k-fold or fewer folds",
    "official": "correct the official parts, or use split: stratified-k-fold",
    "leave-one-group-out": "record it in more groups, or use split: stratified-group-k-fold",
    "sites": "use fewer folds, or add a site that has it to train_sites",
    "hold-out": "hold out another share, or record more",
}
KINDS: dict[str, Callable[[Pool, ProtocolSpec, int], Iterator[Part]]] = {
    "k-fold": _folds,
    "stratified-k-fold": _folds,
    "group-k-fold": _folds,
    "stratified-group-k-fold": _folds,
    "block-k-fold": _block_folds,
    "leave-one-group-out": _leave_one_out,
    "hold-out": _hold_out,
    "official": _official,
    "sites": _sites,
    "evaluate": _evaluate,
}
