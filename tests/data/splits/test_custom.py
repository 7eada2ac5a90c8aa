"""Protocols of the user's own: a function that returns ids or row numbers, passed in Python or named by module:NAME."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from phoropter.core.errors import SpecError, SplitError
from phoropter.core.extensions import trust_code
from phoropter.core.spec import validate_as
from phoropter.data.dataset import Dataset
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.splits.protocol import make_splits, write_folds_file
from phoropter.data.splits.spec import FoldsFile, Protocol, ProtocolSpec


def twelve_rows(unlabelled: int | None = None) -> Dataset:
    labels = [None if i == unlabelled else ("a", "b")[i % 2] for i in range(12)]
    ids = [f"r{i:02d}" for i in range(12)]
    return from_arrays(np.zeros((12, 4, 4, 3), dtype=np.uint8), labels, ids=ids, name="twelve")


def three_folds(dataset: Dataset, seed: int) -> Any:
    return StratifiedKFold(3, shuffle=True, random_state=seed).split(dataset.ids, dataset.labels)


def halves(dataset: Dataset, seed: int) -> Any:
    return [(dataset.ids[:6], dataset.ids[6:10], dataset.ids[10:])]


def test_row_numbers_as_scikit_learn_gives_them() -> None:
    dataset = twelve_rows()
    splits = make_splits(dataset, ProtocolSpec(split=Protocol("three", make_splits=three_folds), seeds=(3, 4)))
    expected = [(seed, *pair) for seed in (3, 4) for pair in three_folds(dataset, seed)]
    assert len(splits) == len(expected) == 6
    for split, (seed, train, test) in zip(splits, expected, strict=True):
        assert split.seed == seed and split.train.tolist() == train.tolist() and split.test.tolist() == test.tolist()
    assert splits[1].name == "three, fold 2 of 3, seed 3"


def test_ids_and_an_inner_validation_part() -> None:
    (split,) = make_splits(twelve_rows(), ProtocolSpec.model_validate(Protocol("halves", make_splits=halves)))
    assert split.val is not None
    assert (split.train.tolist(), split.test.tolist(), split.val.tolist()) == ([*range(6)], [6, 7, 8, 9], [10, 11])


def test_a_file_of_its_folds_gives_the_same_splits(tmp_path: Path) -> None:
    dataset, spec = twelve_rows(), ProtocolSpec(split=Protocol("three", make_splits=three_folds), seeds=(3, 4))
    write_folds_file(dataset, spec, tmp_path / "folds.csv")
    found = make_splits(dataset, FoldsFile("folds.csv", seeds=[3, 4]), tmp_path)
    assert [s.content_key(dataset) for s in found] == [s.content_key(dataset) for s in make_splits(dataset, spec)]


def test_identity_is_name_and_version() -> None:
    one = ProtocolSpec(split=Protocol("halves", make_splits=halves, version="2"))
    assert one.plain()["split"] == {"name": "halves", "version": "2"} and one.split_name == "halves"
    assert one == ProtocolSpec(split=Protocol("halves", make_splits=three_folds, version="2"))
    assert one != ProtocolSpec(split=Protocol("halves", make_splits=halves))


def test_module_and_name_in_a_study_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_splits.py").write_text(
        "import phoropter as ph\nSPLITS = ph.Protocol('mine', make_splits=lambda dataset, seed: [(range(6), range(6, 12))])\n"
    )
    with pytest.raises(SpecError, match="--trust-code"):
        validate_as(ProtocolSpec, {"split": "my_splits:SPLITS"})
    with trust_code(tmp_path):
        for written in ("my_splits:SPLITS", {"split": "my_splits:SPLITS"}):
            (split,) = make_splits(twelve_rows(), validate_as(ProtocolSpec, written))
            assert split.test.tolist() == [*range(6, 12)]


def test_options_of_other_splits_are_refused() -> None:
    with pytest.raises(SpecError, match=r"'folds' belongs to .* and does nothing for 'split: halves'"):
        validate_as(ProtocolSpec, {"split": Protocol("halves", make_splits=halves), "folds": 3})
    with pytest.raises(SpecError, match="did you mean 'stratified-k-fold'"):
        validate_as(ProtocolSpec, {"split": "stratified-kfold"})
    with pytest.raises(ValueError, match="expected a function"):
        Protocol("none", make_splits=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ([], "returned no split for seed 0"),
        ([[0, 1, 2, 3]], r"split 1: expected \(train, test\)"),
        ([3], "got int"),
        ([([], [1])], "split 1, train: expected a list of ids or row numbers with at least one entry"),
        ([([0, 1], [12])], "row numbers run from 12 to 12, and twelve has 12 rows"),
        ([(["r00", "r01"], ["r2"])], "twelve has no row 'r2'"),
        ([([0, 1], [1, 2])], "the row 'r01' is given twice"),
        ([([0, 1], [2, 3]), ([0, 1, 1], [2, 3])], "split 2: the row 'r01' is given twice"),
        ([([0.5, 1.5], [2])], "expected ids .str. or row numbers .int., got float64"),
        ([([True, False], [2])], "got bool"),
        ([([0, 1], [5])], "the row 'r05' has no label"),
        ([([0, 2], [1, 3])], "no picture of 'b' is in the training part of 'bad'.* correct its make_splits"),
    ],
)
def test_every_mistake_of_the_function_is_named(returned: Any, message: str) -> None:
    spec = ProtocolSpec(split=Protocol("bad", make_splits=lambda dataset, seed: returned))
    with pytest.raises(SplitError, match=message):
        make_splits(twelve_rows(unlabelled=5), spec)


def test_no_second_protocol_is_derived_from_splits_of_ones_own() -> None:
    from phoropter.study.spec import StudySpec, expand_protocols

    study = StudySpec(
        name="two", data={"digits": True}, protocol=Protocol("halves", make_splits=halves), candidates=[], second_protocol=True
    )
    with pytest.raises(SpecError, match="cannot be derived from splits of your own"):
        expand_protocols(study)
    stated = study.with_changes(second_protocol={"split": "stratified-k-fold"})
    assert [s.protocol.split_name for s in expand_protocols(stated)] == ["stratified-k-fold", "halves"]
