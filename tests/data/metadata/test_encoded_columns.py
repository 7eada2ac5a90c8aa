"""Numbers as they are, text as levels, what is not stated as NaN; columns that tell the label are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from phoropter.core.errors import DataError
from phoropter.data.dataset import Dataset
from phoropter.data.metadata.encoded_columns import Metadata, read_metadata
from phoropter.data.spec import DataSpec, open_dataset
from small_pictures import draw_dark_and_light

RNG = np.random.default_rng(0)
COUNT = 40
LABELS = np.array(["dark", "light"]).repeat(COUNT // 2)


def open_rows(folder: Path, **columns: Sequence[object]) -> tuple[DataSpec, Dataset]:
    if not (folder / "dark").exists():
        draw_dark_and_light(folder, COUNT // 2, size=(8, 8))
    paths = [f"{label}/{number % (COUNT // 2)}.png" for number, label in enumerate(LABELS)]
    pd.DataFrame({"path": paths, "label": LABELS, **columns}).to_csv(folder / "list.csv", index=False)
    data = DataSpec.model_validate({"manifest": folder / "list.csv", "on_bad_input": "skip"})
    return data, open_dataset(data)


def read(folder: Path, asked: Sequence[str], **columns: Sequence[object]) -> Metadata:
    data, dataset = open_rows(folder, **columns)
    return read_metadata(data, None, dataset, asked)


def test_columns_are_those_of_pandas(tmp_path: Path) -> None:
    age = [None if i == 3 else float(v) for i, v in enumerate(RNG.integers(20, 60, COUNT))]
    ward = [None if i == 5 else str(v) for i, v in enumerate(RNG.choice(["north", "south", "west"], COUNT))]
    found = read(tmp_path, ["ward", "age"], age=age, ward=ward)
    dummies = pd.get_dummies(pd.Series(ward), dtype=float)
    dummies[pd.isna(ward)] = np.nan
    assert found.names == (*(f"ward = {level}" for level in dummies.columns), "age")
    expected = dummies.assign(age=pd.Series(age, dtype=float)).to_numpy()
    np.testing.assert_array_equal(found.values, expected.astype(np.float32))
    assert np.isnan(found.values[5, :3]).all() and np.isnan(found.values[3, 3])


def test_the_digest_is_of_the_columns_alone_and_not_of_the_rows_that_are_kept(tmp_path: Path) -> None:
    age, code = RNG.integers(20, 60, COUNT), RNG.integers(0, 9, COUNT)
    data, dataset = open_rows(tmp_path, age=age, code=code)
    whole = read_metadata(data, None, dataset, ["age"])
    part = read_metadata(data, None, dataset.select_rows(np.arange(5, 30)), ["age"])
    assert part.digest == whole.digest and np.array_equal(part.values, whole.values[5:30])
    assert read(tmp_path, ["age"], age=age, code=code + 1).digest == whole.digest
    assert read(tmp_path, ["age"], age=age + 1, code=code).digest != whole.digest
    assert read_metadata(data, None, dataset, ["age", "AGE"]).values.shape == (COUNT, 1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (LABELS, "tells the label of every row"),
        ([f"code {label[0]}{i % 3}" for i, label in enumerate(LABELS)], "tells the label of every row"),
        (np.where(LABELS == "dark", 1.0, 3.0) + RNG.uniform(0, 1, COUNT), "tells the label of every row"),
        ([""] * COUNT, "is empty in every row"),
        ([f"text {i}" for i in range(COUNT)], "has 40 different texts, more than 30"),
        ([*["1"] * (COUNT - 1), "inf"], "has an infinite number"),
    ],
)
def test_what_tells_the_label_or_nothing_is_refused(tmp_path: Path, values: Sequence[object], words: str) -> None:
    with pytest.raises(DataError, match=f"'fact' of list.csv {words}"):
        read(tmp_path, ["fact"], fact=values)


@pytest.mark.parametrize(
    "values",
    [
        RNG.normal(size=COUNT),  # each value once, without order
        np.where(LABELS == "dark", 1.0, 3.0) + RNG.uniform(0, 3, COUNT),  # tells much, and not all
        ["x"] * COUNT,
        RNG.choice(["a", "b"], COUNT),
    ],
)
def test_a_column_that_does_not_tell_all_is_read(tmp_path: Path, values: Sequence[object]) -> None:
    assert len(read(tmp_path, ["fact"], fact=values).values) == COUNT


def test_few_people_may_be_told_apart_by_chance(tmp_path: Path) -> None:
    data, dataset = open_rows(tmp_path, age=np.where(LABELS == "dark", 30, 50))
    with pytest.raises(DataError, match="tells the label"):
        read_metadata(data, None, dataset, ["age"])
    six = replace(dataset, groups=np.array([f"p{label}{i % 3}" for i, label in enumerate(dataset.labels)]))
    assert read_metadata(data, None, six, ["age"]).values.shape == (COUNT, 1), "six people are told apart by half of all columns"
    control = data.model_copy(update={"control": "predict-group"})
    assert len(read_metadata(control, None, dataset, ["age"]).values) == COUNT


def test_a_missing_value_as_other_programs_write_it_is_missing_among_numbers(tmp_path: Path) -> None:
    age = RNG.integers(20, 60, COUNT).astype(str)
    age[3], age[8], age[9] = "NA", "None", "nan"
    found = read(tmp_path, ["age", "drug"], age=age, drug=np.where(np.arange(COUNT) % 3, "none", "NA"))
    expected = pd.to_numeric(pd.Series(age), errors="coerce").to_numpy(np.float32)
    np.testing.assert_array_equal(found.values[:, 0], expected)
    assert found.names == ("age", "drug = NA", "drug = none")  # among texts they are levels: `none` says something of a drug


@pytest.mark.parametrize("odd", ["unknown", "30 years"])
def test_a_quantity_with_text_among_its_numbers_is_no_set_of_levels(tmp_path: Path, odd: str) -> None:
    age = (20 + np.arange(COUNT) * 7 % 23).astype(str)
    age[4] = odd
    with pytest.raises(DataError, match=f"'age' of list.csv has 2[34] different numbers, and '{odd}' is none; write plain"):
        read(tmp_path, ["age"], age=age)


@pytest.mark.parametrize("unit", [" years", "kg"])
def test_numbers_with_units_are_no_levels(tmp_path: Path, unit: str) -> None:
    with pytest.raises(DataError, match="has 23 different numbers"):
        read(tmp_path, ["age"], age=[f"{20 + i * 7 % 23}{unit}" for i in range(COUNT)])


def test_grades_and_ranges_are_levels(tmp_path: Path) -> None:
    grade = np.array(["0", "1", "2", "3+"])[np.arange(COUNT) * 7 % 13 % 4]
    years = [f"{10 * (i * 7 % 9)}-{10 * (i * 7 % 9) + 9}" for i in range(COUNT)]
    assert len(read(tmp_path, ["grade", "years"], grade=grade, years=years).names) == 4 + 9
