"""Splitters: one function for each `split:` that partitions the labelled rows of a dataset.

k-folds without groups are scikit-learn's. Groups are partitioned by group_kfold.py, which gives the reason. Hold-out and inner
validation take from each class the rows that come first in a random order of ids, so that adding rows leaves the order of the
others as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SplitError, did_you_mean, join_words
from phoropter.core.language.unit_words import GROUP, PICTURE
from phoropter.core.seeds import named_generator, random_permutation
from phoropter.data.splits.block_kfold import NO_FOLD, assign_block_folds
from phoropter.data.splits.group_kfold import balanced_group_partition
from phoropter.data.splits.iterative_stratification import stratify_label_sets
from phoropter.data.splits.labelled_rows import LabelledRows, RowPartition
from phoropter.data.splits.row_folds import assign_random_folds, assign_stratified_folds
from phoropter.data.splits.spec import Protocol, ProtocolSpec

Rows = NDArray[np.int64]


def add_validation_part(pool: LabelledRows, part: RowPartition, spec: ProtocolSpec, draw: int) -> RowPartition:
    """The partition with `val_size` of its training part set aside as inner validation; groups are treated as in the split."""
    if not spec.val_size:
        return part
    inner = pool.select_rows(part.train)
    cut = _select_share(inner, spec.val_size, inner.keeps_groups(spec), draw, "validation")
    return part._replace(train=np.delete(part.train, cut), val=part.train[cut])


def raise_on_missing_class(pool: LabelledRows, part: RowPartition, spec: ProtocolSpec) -> None:
    """Raises SplitError where a class is not trained on or, for a partition that phoropter draws itself, not tested."""
    if spec.split == "test-only":
        return
    sides = {"training": part.train, "test": part.test}
    by_unit = spec.split in ("leave-one-group-out", "leave-one-site-out")
    chosen_by_user = by_unit or spec.split in ("predefined", "file") or isinstance(spec.split, Protocol)
    if chosen_by_user or (spec.split == "held-out-sites" and spec.folds == 1):
        del sides["test"]
    used = [places for places in (part.train, part.test, part.val) if places is not None]
    known = pool.select_rows(np.concatenate(used)).class_counts() > 0
    for side, places in sides.items():
        gone = np.flatnonzero(known & (pool.select_rows(places).class_counts() == 0))
        if gone.size:
            word, size = pool.dataset.classes[gone[0]], _describe_class_size(pool, int(gone[0]))
            default = "use fewer folds" if isinstance(spec.split, str) else "correct its make_splits"
            raise SplitError(
                f"{pool.name}: no picture of '{word}' is in the {side} part of '{part.name}' ({size}); "
                f"{_SUGGESTIONS.get(spec.split_name, default)}, or leave the class out with exclude: ['{word}']"
            )


def _describe_class_size(pool: LabelledRows, label: int) -> str:
    holds = pool.labels[:, label] == 1 if pool.is_multi_label else pool.labels == label
    count = int(holds.sum())
    groups = "" if pool.groups is None else f" in {GROUP.count(len(np.unique(pool.groups[holds])))}"
    return f"it has {PICTURE.count(count)}{groups}"


def _split_k_fold(pool: LabelledRows, spec: ProtocolSpec, draw: int, before: str = "") -> Iterator[RowPartition]:
    """The four k-folds, and the folds inside the training sites."""
    stratified = spec.split in ("stratified-k-fold", "stratified-group-k-fold", "held-out-sites")
    if pool.groups is None and spec.split in ("group-k-fold", "stratified-group-k-fold"):
        raise SplitError(
            f"split: {spec.split} needs groups, and {pool.name} names none; give the manifest a column group, read them from the "
            "paths with group_from, or use split: stratified-k-fold"
        )
    name = f"{before}{'stratified ' * stratified}{spec.folds}-fold{pool.describe_groups(spec)}"
    assign = _assign_group_folds if pool.keeps_groups(spec) else _assign_row_folds
    fold_of = assign(pool, spec.folds, stratified, draw)
    for fold in range(spec.folds):
        yield RowPartition(name, np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold))


def _assign_row_folds(pool: LabelledRows, folds: int, stratified: bool, draw: int) -> Rows:
    """(n,) the fold in which each row is tested."""
    least, rarest = min((int(count), place) for place, count in enumerate(pool.class_counts()) if count)
    if stratified and least < folds:
        _raise_too_few(pool, folds, least, rarest)
    if len(pool.rows) < folds:
        raise SplitError(f"{folds} folds need at least {folds} rows, and {pool.name} has {len(pool.rows)}: use fewer folds")
    if stratified and pool.is_multi_label:
        return stratify_label_sets(pool.labels, np.full(folds, 1 / folds), named_generator(draw, "labels"))
    seed = draw % 2**32
    return assign_stratified_folds(pool.labels, folds, seed) if stratified else assign_random_folds(len(pool.rows), folds, seed)


def _raise_too_few(pool: LabelledRows, folds: int, count: int, label: int) -> None:
    word = pool.dataset.classes[label]
    pictures = "one labelled picture" if count == 1 else f"{count} labelled pictures"
    works = "add pictures" if count == 1 else f"use at most folds: {count}, add pictures"
    raise SplitError(f"{pool.name}: the class '{word}' has {pictures} for {folds} parts; {works}, or exclude: ['{word}']")


def _assign_group_folds(pool: LabelledRows, folds: int, stratified: bool, draw: int) -> Rows:
    counts, index = pool.count_by_group(stratified)
    if len(counts) < folds:
        works = f"use at most folds: {len(counts)}, or split: leave-one-group-out" if len(counts) > 1 else "record more groups"
        raise SplitError(f"{folds} folds need at least {folds} groups, and {pool.name} has {len(counts)}: {works}")
    random = named_generator(draw, "groups")
    return balanced_group_partition(counts, np.full(folds, 1 / folds), random, np.bincount(index))[index]


def _split_block_k_fold(pool: LabelledRows, spec: ProtocolSpec, draw: int) -> Iterator[RowPartition]:
    spans = pool.dataset.spans
    if spans is None:
        raise SplitError(
            f"split: block-k-fold needs windows of recordings, and {pool.name} has none; use split: stratified-k-fold"
        )
    if pool.keeps_groups(spec):
        raise SplitError(
            "split: block-k-fold has windows of every group on both sides: say allow_group_overlap: true if that is intended, or "
            "use split: group-k-fold"
        )
    names = pool.get_column("recordings") if pool.dataset.recordings is not None else pool.get_column("groups")
    recording = np.zeros(len(pool.rows), dtype=np.int64) if names is None else np.unique(names, return_inverse=True)[1]
    labels = pool.dataset.label_sets[pool.rows]
    stretch = (recording * (int(labels.max()) + 1) + labels).astype(np.int64)
    fewest = int(np.unique(stretch, return_counts=True)[1].min())
    if fewest < spec.folds:
        raise SplitError(
            f"{spec.folds} blocks of each recording and class need as many windows, and {pool.name} has {fewest} in one of them: "
            f"{f'use at most folds: {fewest}' if fewest > 1 else 'use another split'}, or more windows"
        )
    fold_of = assign_block_folds(spans[pool.rows], stretch, spec.folds)
    name = f"{spec.folds} blocks of time with groups on both sides, {int((fold_of == NO_FOLD).sum())} windows on borders left out"
    for fold in range(spec.folds):
        yield RowPartition(name, np.flatnonzero((fold_of != fold) & (fold_of != NO_FOLD)), np.flatnonzero(fold_of == fold))


def _split_leave_one_group_out(pool: LabelledRows, spec: ProtocolSpec, draw: int) -> Iterator[RowPartition]:
    if pool.groups is None or len(np.unique(pool.groups)) < 2:
        named = "none" if pool.groups is None else "one"
        raise SplitError(f"split: leave-one-group-out needs two groups or more, and {pool.name} names {named}")
    for group in np.unique(pool.groups):
        name = f"without the group {pool.group_names(group)[0]}"
        yield RowPartition(name, np.flatnonzero(pool.groups != group), np.flatnonzero(pool.groups == group))


def _split_leave_one_site_out(pool: LabelledRows, spec: ProtocolSpec, draw: int) -> Iterator[RowPartition]:
    sites = _get_sites(pool, spec)
    for site in np.unique(sites):
        train, test = np.flatnonzero(sites != site), np.flatnonzero(sites == site)
        if not len(train):
            raise SplitError(f"split: leave-one-site-out needs two sites or more, and {pool.name} names one, {site}")
        _raise_shared_groups(pool, spec, train, test, f"the site {site} and in others")
        yield RowPartition(f"without the site {site}", train, test)


def _get_sites(pool: LabelledRows, spec: ProtocolSpec) -> NDArray[Any]:
    """(n,) the site of each row. Raises SplitError where rows have none."""
    sites = pool.get_column("sites")
    if sites is None:
        raise SplitError(
            f"split: {spec.split_name} needs sites, and {pool.name} names none; use a manifest with a column site, or site_from"
        )
    return sites


def _split_hold_out(pool: LabelledRows, spec: ProtocolSpec, draw: int) -> Iterator[RowPartition]:
    if not spec.train_per_class:
        test = _select_share(pool, spec.test_size, pool.keeps_groups(spec), draw, "test")
        yield RowPartition(
            f"hold-out of {spec.test_size:.0%}{pool.describe_groups(spec)}", np.setdiff1d(np.arange(len(pool.rows)), test), test
        )
        return
    if pool.is_multi_label:
        raise SplitError(f"train_per_class takes rows of one class each, and rows of {pool.name} have several: use 'test_size'")
    if pool.keeps_groups(spec):
        raise SplitError(
            "train_per_class cannot keep groups together: use 'test_size' for a share, or say allow_group_overlap: true"
        )
    train = _sample_per_class(pool, spec.train_per_class, draw)
    name = f"{spec.train_per_class} of each class to train{pool.describe_groups(spec)}"
    yield RowPartition(name, train, np.setdiff1d(np.arange(len(pool.rows)), train))


def _sample_per_class(pool: LabelledRows, count: int, draw: int) -> Rows:
    drawn = random_permutation(pool.dataset.hashed_ids[pool.rows], draw, "hold-out")
    for label, there in enumerate(pool.class_counts()):
        if 0 < there <= count:
            word = pool.dataset.classes[label]
            raise SplitError(
                f"train_per_class: {count} leaves nothing to test of '{word}', which has {there} pictures; "
                f"use {there - 1} or fewer, or leave the class out with exclude: ['{word}']"
            )
    return np.concatenate([drawn[pool.labels[drawn] == label][:count] for label in np.unique(pool.labels)])


def _select_share(pool: LabelledRows, share: float, grouped: bool, draw: int, what: str) -> Rows:
    """Positions of about `share` of the rows, with classes in proportion; complete groups where `grouped`."""
    if grouped:
        counts, index = pool.count_by_group(stratified=True)
        if len(counts) < 2:
            raise SplitError(f"a {what} part needs two groups or more, and {pool.name} has one to part; record more groups")
        shares = np.array([share, 1 - share])
        part = balanced_group_partition(counts, shares, named_generator(draw, what), np.bincount(index))
        return np.flatnonzero(part[index] == 0)
    if pool.is_multi_label:
        shares = np.array([share, 1 - share])
        return np.flatnonzero(stratify_label_sets(pool.labels, shares, named_generator(draw, what)) == 0)
    drawn = random_permutation(pool.dataset.hashed_ids[pool.rows], draw, what)
    chosen = []
    for label in np.unique(pool.labels):
        there = drawn[pool.labels[drawn] == label]
        if len(there) < 2:
            _raise_too_few(pool, 2, 1, int(label))
        chosen.append(there[: min(max(1, round(share * len(there))), len(there) - 1)])
    return np.sort(np.concatenate(chosen))


def _split_predefined(pool: LabelledRows, spec: ProtocolSpec, draw: int) -> Iterator[RowPartition]:
    parts = pool.get_column("parts")
    there = set() if parts is None else {str(part) for part in parts if part}
    if parts is None or "train" not in there or len(there) < 2:
        has = f"only '{min(there)}'" if there else "none"
        raise SplitError(
            f"split: predefined needs parts train and test, and {pool.name} has {has}; name them in a column split of the "
            "manifest or by folders train and test, or use split: stratified-k-fold"
        )
    tested = "test" if "test" in there else "val"
    val = np.flatnonzero(parts == "val") if tested == "test" and "val" in there else None
    if val is not None and spec.val_size:
        raise SplitError(f"'val_size' asks for an inner part, and {pool.name} has an official val part: remove 'val_size'")
    name = f"official parts, tested on {tested}{' with groups on both sides' * spec.allow_group_overlap}"
    part = RowPartition(name, np.flatnonzero(parts == "train"), np.flatnonzero(parts == tested), val)
    _raise_shared_groups(pool, spec, part.train, part.test, "both the training and the test part")
    if val is not None:
        _raise_shared_groups(pool, spec, part.train, val, "both the training and the val part")
    yield part


def _raise_shared_groups(pool: LabelledRows, spec: ProtocolSpec, train: Rows, test: Rows, where: str) -> None:
    if pool.groups is None or spec.allow_group_overlap:
        return
    shared = np.intersect1d(pool.groups[train], pool.groups[test])
    if shared.size:
        lie = "group lies" if len(shared) == 1 else "groups lie"
        raise SplitError(
            f"{pool.name}: {len(shared)} {lie} in {where} ({join_words(pool.group_names(shared), 3)}); "
            "correct that, or say allow_group_overlap: true"
        )


def _split_held_out_sites(pool: LabelledRows, spec: ProtocolSpec, draw: int) -> Iterator[RowPartition]:
    sites = _get_sites(pool, spec)
    trained, tested = _resolve_sites(pool, spec, sorted({str(site) for site in sites}))
    inside, outside = np.flatnonzero(np.isin(sites, trained)), np.flatnonzero(np.isin(sites, tested))
    _raise_shared_groups(pool, spec, inside, outside, "both sites that are trained on and sites that are tested")
    name = f"trained on {join_words(trained, 3)}, unseen {join_words(tested, 3)}"
    if spec.folds == 1:
        yield RowPartition(name, inside, outside)
        return
    for part in _split_k_fold(pool.select_rows(inside), spec, draw, f"{name}, "):
        yield RowPartition(part.name, inside[part.train], inside[part.test], external=outside)


def _resolve_sites(pool: LabelledRows, spec: ProtocolSpec, known: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(training sites, test sites); a side that is not named is all remaining sites."""
    if not spec.train_sites and not spec.test_sites:
        raise SplitError(
            f"split: held-out-sites needs train_sites or test_sites; the sites of {pool.name} are {join_words(known, 30)}, so "
            f"for example test_sites: [{known[-1]}]"
        )
    for site in (*spec.train_sites, *spec.test_sites):
        if site not in known:
            raise SplitError(f"{pool.name} has no site '{site}'{did_you_mean(site, known)}; it has {join_words(known)}")
    trained = spec.train_sites or tuple(site for site in known if site not in spec.test_sites)
    tested = spec.test_sites or tuple(site for site in known if site not in spec.train_sites)
    if not trained or not tested:
        raise SplitError(f"{pool.name}: every site is on one side; leave one for {'testing' if trained else 'training'}")
    return trained, tested


