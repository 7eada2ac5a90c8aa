"""A Dataset → the same rows as a negative control: other labels, or pictures without content. All draws are by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phoropter.core.errors import DataError, join_words
from phoropter.core.files import digest
from phoropter.core.seeds import hash_ids, random_permutation
from phoropter.data.controls.control_kinds import CONTROL_FOLDS, MAX_GROUPS, ControlName
from phoropter.data.controls.shuffled_windows import ShuffledPictures
from phoropter.data.dataset import Dataset, encode_labels
from phoropter.data.recordings.dataset import RenderedPictures
from phoropter.data.splits.block_kfold import NO_FOLD, assign_block_folds

BLANK_SIDE, BLANK_GREY = 32, 128  # of a picture without content
Rows = NDArray[np.int64]


def apply_control(dataset: Dataset, kind: ControlName) -> Dataset:
    """The rows of a dataset as a negative control. Raises DataError where it makes no sense, in a sentence that begins with it.

    labels-permuted: the labels exchanged at random. Groups of one label exchange it as groups; rows of other groups, and rows
                     without groups, exchange theirs one by one
    predict-site, predict-group: the site, or the group, in place of the class
    blank-pictures:  every picture of one grey
    time-shuffled:   the samples of each window of a recording in random order, before it is drawn
    """
    if kind == "labels-permuted":
        return replace(dataset, labels=permute_labels(dataset))
    if kind == "predict-site":
        return _label_by_site(dataset)
    if kind == "predict-group":
        return _label_by_group(dataset)
    if kind == "blank-pictures":
        return replace(dataset, pictures=BlankPictures())
    if not isinstance(dataset.pictures, RenderedPictures):
        raise DataError(f"time-shuffled needs windows of recordings, and {dataset.name} has none; leave it out of 'controls'")
    return replace(dataset, pictures=ShuffledPictures(dataset.pictures, dataset.ids))


def permute_labels(dataset: Dataset) -> Rows:
    """(N,) or (N, C) labels, exchanged at random within the structure of the groups; unknown ones stay where they are."""
    labels, known = dataset.labels.copy(), np.flatnonzero(dataset.labelled)
    alone = known
    if dataset.groups is not None:
        names, first, group = np.unique(dataset.groups[known], return_index=True, return_inverse=True)
        sets = dataset.label_sets[known]
        is_constant = np.bincount(group[sets != sets[first[group]]], minlength=len(names)) == 0
        constant = np.flatnonzero(is_constant)
        source = first.copy()
        source[constant] = first[constant[random_permutation(hash_ids(names[constant]), 0, "labels permuted")]]
        inside = is_constant[group]
        labels[known[inside]] = dataset.labels[known[source[group[inside]]]]
        alone = known[~inside]
    alone = alone[np.argsort(dataset.ids[alone], kind="stable")]
    labels[alone] = dataset.labels[alone[random_permutation(dataset.hashed_ids[alone], 0, "labels permuted")]]
    return labels


def _label_by_site(dataset: Dataset) -> Dataset:
    known = None if dataset.sites is None else np.unique(dataset.sites[dataset.labelled])
    if dataset.sites is None or known is None or len(known) < 2:
        there = "none" if known is None else "one"
        raise DataError(
            f"predict-site needs two sites or more, and {dataset.name} has {there}; name them (site_from, or a column site), or "
            "leave it out of 'controls'"
        )
    return _relabel(dataset, dataset.sites, dataset.labelled, sites=None)


def _label_by_group(dataset: Dataset) -> Dataset:
    """Rows of groups with enough of them for both sides of every fold, in each recording where there are recordings.

    Of windows in time those on the borders of the folds are in none (data/splits/block_kfold.py): where windows overlap, a group
    may have none left. It is left out and named; the others are told apart.
    """
    if dataset.groups is None:
        raise DataError(
            f"predict-group needs groups, and {dataset.name} has none; name them (group_from, or a column group), or leave it "
            "out of 'controls'"
        )
    units = dataset.groups if dataset.recordings is None else dataset.recordings
    _, unit, counts = np.unique(units[dataset.labelled], return_inverse=True, return_counts=True)
    enough = dataset.labelled.copy()
    enough[dataset.labelled] = counts[unit] >= CONTROL_FOLDS
    if dataset.spans is not None and dataset.recordings is not None:
        enough &= _have_every_fold(dataset, np.flatnonzero(enough))
    names = np.unique(dataset.groups[enough])
    if len(names) < 2:
        why = "" if dataset.spans is None else " (its folds are blocks of time, and windows on their borders are in none)"
        raise DataError(
            f"predict-group needs two groups or more with {CONTROL_FOLDS} rows each, which are on both sides of its folds, and "
            f"{dataset.name} has {len(names)}{why}; leave it out of 'controls'"
        )
    chosen = names[random_permutation(hash_ids(names), 0, "groups told apart")[:MAX_GROUPS]]
    rows = np.flatnonzero(enough & np.isin(dataset.groups, chosen))
    part = dataset.select_rows(rows)
    assert part.groups is not None
    gone = np.setdiff1d(dataset.groups[dataset.labelled], names).tolist()
    note = f"predict-group leaves out {join_words(gone, 3)}: of these no {CONTROL_FOLDS} folds can be made." if gone else ""
    return replace(_relabel(part, part.groups, part.labelled), notes=(*part.notes, *([note] if note else [])))


def _have_every_fold(dataset: Dataset, rows: Rows) -> NDArray[np.bool_]:
    """(N,) whether each row is of a group of which every block fold of `rows` tests a window, as block-k-fold will make them."""
    assert dataset.groups is not None and dataset.recordings is not None and dataset.spans is not None
    group = np.unique(dataset.groups[rows], return_inverse=True)[1]
    stretch = np.unique(dataset.recordings[rows], return_inverse=True)[1] * (int(group.max(initial=0)) + 1) + group
    fold = assign_block_folds(dataset.spans[rows], stretch.astype(np.int64), CONTROL_FOLDS)
    tests = np.zeros((int(group.max(initial=0)) + 1, CONTROL_FOLDS), dtype=np.bool_)
    tests[group[fold != NO_FOLD], fold[fold != NO_FOLD]] = True
    found, complete = np.zeros(len(dataset), dtype=np.bool_), np.flatnonzero(tests.sum(axis=1) == CONTROL_FOLDS)
    found[rows] = np.isin(group, complete)
    return found


def _relabel(dataset: Dataset, names: NDArray[np.str_], known: NDArray[np.bool_], **changes: Any) -> Dataset:
    """The dataset with names in place of classes, where the class is known."""
    words = [name if is_known else None for name, is_known in zip(names.tolist(), known.tolist(), strict=True)]
    labels, classes = encode_labels(words)
    return replace(dataset, labels=labels, classes=classes, parts=None, **changes)


class BlankPictures:
    """One grey square for every row, as the PictureSource of a Dataset."""

    def read(self, row: int) -> NDArray[np.uint8]:
        """Row → (H, W, 3) uint8, the same for all."""
        return np.full((BLANK_SIDE, BLANK_SIDE, 3), BLANK_GREY, dtype=np.uint8)

    def shape(self, row: int) -> tuple[int, int]:
        """(H, W)."""
        return BLANK_SIDE, BLANK_SIDE

    def identity(self, rows: Rows) -> str:
        """A digest of the one picture and how many there are."""
        return digest(["blank pictures", BLANK_SIDE, BLANK_GREY, len(rows)])

    def select(self, rows: Rows) -> BlankPictures:
        """The same."""
        return self
