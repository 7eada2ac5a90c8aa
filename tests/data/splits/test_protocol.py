from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phoropter.core.errors import SpecError, SplitError
from phoropter.core.spec import validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.splits.protocol import Split, make_splits
from phoropter.data.splits.spec import (
    BlockKFold,
    GroupKFold,
    HeldOutSites,
    HoldOut,
    KFold,
    LeaveOneGroupOut,
    Predefined,
    ProtocolSpec,
    TestOnly,
)


def some(labels: str | list[str], **columns: list[Any]) -> Dataset:
    return from_arrays(np.zeros((len(labels), 2, 2, 3), dtype=np.uint8), list(labels), name="some", **columns)


def people(seed: int = 0, count: int = 18) -> Dataset:
    """Everyone is seen a few times, in three classes and at three sites."""
    random = np.random.default_rng(seed)
    rows = [(str(random.integers(3)), f"p{p}", f"s{p % 3}") for p in range(count) for _ in range(random.integers(6, 14))]
    labels, groups, sites = (list(column) for column in zip(*rows, strict=True))
    return some(labels, groups=groups, sites=sites)


def ids(dataset: Dataset, rows: Any) -> set[str]:
    return set() if rows is None else {str(dataset.ids[int(row)]) for row in rows}


def in_groups(dataset: Dataset, rows: Any) -> set[str]:
    assert dataset.groups is not None
    return {str(dataset.groups[int(row)]) for row in rows}


def times_tested(made: list[Split]) -> Counter[int]:
    return Counter(int(row) for split in made for row in split.test)


# what every partition must hold


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(4, 25), min_size=2, max_size=4),
    folds=st.integers(2, 4),
    seed=st.integers(0, 10**6),
    stratified=st.booleans(),
)
def test_k_folds_test_every_row_once(counts: list[int], folds: int, seed: int, stratified: bool) -> None:
    labels = [str(c) for c, n in enumerate(counts) for _ in range(n)]
    dataset = some(labels)
    spec = KFold(folds, stratified=stratified, seeds=[seed], repeats=2)
    try:
        made = make_splits(dataset, spec)
    except SplitError as error:
        assert not stratified and "use split: stratified-k-fold" in str(error)
        return
    assert [(s.seed, s.repeat, s.fold, s.folds) for s in made] == [(seed, r, f, folds) for r in range(2) for f in range(folds)]
    for repeat in range(2):
        assert times_tested([s for s in made if s.repeat == repeat]) == Counter(range(len(labels)))
    for split in made:
        assert not set(split.train) & set(split.test) and len(split.train) + len(split.test) == len(labels)
        assert split.train.dtype == split.test.dtype == np.int64 and split.val is None and split.external is None
    sizes = [len(s.test) for s in made]
    assert max(sizes) - min(sizes) <= (len(counts) if stratified else 1)
    if stratified:
        for label, count in enumerate(counts):
            shares = [sum(labels[row] == str(label) for row in s.test) for s in made]
            assert max(shares) - min(shares) <= 1 and min(shares) >= count // folds


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), stratified=st.booleans(), named=st.booleans())
def test_no_group_is_on_both_sides(seed: int, stratified: bool, named: bool) -> None:
    dataset = people(seed)
    spec = (GroupKFold if named else KFold)(5, stratified=stratified, seeds=[seed], val_size=0.2)
    try:
        made = make_splits(dataset, spec)
    except SplitError as error:
        assert not stratified and "stratified" in str(error)
        return
    assert times_tested(made) == Counter(range(len(dataset)))
    for split in made:
        assert split.val is not None and len(split.val)
        sides = [in_groups(dataset, rows) for rows in (split.train, split.test, split.val)]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        assert len(split.train) + len(split.test) + len(split.val) == len(dataset)
        assert set(dataset.labels[split.train]) == set(dataset.labels[split.test]) == {0, 1, 2}
        assert 0.1 < len(split.test) / len(dataset) < 0.3
        assert "with groups kept together" in split.name