def _split_test_only(pool: LabelledRows, spec: ProtocolSpec, draw: int) -> Iterator[RowPartition]:
    everything = np.arange(len(pool.rows), dtype=np.int64)
    yield RowPartition("everything is tested", everything[:0], everything)


_SUGGESTIONS = {
    "k-fold": "use split: stratified-k-fold",
    "group-k-fold": "use split: stratified-group-k-fold or fewer folds",
    "predefined": "correct the official parts, or use split: stratified-k-fold",
    "leave-one-group-out": "record it in more groups, or use split: stratified-group-k-fold",
    "leave-one-site-out": "leave the site out that alone has it, or use split: stratified-group-k-fold",
    "held-out-sites": "use fewer folds, or add a site that has it to train_sites",
    "hold-out": "hold out another share, or record more",
    "file": "correct the folds file",
}
SPLITTERS: dict[str, Callable[[LabelledRows, ProtocolSpec, int], Iterator[RowPartition]]] = {
    "k-fold": _split_k_fold,
    "stratified-k-fold": _split_k_fold,
    "group-k-fold": _split_k_fold,
    "stratified-group-k-fold": _split_k_fold,
    "block-k-fold": _split_block_k_fold,
    "leave-one-group-out": _split_leave_one_group_out,
    "leave-one-site-out": _split_leave_one_site_out,
    "hold-out": _split_hold_out,
    "predefined": _split_predefined,
    "held-out-sites": _split_held_out_sites,
    "test-only": _split_test_only,
}
