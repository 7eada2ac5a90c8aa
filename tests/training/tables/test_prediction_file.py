"""Other tools' predictions: matched with rows and splits whatever their order and numbers, and refused where they do not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from made_rows import frame_of, make_folds, make_rows, save_frame
from phoropter.core.errors import DataError
from phoropter.data.splits.protocol import Split
from phoropter.results.metrics.probabilities import softmax
from phoropter.training.candidates.table_spec import TableSpec
from phoropter.training.tables.prediction_file import read_fold_predictions

DATASET = make_rows()
SPLITS = make_folds(DATASET, (0, 1))
FRAME = frame_of(DATASET, SPLITS)


def read(path: Path, splits: list[Split] = SPLITS, **columns: str) -> list[np.ndarray]:
    """(m, C) probabilities of each split, of its test rows in order."""
    found = read_fold_predictions(TableSpec(predictions=str(path), columns=columns), DATASET, splits, None)
    return [softmax(one.of_rows(split.test)) for one, split in zip(found, splits, strict=True)]


def check_values(found: list[np.ndarray]) -> None:
    for split, probabilities in zip(SPLITS, found, strict=True):
        of_split = FRAME[(FRAME.seed == split.seed) & (FRAME.fold == split.fold + 1)].set_index("id")
        np.testing.assert_allclose(probabilities[:, 1], of_split.loc[DATASET.ids[split.test]].p_well, rtol=1e-5)


@pytest.mark.parametrize("name", ["theirs.csv", "theirs.parquet"])
def test_rows_and_splits_are_found_by_id(tmp_path: Path, name: str) -> None:
    check_values(read(save_frame(FRAME, tmp_path / name)))


def test_logits_one_column_and_other_names_say_the_same(tmp_path: Path) -> None:
    as_logits = FRAME.assign(logit_ill=np.log(FRAME.p_ill) + 3, logit_well=np.log(FRAME.p_well) + 3).drop(
        columns=["p_ill", "p_well"]
    )
    check_values(read(save_frame(as_logits, tmp_path / "logits.csv")))
    check_values(read(save_frame(FRAME.drop(columns="p_ill"), tmp_path / "one.csv")))
    renamed = FRAME.rename(columns={"id": "file", "p_well": "score", "fold": "split number"}).drop(columns="p_ill")
    check_values(read(save_frame(renamed, tmp_path / "renamed.csv"), id="file", p_well="score", fold="split number"))


def test_a_name_that_renames_nothing_is_refused(tmp_path: Path) -> None:
    path = save_frame(FRAME, tmp_path / "theirs.csv")
    with pytest.raises(DataError, match=r"columns names 'fld', and predictions have id, .*did you mean 'fold'"):
        read(path, fld="fold")
    with pytest.raises(DataError, match="no column 'score'"):  # the other class's column would do, but this one was named
        read(path, p_ill="score")


def test_classes_may_differ_in_capitals_alone(tmp_path: Path) -> None:
    dataset = replace(DATASET, classes=("ill", "ILL"))
    frame = FRAME.rename(columns={"p_well": "p_ILL"})[["id", "seed", "fold", "p_ILL", "p_ill"]]
    path = save_frame(frame, tmp_path / "theirs.csv")
    found = read_fold_predictions(TableSpec(predictions=str(path)), dataset, SPLITS, None)
    check_values([softmax(one.of_rows(split.test)) for one, split in zip(found, SPLITS, strict=True)])
    path = save_frame(frame.drop(columns="p_ill"), tmp_path / "one.csv")
    with pytest.raises(DataError, match="one column would be of two classes"):
        read_fold_predictions(TableSpec(predictions=str(path)), dataset, SPLITS, None)


def test_an_npz_may_order_its_classes_and_be_compressed(tmp_path: Path) -> None:
    path, p = tmp_path / "theirs.npz", FRAME[["p_well", "p_ill"]].to_numpy()
    where = {"id": FRAME.id.to_numpy().astype(str), "fold": FRAME.fold.to_numpy(), "seed": FRAME.seed.to_numpy()}
    np.savez_compressed(path, probabilities=p, classes=np.array(["well", "ill"]), **where)
    check_values(read(path))


def test_the_fold_may_have_any_number(tmp_path: Path) -> None:
    check_values(read(save_frame(FRAME.assign(fold=[f"part {5 - f}" for f in FRAME.fold]), tmp_path / "named.csv")))


def test_a_study_of_one_split_needs_no_fold(tmp_path: Path) -> None:
    split = SPLITS[0]
    one = FRAME[(FRAME.seed == 0) & (FRAME.fold == split.fold + 1)].drop(columns=["fold", "seed"])
    found = read(save_frame(one, tmp_path / "one.csv"), [split])
    np.testing.assert_allclose(found[0][:, 1], one.set_index("id").loc[DATASET.ids[split.test]].p_well, rtol=1e-5)
    with pytest.raises(DataError, match="no column 'fold', and the study has 6 splits"):
        read(save_frame(one, tmp_path / "two.csv"))


def _swapped_folds(frame: pd.DataFrame) -> pd.DataFrame:
    """Two rows of one seed exchange their folds."""
    changed = frame.reset_index(drop=True)
    first = changed.index[(changed.seed == 0) & (changed.fold == 1)][0]
    second = changed.index[(changed.seed == 0) & (changed.fold == 2)][0]
    changed.loc[first, "fold"], changed.loc[second, "fold"] = 2, 1
    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_swapped_folds, r"no fold has the 20 tested rows.*1 missing .* and 1 others .*folds_file"),
        (lambda f: f.iloc[1:], "1 missing"),
        (lambda f: pd.concat([f, f.iloc[:2]]), "1 id comes more than once|2 ids come more than once"),
        (lambda f: f.assign(id=["x" + i for i in f.id]), "120 of 120 ids are not in the dataset"),
        (lambda f: f.assign(label=["well"] * len(f)), "60 of 120 labels differ"),
        (lambda f: f.assign(p_ill=0.9), "rows are no probabilities"),
        (lambda f: f.assign(p_ill="high"), "the cell 'high', expected numbers"),
        (lambda f: f.drop(columns=["p_ill", "p_well"]), "has no predictions: expected columns p_ill, p_well"),
        (lambda f: pd.concat([f, f[(f.seed == 0) & (f.fold == 1)].assign(fold=9)]), "1 fold more than the 6 splits"),
        (lambda f: f.drop(columns="id"), "no column 'id'"),
    ],
)
def test_what_does_not_fit_is_refused_with_counts(tmp_path: Path, change: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read(save_frame(change(FRAME), tmp_path / "wrong.csv"))  # type: ignore[operator]