@pytest.mark.parametrize(
    "spec",
    [
        KFold(4),
        KFold(4, stratified=False),
        GroupKFold(4),
        LeaveOneGroupOut(),
        HoldOut(0.25),
        HoldOut(0.25, val_size=0.2),
        HeldOutSites(test_sites=["s0"], folds=3),
        KFold(4, allow_group_overlap=True),
        HoldOut(train_per_class=9, allow_group_overlap=True),
    ],
    ids=lambda spec: f"{spec.split}-{spec.allow_group_overlap}-{spec.val_size}",
)
def test_a_partition_depends_on_the_rows_not_on_their_order(spec: ProtocolSpec) -> None:
    dataset = people(3)
    shuffled = dataset.select_rows(np.random.default_rng(1).permutation(len(dataset)))
    one, same, other = make_splits(dataset, spec), make_splits(dataset, spec), make_splits(shuffled, spec)
    assert (
        [s.content_key(dataset) for s in one]
        == [s.content_key(dataset) for s in same]
        == [s.content_key(shuffled) for s in other]
    )
    assert [s.name for s in one] == [s.name for s in other]
    for a, b in zip(one, other, strict=True):
        for part in ("train", "test", "val", "external"):
            assert ids(dataset, getattr(a, part)) == ids(shuffled, getattr(b, part))


@pytest.mark.parametrize("grouped", [True, False])
def test_seeds_and_repeats_draw_partitions_of_their_own(grouped: bool) -> None:
    dataset = people() if grouped else some("aabbb" * 20)
    made = make_splits(dataset, KFold(4, seeds=[0, 1, 2], repeats=2))
    partitions = {
        frozenset(s.content_key(dataset) for s in made if (s.seed, s.repeat) == which)
        for which in {(s.seed, s.repeat) for s in made}
    }
    assert len(made) == 24 and len(partitions) == 6
    alone = make_splits(dataset, KFold(4, seeds=[2], repeats=2))
    assert [s.content_key(dataset) for s in alone] == [s.content_key(dataset) for s in made if s.seed == 2]


def test_seeds_can_share_one_partition() -> None:
    dataset = some("ab" * 20)
    made = make_splits(dataset, KFold(4, seeds=[0, 7], repeats=2, reshuffle=False))
    of = {
        which: [s.content_key(dataset) for s in made if (s.seed, s.repeat) == which] for which in ((0, 0), (7, 0), (0, 1), (7, 1))
    }
    assert of[0, 0] == of[7, 0] and of[0, 1] == of[7, 1] and of[0, 0] != of[0, 1]


def test_names_are_plain_words() -> None:
    assert make_splits(some("ab" * 9), KFold(3, seeds=[4]))[1].name == "stratified 3-fold, fold 2 of 3, seed 4"
    assert make_splits(people(), KFold(3, repeats=2))[5].name == (
        "stratified 3-fold with groups kept together, fold 3 of 3, repeat 2 of 2, seed 0"
    )
    assert make_splits(people(), KFold(3, allow_group_overlap=True))[0].name.startswith(
        "stratified 3-fold with groups on both sides"
    )
    assert make_splits(people(), LeaveOneGroupOut())[0].name == "without the group p0, fold 1 of 18, seed 0"
    assert make_splits(some("ab" * 9), HoldOut(0.2))[0].name == "hold-out of 20%, seed 0"


def test_the_key_is_of_ids_not_of_rows() -> None:
    dataset = some("ab" * 6)
    split = make_splits(dataset, KFold(2))[0]
    backwards = dataset.select_rows(np.arange(12)[::-1])
    turned = Split(9, 9, 9, 9, "other", 11 - split.train, 11 - split.test[::-1])
    assert turned.content_key(backwards) == split.content_key(dataset)
    assert Split(0, 0, 0, 2, "x", split.test, split.train).content_key(dataset) != split.content_key(dataset)


# one test or two for each kind


