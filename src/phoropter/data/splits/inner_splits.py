"""Splits inside the training part of a split: inner folds, and nested shares of its rows or groups; test rows are in none.

Every draw has a name: a larger share holds the rows of a smaller one, and adding a share leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import SplitError
from phoropter.core.seeds import hash_ids, named_generator, random_permutation
from phoropter.data.dataset import Dataset, count_classes_by_group
from phoropter.data.splits.group_kfold import balanced_group_partition
from phoropter.data.splits.iterative_stratification import stratify_label_sets
from phoropter.data.splits.protocol import Split

Rows = NDArray[np.int64]
ShareUnit = Literal["rows", "groups"]


def split_training_rows(dataset: Dataset, split: Split, folds: int) -> Iterator[tuple[Rows, Rows]]:
    """(rows to fit, rows to validate) of a split's training rows, `folds` times, stratified; by group where the split is."""
    rows, groups = np.sort(split.train), dataset.groups
    if groups is not None and keeps_groups_apart(dataset, split):
        names, index = np.unique(groups[rows], return_inverse=True)
        counts = count_classes_by_group(dataset.labels[rows], index, (len(names), len(dataset.classes)))
        folds = min(folds, len(counts))
        generator = named_generator(split.seed, "inner folds", split.content_key(dataset))
        part = balanced_group_partition(counts, np.full(folds, 1 / folds), generator, np.bincount(index))[index]
    elif dataset.is_multi_label:
        generator = named_generator(split.seed, "inner folds", split.content_key(dataset))
        part = stratify_label_sets(dataset.labels[rows], np.full(folds, 1 / folds), generator)
    else:
        shuffled = rows[random_permutation(dataset.hashed_ids[rows], split.seed, "inner folds")]
        shuffled = shuffled[np.argsort(dataset.labels[shuffled], kind="stable")]
        rows, part = shuffled, np.arange(len(shuffled)) % folds
    for fold in range(folds):
        if (part == fold).any() and (part != fold).any():
            yield np.sort(rows[part != fold]), np.sort(rows[part == fold])


def keeps_groups_apart(dataset: Dataset, split: Split) -> bool:
    """Whether the rows have groups, and none of them is both trained on and tested."""
    return dataset.groups is not None and not len(np.intersect1d(dataset.groups[split.train], dataset.groups[split.test]))


def make_inner_splits(dataset: Dataset, split: Split, folds: int, asked: str = "tune") -> list[Split]:
    """The inner folds of a split as splits, tested on their validation rows; the split's own validation part stays theirs.

    asked: the key of the study that asks for them, for messages
    Raises SplitError where a class of the training part is missing in the rows of an inner fold that are trained on.
    """
    parts = list(split_training_rows(dataset, split, folds))
    known = np.unique(dataset.labels[split.train])
    inner = []
    for number, (fit, tested) in enumerate(parts):
        name = f"inner fold {number + 1} of {len(parts)} of {split.name}"
        gone = np.setdiff1d(known, dataset.labels[fit])
        if len(gone):
            raise SplitError(
                f"{asked}: {name} has no row of '{dataset.classes[gone[0]]}' to train on: use "
                + (
                    "more inner folds (tune: folds), or fewer of the protocol"
                    if asked == "tune"
                    else "fewer folds of the protocol"
                )
            )
        inner.append(replace(split, fold=number, folds=len(parts), name=name, train=fit, test=tested, external=None))
    if len(inner) < 2:
        raise SplitError(
            f"{asked}: the training part of {split.name} cannot be divided into two inner folds: it is one group or row"
        )
    return inner


def shrink_training_part(dataset: Dataset, split: Split, share: float, of: ShareUnit) -> Split:
    """The split with a share of its training rows, or of the groups in it, and of its validation part; tests are unchanged.

    Rows are drawn class by class, groups by the class that is rarest among those they have, at least one of each. Shares are
    nested: the order of rows or groups is a function of seed, repeat, fold and their names. Raises SplitError where the share
    leaves nothing out, or a class without a row to train on.
    """
    train = _draw_share(dataset, split, split.train, share, of)
    if len(train) == len(split.train):
        raise SplitError(f"learning_curve: a share of {share:g} leaves no {of[:-1]} out of {split.name}; name smaller shares")
    gone = np.setdiff1d(dataset.labels[split.train], dataset.labels[train])
    if len(gone):
        raise SplitError(
            f"learning_curve: a share of {share:g} of the training {of} of {split.name} has no row of "
            f"'{dataset.classes[gone[0]]}'; name larger shares"
        )
    val = None if split.val is None else _draw_share(dataset, split, split.val, share, of)
    return replace(split, name=f"{share * 100:g} % of the training {of} of {split.name}", train=train, val=val)


def _draw_share(dataset: Dataset, split: Split, rows: Rows, share: float, of: ShareUnit) -> Rows:
    draw = (split.seed, "learning curve", split.repeat, split.fold)
    if of == "rows":
        order = random_permutation(dataset.hashed_ids[rows], *draw)
        return np.sort(rows[_take_of_strata(order, dataset.labels[rows], share)])
    assert dataset.groups is not None
    names, index = np.unique(dataset.groups[rows], return_inverse=True)
    counts = count_classes_by_group(dataset.labels[rows], index, (len(names), len(dataset.classes)))
    rank = np.argsort(np.argsort(counts.sum(axis=0), kind="stable"))
    rarest = np.where(counts > 0, rank, counts.shape[1]).argmin(axis=1)
    chosen = _take_of_strata(random_permutation(hash_ids(names), *draw), rarest, share)
    return np.sort(rows[np.isin(index, chosen)])


def _take_of_strata(order: Rows, strata: Rows, share: float) -> Rows:
    """The first places, in this order, of each stratum: its share, rounded, and at least one."""
    return np.concatenate([_take_first(order[strata[order] == stratum], share) for stratum in np.unique(strata)])


def _take_first(places: Rows, share: float) -> Rows:
    return places[: max(1, round(share * len(places)))]
