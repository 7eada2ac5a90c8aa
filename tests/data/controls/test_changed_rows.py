"""Labels, sites, groups and blank pictures in place of what a study is about; what is kept, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from phoropter.core.errors import DataError, SplitError
from phoropter.data.controls.changed_rows import apply_control, permute_labels
from phoropter.data.controls.control_kinds import MAX_GROUPS
from phoropter.data.dataset import UNLABELLED, Dataset
from phoropter.data.sources.storage import ArrayPictures, LazyArray
from phoropter.data.splits.protocol import make_splits
from phoropter.data.splits.spec import ProtocolSpec

ROWS = 240


def make_pictures(count: int) -> ArrayPictures:
    drawn = np.random.default_rng(0).integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
    return ArrayPictures(LazyArray(lambda: drawn), np.arange(count), "made")


def make_dataset(groups: int | None = 24, sites: int | None = 3) -> Dataset:
    """Rows of groups of ten, one label a group but for the last two groups, whose rows have both."""
    place = np.arange(ROWS)
    group = place // (ROWS // groups) if groups else place
    labels = (group % 2).astype(np.int64)
    if groups:
        labels[group >= groups - 2] = place[group >= groups - 2] % 2
    return Dataset(
        "made",
        np.array([f"r{i:03d}" for i in place]),
        labels,
        ("a", "b"),
        make_pictures(ROWS),
        groups=np.array([f"g{g:03d}" for g in group]) if groups else None,
        sites=np.array([f"s{g % sites}" for g in group]) if sites else None,
    )


def test_groups_of_one_label_exchange_it_as_groups() -> None:
    dataset = make_dataset()
    permuted, groups = permute_labels(dataset), dataset.groups
    assert groups is not None
    constant = [g for g in np.unique(groups) if len(np.unique(dataset.labels[groups == g])) == 1]
    before = [dataset.labels[groups == g][0] for g in constant]
    after = [np.unique(permuted[groups == g]) for g in constant]
    assert len(constant) == 22 and all(len(labels) == 1 for labels in after)
    assert sorted(before) == sorted(labels[0] for labels in after) and before != [labels[0] for labels in after]
    others = ~np.isin(groups, constant)
    assert np.bincount(permuted[others]).tolist() == np.bincount(dataset.labels[others]).tolist()
    assert not np.array_equal(permuted[others], dataset.labels[others])


def test_rows_without_groups_exchange_their_labels_one_by_one_and_unknown_ones_stay() -> None:
    dataset = make_dataset(groups=None, sites=None)
    labels = dataset.labels.copy()
    labels[::7] = UNLABELLED
    dataset = replace(dataset, labels=labels)
    permuted = permute_labels(dataset)
    assert np.array_equal(permuted == UNLABELLED, labels == UNLABELLED)
    assert np.bincount(permuted[permuted >= 0]).tolist() == np.bincount(labels[labels >= 0]).tolist()
    kept = (permuted == labels)[labels >= 0].mean()
    assert 0.3 < kept < 0.7  # half of two equal classes


def test_labels_of_several_a_row_are_exchanged_as_sets() -> None:
    dataset = make_dataset(groups=None, sites=None)
    sets = np.stack([dataset.labels, np.arange(ROWS) % 3 == 0], axis=1).astype(np.int64)
    permuted = permute_labels(replace(dataset, labels=sets))
    assert sorted(map(tuple, permuted.tolist())) == sorted(map(tuple, sets.tolist()))
    assert not np.array_equal(permuted, sets)


def test_the_draw_does_not_depend_on_the_order_of_rows() -> None:
    dataset = make_dataset()
    turned = dataset.select_rows(np.arange(ROWS)[::-1])
    assert np.array_equal(permute_labels(turned)[::-1], permute_labels(dataset))


def test_sites_take_the_place_of_classes() -> None:
    dataset = make_dataset()
    found = apply_control(dataset, "predict-site")
    assert found.classes == ("s0", "s1", "s2") and found.sites is None and found.groups is not None and dataset.sites is not None
    assert [found.classes[k] for k in found.labels] == dataset.sites.tolist()


def test_groups_take_the_place_of_classes_where_they_have_rows_enough() -> None:
    dataset = make_dataset()
    found = apply_control(dataset.select_rows(np.arange(4, ROWS)), "predict-group")  # of the first group six rows are left
    assert len(found.classes) == 24 and [found.classes[k] for k in found.labels] == found.groups.tolist()  # type: ignore[union-attr]
    few = apply_control(dataset.select_rows(np.arange(6, ROWS)), "predict-group")  # now four
    assert len(few.classes) == 23 and "g000" not in few.classes
    assert dataset.groups is not None
    windows = replace(dataset, recordings=np.array([f"{g}-{i % 3}" for i, g in enumerate(dataset.groups)]))
    with pytest.raises(DataError, match="predict-group needs two groups or more with 5 rows each"):
        apply_control(windows, "predict-group")


def test_a_group_without_windows_for_every_fold_is_left_out_and_named() -> None:
    """Two of four people have windows that overlap: of the first none is left beside the borders, of the second some are."""
    people = np.repeat(["p0", "p1", "p2", "p3"], (6, 40, 10, 10))
    step = {"p0": 5.0, "p1": 5.0, "p2": 10.0, "p3": 10.0}
    starts = np.concatenate([np.arange(np.sum(people == p)) * step[p] for p in step])
    dataset = Dataset(
        "made",
        np.array([f"r{i:03d}" for i in range(len(people))]),
        np.arange(len(people)) % 2,
        ("a", "b"),
        make_pictures(len(people)),
        groups=people,
        recordings=people,
        spans=np.stack([starts, starts + 10], axis=1),
    )
    found = apply_control(dataset, "predict-group")
    assert found.classes == ("p1", "p2", "p3") and "predict-group leaves out p0: of these no 5 folds can be made." in found.notes
    splits = make_splits(found, ProtocolSpec(split="block-k-fold", folds=5, allow_group_overlap=True))
    assert len(splits) == 5 and all(set(found.labels[s.train]) == set(found.labels[s.test]) == {0, 1, 2} for s in splits)
    with pytest.raises(SplitError, match="no picture of 'p0' is in the"):
        all_of_them = replace(dataset, labels=np.unique(people, return_inverse=True)[1], classes=("p0", "p1", "p2", "p3"))
        make_splits(all_of_them, ProtocolSpec(split="block-k-fold", folds=5, allow_group_overlap=True))


def test_of_many_groups_some_are_drawn_by_their_names() -> None:
    place = np.arange(5 * (MAX_GROUPS + 10))
    groups = np.array([f"g{i // 5:03d}" for i in place])
    dataset = Dataset("many", np.array([f"r{i}" for i in place]), place % 2, ("a", "b"), make_pictures(len(place)), groups=groups)
    found = apply_control(dataset, "predict-group")
    assert len(found.classes) == MAX_GROUPS and len(found) == 5 * MAX_GROUPS
    assert apply_control(dataset.select_rows(place[::-1]), "predict-group").classes == found.classes


def test_blank_pictures_are_all_one() -> None:
    dataset = make_dataset()
    found = apply_control(dataset, "blank-pictures")
    assert len({found.read(row).tobytes() for row in range(len(found))}) == 1
    assert found.shape(0) == found.read(0).shape[:2]
    assert found.fingerprint != dataset.fingerprint and np.array_equal(found.labels, dataset.labels)
    part = found.select_rows(np.arange(10))
    assert len(part) == 10 and part.content_digest != found.content_digest


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("predict-site", {"sites": None}, "predict-site needs two sites or more, and made has none; name them"),
        ("predict-site", {"sites": np.full(ROWS, "one")}, "predict-site needs two sites or more, and made has one"),
        ("predict-group", {"groups": None}, "predict-group needs groups, and made has none"),
        ("time-shuffled", {}, "time-shuffled needs windows of recordings, and made has none"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, changes: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        apply_control(replace(make_dataset(), **changes), kind)  # type: ignore[arg-type]