def test_leave_one_group_out_tests_each_group_once() -> None:
    dataset = people()
    made = make_splits(dataset, LeaveOneGroupOut())
    assert sorted(group for s in made for group in in_groups(dataset, s.test)) == sorted({f"p{i}" for i in range(18)})
    assert all(not in_groups(dataset, s.test) & in_groups(dataset, s.train) for s in made) and times_tested(made) == Counter(
        range(len(dataset))
    )


def test_leave_one_site_out_tests_each_site_by_a_model_that_never_saw_it() -> None:
    dataset = people()
    assert dataset.sites is not None
    made = make_splits(dataset, ProtocolSpec(split="leave-one-site-out", allow_group_overlap=True))
    assert [set(dataset.sites[s.test]) for s in made] == [{"s0"}, {"s1"}, {"s2"}] and times_tested(made) == Counter(
        range(len(dataset))
    )
    assert all(not set(dataset.sites[s.test]) & set(dataset.sites[s.train]) for s in made)


def test_hold_out_takes_its_share_of_every_class() -> None:
    dataset = some("a" * 50 + "b" * 10 + "c" * 2)
    (split,) = make_splits(dataset, HoldOut(0.2))
    assert np.bincount(dataset.labels[split.test]).tolist() == [10, 2, 1]
    assert len(np.union1d(split.train, split.test)) == 62 and not np.intersect1d(split.train, split.test).size


