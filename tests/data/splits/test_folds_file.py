"""Folds files: a written file gives the splits it came from, and every mistake in a file is named with its line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from phoropter.core.errors import LeakageError, SplitError
from phoropter.data.dataset import Dataset
from phoropter.data.leakage.audit import audit_splits, raise_on_leak
from phoropter.data.sources.arrays import from_arrays
from phoropter.data.spec import open_dataset
from phoropter.data.splits.protocol import make_splits, write_folds_file
from phoropter.data.splits.spec import (
    BlockKFold,
    FoldsFile,
    GroupKFold,
    HeldOutSites,
    HoldOut,
    KFold,
    Predefined,
    ProtocolSpec,
    TestOnly,
)


def sixty_rows(**columns: list[str]) -> Dataset:
    rows = np.arange(60)
    return from_arrays(np.zeros((60, 4, 4, 3), dtype=np.uint8), [("a", "b")[i % 2] for i in rows], name="sixty", **columns)


def people_at_sites() -> Dataset:
    rows = np.arange(60)
    return sixty_rows(groups=[f"p{i // 4:02d}" for i in rows], sites=[f"s{i // 20}" for i in rows])


@pytest.mark.parametrize(
    ("dataset", "spec"),
    [
        (sixty_rows(), KFold(3)),
        (sixty_rows(), KFold(3, seeds=[0, 4], repeats=2)),
        (sixty_rows(), KFold(4, seeds=[0, 4], reshuffle=False, val_size=0.2)),
        (people_at_sites(), GroupKFold(3, val_size=0.3)),
        (people_at_sites(), HeldOutSites(test_sites=["s2"], folds=3)),
        (sixty_rows(), HoldOut(0.25, seeds=[7])),
        (sixty_rows(), HoldOut(train_per_class=9)),
        (sixty_rows(parts=["train"] * 30 + ["val"] * 10 + ["test"] * 20), Predefined()),
    ],
)
def test_a_written_file_gives_the_same_splits(tmp_path: Path, dataset: Dataset, spec: ProtocolSpec) -> None:
    expected = make_splits(dataset, spec)
    assert write_folds_file(dataset, spec, tmp_path / "folds.csv") == len(expected)
    found = make_splits(dataset, FoldsFile("folds.csv", seeds=spec.seeds), tmp_path)
    numbers = [(s.seed, s.repeat, s.fold, s.folds, s.content_key(dataset)) for s in expected]
    assert [(s.seed, s.repeat, s.fold, s.folds, s.content_key(dataset)) for s in found] == numbers
    for one, two in zip(expected, found, strict=True):
        for part in ("train", "test", "val", "external"):
            assert np.array_equal(getattr(one, part), getattr(two, part))


def test_rows_in_no_part_are_written_as_unused(tmp_path: Path) -> None:
    """Windows that straddle a border between blocks."""
    spans = np.column_stack([np.arange(60) * 0.5, np.arange(60) * 0.5 + 1.5])
    dataset = replace(sixty_rows(), spans=spans)
    spec = BlockKFold(3)
    write_folds_file(dataset, spec, tmp_path / "folds.csv")
    assert ",unused\n" in (tmp_path / "folds.csv").read_text()
    keys = [s.content_key(dataset) for s in make_splits(dataset, FoldsFile("folds.csv", allow_group_overlap=True), tmp_path)]
    assert keys == [s.content_key(dataset) for s in make_splits(dataset, spec)]


def test_the_seed_column_is_there_only_where_seeds_differ(tmp_path: Path) -> None:
    for spec, header in ((KFold(3, seeds=[0, 1]), "id,seed,repeat,fold,part"), (KFold(3, seeds=[1]), "id,repeat,fold,part")):
        write_folds_file(sixty_rows(), spec, tmp_path / "folds.csv")
        assert (tmp_path / "folds.csv").read_text().splitlines()[0] == header


def test_a_file_without_seeds_serves_every_seed(tmp_path: Path) -> None:
    dataset = sixty_rows()
    write_folds_file(dataset, KFold(3), tmp_path / "folds.csv")
    splits = make_splits(dataset, FoldsFile("folds.csv", seeds=[5, 2]), tmp_path)
    assert [(s.seed, s.fold) for s in splits] == [(5, 0), (5, 1), (5, 2), (2, 0), (2, 1), (2, 2)]
    assert splits[0].content_key(dataset) == splits[3].content_key(dataset)


def test_groups_on_both_sides_are_a_leakage_finding(tmp_path: Path) -> None:
    dataset = people_at_sites()
    write_folds_file(dataset, KFold(3, allow_group_overlap=True), tmp_path / "folds.csv")
    splits = make_splits(dataset, FoldsFile("folds.csv"), tmp_path)
    with pytest.raises(LeakageError, match="Groups"):
        raise_on_leak(audit_splits(dataset, splits))
    allowed = audit_splits(dataset, splits, allow_group_overlap=True)
    assert [f.severity for f in allowed if f.kind == "groups"] == ["warn"]


def test_test_only_has_no_folds_file(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="trains on nothing"):
        write_folds_file(sixty_rows(), TestOnly(), tmp_path / "folds.csv")


FOUR = [("r0", "train"), ("r1", "train"), ("r2", "test"), ("r3", "test")]


def lines_of(*folds: list[tuple[str, str]]) -> list[str]:
    return ["id,repeat,fold,part"] + [f"{name},1,{number + 1},{part}" for number, fold in enumerate(folds) for name, part in fold]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the first line has no column 'id'"),
        (["id,repeat,fold,part"], "lists no rows"),
        (["id,repeat,fold"], "no column 'part'; expected id, repeat, fold, part"),
        (["id,repeat,fold,prt"], "unknown column 'prt'; did you mean 'part'"),
        (lines_of([*FOUR, ("r9", "test")]), r"line 6: four has no row 'r9'; its ids are like 'r0'"),
        (lines_of(FOUR[:3]), "fold 1: 1 of 4 labelled rows of four have no part, for example 'r3'"),
        (lines_of(FOUR, FOUR[1:]), "repeat 1, fold 2: 1 of 4 labelled rows of four have no part, for example 'r0'"),
        (lines_of([*FOUR, ("r0", "test")]), "line 6: the row 'r0' has a second part in one fold"),
        (lines_of([(name, "train") for name, _ in FOUR]), "no row has the part test"),
        (lines_of([(name, "test") for name, _ in FOUR]), "no row has the part train"),
        (lines_of([*FOUR[:3], ("r3", "tset")]), "line 5: part is 'tset', expected .*; did you mean 'test'"),
        ([line.replace(",1,1,", ",1,2,") for line in lines_of(FOUR)], r"folds are numbered \[2\]; expected 1 to 1"),
        ([line.replace(",1,1,", ",2,1,") for line in lines_of(FOUR)], r"repeats are numbered \[2\]; expected 1 to 1"),
        ([line.replace(",1,1,", ",1,one,") for line in lines_of(FOUR)], "line 2: seed, repeat and fold must be whole numbers"),
        ([line.replace(",1,1,", ",1,0,") for line in lines_of(FOUR)], "count from 1"),
        ([*lines_of(FOUR), "r0,1"], "line 6: 2 values came, expected one for each of the 4 columns"),
        (["id,seed,repeat,fold,part"] + [f"{name},3,1,1,{part}" for name, part in FOUR], "has folds for the seeds 3, and .* 0"),
        (
            lines_of([("r0", "train"), ("r1", "test"), ("r2", "train"), ("r3", "test")]),
            "no picture of 'b' is in the training part",
        ),
        (lines_of([*FOUR, ("r4", "test")]), "line 6: the row 'r4' of four has no label"),
    ],
)
def test_every_mistake_is_named(tmp_path: Path, lines: list[str], message: str) -> None:
    labels = np.array([0, 1, 0, 1, -1])
    dataset = Dataset(
        "four", np.array([f"r{i}" for i in range(5)]), labels, ("a", "b"), sixty_rows().pictures.select(np.arange(5))
    )
    (tmp_path / "folds.csv").write_text("\n".join(lines))
    with pytest.raises(SplitError, match=message):
        make_splits(dataset, FoldsFile(tmp_path / "folds.csv"))


def test_a_missing_file_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="there is no such file"):
        make_splits(sixty_rows(), FoldsFile("folds.csv"), tmp_path)
    (tmp_path / "folds.csv").write_bytes(b"\xff id")
    with pytest.raises(SplitError, match="is not UTF-8 text"):
        make_splits(sixty_rows(), FoldsFile("folds.csv"), tmp_path)


def test_a_study_from_the_written_file_makes_the_same_predictions(tmp_path: Path) -> None:
    """Its runs even have the same keys, so that nothing is computed twice."""
    from phoropter.study.executors import execute_study
    from phoropter.study.spec import StudySpec
    from phoropter.study.worker import ComputeOptions

    probe = {
        "name": "cnn",
        "backbone": "test_resnet",
        "weights": "random",
        "frozen": True,
        "recipe": {"preset": "probe", "epochs": 2},
    }
    drawn = {"split": "stratified-k-fold", "folds": 2, "seeds": [0, 3]}
    data = {"digits": True, "size": 32, "max_samples": 120}
    first = StudySpec.model_validate({"name": "drawn", "data": data, "protocol": drawn, "candidates": [probe]})
    write_folds_file(open_dataset(first.data), first.protocol, tmp_path / "folds.csv")
    read = {"split": "file", "folds_file": str(tmp_path / "folds.csv"), "seeds": [0, 3]}
    second = first.with_changes(name="read", protocol=read)
    stores = [
        execute_study(s, tmp_path / s.name, lambda event: None, options=ComputeOptions("cpu", threads=1)) for s in (first, second)
    ]
    each = [{run.key: (run.folder / "predictions.npz").read_bytes() for run in store.runs()} for store in stores]
    assert len(each[0]) == 4 and each[0] == each[1]


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text.replace("id,repeat,fold,part", "\ufeffID , Repeat,FOLD,Part"),
        lambda text: "sep=;\n" + text.replace(",", ";"),
        lambda text: text.replace(",", "\t").replace("\n", "\r\n"),
        lambda text: "".join(f"{'' if i == 0 else i},{line}\n" for i, line in enumerate(text.splitlines())),  # pandas' index
        lambda text: text.replace(",1,1,", ",1.0,1.0,").replace("cells/", "cells\\"),
    ],
)
def test_a_file_in_any_dialect_gives_the_same_splits(tmp_path: Path, write: Callable[[str], str]) -> None:
    dataset = sixty_rows(ids=[f"cells/{i:02d}" for i in range(60)])
    write_folds_file(dataset, KFold(3), tmp_path / "folds.csv")
    expected = [s.content_key(dataset) for s in make_splits(dataset, FoldsFile("folds.csv"), tmp_path)]
    text = write((tmp_path / "folds.csv").read_text())
    (tmp_path / "folds.csv").write_text(text, encoding="utf-8", newline="")
    assert [s.content_key(dataset) for s in make_splits(dataset, FoldsFile("folds.csv"), tmp_path)] == expected


def test_ids_that_are_numbers_are_found_however_they_are_written(tmp_path: Path) -> None:
    dataset = sixty_rows(ids=[str(i) for i in range(60)])
    write_folds_file(dataset, KFold(3), tmp_path / "folds.csv")
    expected = [s.content_key(dataset) for s in make_splits(dataset, FoldsFile("folds.csv"), tmp_path)]
    header, *lines = (tmp_path / "folds.csv").read_text().splitlines()
    (tmp_path / "folds.csv").write_text("\n".join([header, *(line.replace(",", ".0,", 1) for line in lines)]))
    assert [s.content_key(dataset) for s in make_splits(dataset, FoldsFile("folds.csv"), tmp_path)] == expected


def test_ids_that_a_spreadsheet_would_run_are_written_as_text_and_found_again(tmp_path: Path) -> None:  # X3
    dataset = sixty_rows(ids=[f"=HYPERLINK({i})" if i % 2 else f"-{i}x" for i in range(60)])
    expected = make_splits(dataset, KFold(3))
    write_folds_file(dataset, KFold(3), tmp_path / "folds.csv")
    lines = (tmp_path / "folds.csv").read_text().splitlines()[1:]
    assert lines and all(line.startswith("'") or line.startswith("\"'") for line in lines)
    found = make_splits(dataset, FoldsFile("folds.csv"), tmp_path)
    assert [s.content_key(dataset) for s in found] == [s.content_key(dataset) for s in expected]