def test_hold_out_grows_without_reshuffling() -> None:
    names = [f"r{i}" for i in range(100)]
    (small,), (large,) = (make_splits(some("ab" * (n // 2), ids=names[:n]), HoldOut(0.3)) for n in (80, 100))
    before, after = ({names[i] for i in split.test} for split in (small, large))
    assert len(before & after) >= 0.75 * len(before)


def test_so_many_of_each_class_train() -> None:
    dataset = some("a" * 30 + "b" * 12)
    (split,) = make_splits(dataset, HoldOut(train_per_class=10))
    assert np.bincount(dataset.labels[split.train]).tolist() == [10, 10] and len(split.test) == 22


def test_official_parts() -> None:
    dataset = some("abababab", parts=["train"] * 4 + ["val"] * 2 + ["test"] * 2)
    (split,) = make_splits(dataset, Predefined())
    assert (split.train.tolist(), split.test.tolist()) == ([0, 1, 2, 3], [6, 7])
    assert split.val is not None and split.val.tolist() == [4, 5] and split.name == "official parts, tested on test, seed 0"
    (two,) = make_splits(dataset.select_rows(np.arange(6)), Predefined())
    assert two.test.tolist() == [4, 5] and two.val is None and "tested on val" in two.name
    (inner,) = make_splits(dataset.select_rows(np.array([0, 1, 2, 3, 6, 7])), Predefined(val_size=0.5))
    assert inner.val is not None and sorted([*inner.train, *inner.val]) == [0, 1, 2, 3] and len(inner.val) == 2


def test_sites_are_trained_on_or_unseen() -> None:
    dataset = people(1)
    assert dataset.sites is not None
    made = make_splits(dataset, HeldOutSites(test_sites=["s2"], folds=3))
    unseen = np.flatnonzero(dataset.sites == "s2").tolist()
    assert len(made) == 3 and all(s.external is not None and s.external.tolist() == unseen for s in made)
    assert times_tested(made) == Counter(np.flatnonzero(dataset.sites != "s2").tolist())
    for split in made:
        assert not set(unseen) & {*split.train.tolist(), *split.test.tolist()}
        assert not in_groups(dataset, split.train) & in_groups(dataset, split.test)
    assert [s.content_key(dataset) for s in make_splits(dataset, HeldOutSites(train_sites=["s1", "s0"], folds=3))] == [
        s.content_key(dataset) for s in made
    ]


def test_sites_without_folds_test_the_unseen_ones() -> None:
    dataset = people(1)
    assert dataset.sites is not None
    (split,) = make_splits(dataset, HeldOutSites(train_sites=["s0"], test_sites=["s1"], folds=1))
    assert set(dataset.sites[split.train]) == {"s0"} and set(dataset.sites[split.test]) == {"s1"} and split.external is None


def test_evaluate_tests_everything() -> None:
    (split,) = make_splits(some("aab"), TestOnly())
    assert split.train.size == 0 and split.test.tolist() == [0, 1, 2]


def test_validation_is_cut_from_the_training_part_class_by_class() -> None:
    dataset = some("a" * 40 + "b" * 20)
    for split in make_splits(dataset, KFold(4, val_size=0.2)):
        assert split.val is not None and np.bincount(dataset.labels[split.val]).tolist() == [6, 3]
        assert sorted([*split.train, *split.val, *split.test]) == list(range(60))


def test_unlabelled_rows_are_in_no_part_and_said() -> None:
    import dataclasses

    dataset = some("ab" * 10)
    partly = dataclasses.replace(dataset, labels=np.where(np.arange(20) < 4, -1, dataset.labels))
    made = make_splits(partly, KFold(4))
    assert times_tested(made) == Counter(range(4, 20)) and made[0].name.endswith("4 unlabelled rows left out")
    with pytest.raises(SplitError, match="has no labelled rows"):
        make_splits(dataclasses.replace(dataset, labels=np.full(20, -1)), KFold(4))


def test_classes_without_any_row_are_nobody_s_fault() -> None:
    dataset = some("aabbcc" * 4).select_rows(np.array([i for i in range(24) if i % 6 < 4]))
    assert len(dataset.classes) == 3 and len(make_splits(dataset, KFold(4))) == 4


# what is refused, and what the refusal says would work

PARTED = ["train"] * 3 + ["test"] * 3


@pytest.mark.parametrize(
    ("dataset", "spec", "words"),
    [
        (some("a" * 20 + "b" * 3), KFold(5), r"the class 'b' has 3 labelled pictures for 5 parts; use at most folds: 3"),
        (
            some("a" * 20 + "b"),
            KFold(5),
            r"the class 'b' has one labelled picture for 5 parts; add pictures, or exclude: \['b'\]",
        ),
        (some("a" * 20 + "b"), HoldOut(), "the class 'b' has one labelled picture"),
        (some("ab"), KFold(5, stratified=False), "5 folds need at least 5 rows, and some has 2"),
        (
            some("a" * 40 + "b" * 2),
            KFold(5, stratified=False),
            "no picture of 'b' is in the .* part .* use split: stratified-k-fold",
        ),
        (some("ab" * 6, groups=list("xxxxyyyyzzzz")), KFold(5), "need at least 5 groups, and some has 3: use at most folds: 3"),
        (some("ab" * 3, groups=["x"] * 6), KFold(2), "has 1: record more groups"),
        (some("ab" * 6), GroupKFold(), "needs groups, and some names none; give the manifest a column group.*group_from"),
        (some("ab" * 6), LeaveOneGroupOut(), "needs two groups or more, and some names none"),
        (some("ab" * 6, groups=["x"] * 12), LeaveOneGroupOut(), "needs two groups or more, and some names one"),
        (
            some("aabaac", groups=list("xxxyyz")),
            LeaveOneGroupOut(),
            r"no picture of '[bc]' is in the training part of 'without the",
        ),
        (
            some("a" * 20 + "b" * 4, groups=[f"g{i // 4}" for i in range(24)]),
            GroupKFold(3),
            r"no picture of 'b' is in the .* part .*it has 4 pictures in 1 group\); .*exclude: \['b'\]",
        ),
        (some("ab" * 6, groups=["x"] * 12), HoldOut(), "needs two groups or more"),
        (some("ab" * 6, groups=list("xxyyzz" * 2)), HoldOut(train_per_class=2), "cannot keep groups together"),
        (
            some("a" * 9 + "b" * 4),
            HoldOut(train_per_class=4),
            "leaves nothing to test of 'b', which has 4 pictures; use 3 or fewer",
        ),
        (some("ab" * 6), Predefined(), "and some has none; name them in a column split of the manifest"),
        (some("ab" * 3, parts=["test"] * 6), Predefined(), "and some has only 'test'"),
        (some("aaabab", parts=PARTED), Predefined(), "no picture of 'b' is in the training part of 'official"),
        (
            some("ababab", parts=PARTED, groups=list("xyzzxw")),
            Predefined(),
            r"2 groups lie in both the .* \(x or z\).*overlap: true",
        ),
        (
            some("ab" * 6, parts=["train", "val", "test"] * 4),
            Predefined(val_size=0.1),
            "has an official val part: remove 'val_size'",
        ),
        (some("ab" * 6), HeldOutSites(test_sites=["s"]), "needs sites, and some names none"),
        (some("ab" * 6), ProtocolSpec(split="leave-one-site-out"), "leave-one-site-out needs sites, and some names none"),
        (
            some("ab" * 6, sites="s" * 12),
            ProtocolSpec(split="leave-one-site-out"),
            "needs two sites or more, and some names one, s",
        ),
        (
            some("ab" * 4, sites=list("sstt") * 2, groups=list("xyzx") * 2),
            ProtocolSpec(split="leave-one-site-out"),
            r"1 group lies in the site s and in others \(x\)",
        ),
        (people(), HeldOutSites(), r"needs train_sites or test_sites; the sites of some are s0, s1 or s2, so for example"),
        (people(), HeldOutSites(test_sites=["s22"]), r"some has no site 's22'; did you mean 's2'\?; it has s0, s1 or s2"),
        (people(), HeldOutSites(test_sites=["s0", "s1", "s2"]), "every site is on one side; leave one for training"),
        (
            some("ab" * 4, sites=list("sstt") * 2, groups=list("xyzx") * 2),
            HeldOutSites(test_sites=["t"], folds=1),
            r"1 group lies in both sites .* \(x\)",
        ),
    ],
)
def test_what_cannot_be_split_is_refused_with_what_would_work(dataset: Dataset, spec: ProtocolSpec, words: str) -> None:
    with pytest.raises(SplitError, match=words):
        make_splits(dataset, spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"split": "k-fold", "test_size": 0.3}, "'test_size' belongs to hold-out and does nothing for 'split: k-fold'"),
        ({"split": "hold-out", "folds": 3}, "'folds' belongs to .* and does nothing for 'split: hold-out'"),
        ({"split": "predefined", "repeats": 3}, "'repeats' belongs to .* and does nothing for 'split: predefined'"),
        ({"split": "leave-one-group-out", "reshuffle": False}, "'reshuffle' belongs to"),
        ({"split": "k-fold", "test_sites": ["a"]}, "'test_sites' belongs to held-out-sites"),
        ({"split": "group-k-fold", "allow_group_overlap": True}, "'allow_group_overlap' belongs to .* 'split: group-k-fold'"),
        ({"split": "test-only", "val_size": 0.1}, "'val_size' belongs to"),
        ({"split": "hold-out", "test_size": 0.3, "train_per_class": 5}, "'test_size' and 'train_per_class' both say"),
        ({"split": "k-fold", "folds": 1}, "'folds: 1' leaves nothing to train on"),
        (
            {"split": "held-out-sites", "train_sites": ["a"], "test_sites": ["a"]},
            "the site 'a' is in 'train_sites' and in 'test_sites'",
        ),
        ({"split": "held-out-sites", "test_sites": ["a"], "folds": 1, "repeats": 2}, "would repeat one and the same partition"),
        ({"seeds": [1, 1]}, "'seeds' must be different whole numbers"),
        ({"seeds": [-1]}, "'seeds' must be different whole numbers"),
        ({"seeds": []}, "seeds"),
        ({"split": "stratified-kfold"}, r"did you mean 'stratified-k-fold'\?"),
        ({"fold": 3}, r"unknown key 'fold'; did you mean 'folds'\?"),
        ({"split": "hold-out", "test_size": float("nan")}, "test"),
    ],
)
def test_options_that_contradict_each_other_are_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        validate_as(ProtocolSpec, spec)


def test_a_protocol_goes_through_plain_data_and_back() -> None:
    for spec in (
        KFold(3, seeds=[0, 4]),
        HoldOut(0.3),
        HoldOut(train_per_class=6),
        HeldOutSites(test_sites=["a"]),
        TestOnly(),
        Predefined(),
    ):
        assert ProtocolSpec.model_validate(spec.plain()) == spec == spec.with_changes()
    assert ProtocolSpec().split == "stratified-k-fold" and KFold(5) == ProtocolSpec()


# blocks of time


def walks(starts_by: dict[tuple[str, str], list[float]], length: float = 5.0) -> Dataset:
    """Windows of recordings: (person, class) → where they start, in seconds."""
    rows = [(person, word, start) for (person, word), starts in starts_by.items() for start in starts]
    made = some([word for _, word, _ in rows], groups=[person for person, _, _ in rows])
    spans = np.array([[start, start + length] for _, _, start in rows])
    return replace(made, spans=spans, recordings=np.array([person for person, _, _ in rows]))


@settings(max_examples=15, deadline=None)
@given(
    counts=st.lists(st.integers(20, 40), min_size=2, max_size=4),
    step=st.sampled_from([2.0, 2.5, 5.0, 7.0]),
    folds=st.integers(2, 5),
)
def test_blocks_are_contiguous_and_share_no_sample(counts: list[int], step: float, folds: int) -> None:
    starts = {
        (f"p{i}", word): [1000 * j + step * k for k in range(n)] for i, n in enumerate(counts) for j, word in enumerate("ab")
    }
    dataset = walks(starts)
    made = make_splits(dataset, BlockKFold(folds))
    assert dataset.spans is not None and dataset.recordings is not None and len(made) == folds
    tested = times_tested(made)
    assert set(tested.values()) <= {1}
    for split in made:
        assert not set(split.train) & set(split.test)
        for row in split.test:  # by brute force: nothing of the recording that is trained on touches a tested window
            low, high = dataset.spans[row]
            there = split.train[dataset.recordings[split.train] == dataset.recordings[row]]
            shares = (dataset.spans[there, 0] < high - 1e-6) & (dataset.spans[there, 1] > low + 1e-6)
            assert not shares.any()
        for stretch in {(dataset.recordings[r], dataset.labels[r]) for r in split.test}:
            of = [r for r in range(len(dataset)) if (dataset.recordings[r], dataset.labels[r]) == stretch]
            places = [of.index(r) for r in split.test if r in set(of)]
            assert places == list(range(min(places), max(places) + 1))
    left_out = len(dataset) - len(tested)
    assert f"{left_out} windows on borders left out" in made[0].name and (left_out == 0) == (step >= 5)


def test_blocks_of_five_second_windows_every_two_seconds() -> None:
    """Ten windows in two blocks: the second begins at 10 s, so the windows from 6 and 8 s, which reach beyond, are left out."""
    dataset = walks({("p", "a"): [2.0 * k for k in range(10)], ("p", "b"): [100 + 2.0 * k for k in range(10)]})
    first, second = make_splits(dataset, BlockKFold(2))
    assert ids(dataset, first.test) == {str(dataset.ids[i]) for i in (0, 1, 2, 10, 11, 12)}
    assert ids(dataset, second.test) == {str(dataset.ids[i]) for i in (5, 6, 7, 8, 9, 15, 16, 17, 18, 19)}


def test_blocks_are_refused_where_they_mean_nothing() -> None:
    with pytest.raises(SplitError, match="block-k-fold needs windows of recordings"):
        make_splits(some("aabb" * 5), BlockKFold(2))
    dataset = walks({("p", "a"): [0.0, 2.0, 4.0], ("p", "b"): [100.0 + 2 * k for k in range(9)]})
    with pytest.raises(SplitError, match=r"say allow_group_overlap: true if that is intended, or use split: group-k-fold"):
        make_splits(dataset, validate_as(ProtocolSpec, {"split": "block-k-fold"}))
    with pytest.raises(SplitError, match=r"5 blocks .* has 3 in one of them: use at most folds: 3, or more windows"):
        make_splits(dataset, BlockKFold(5))
